//! A set of any number of samples in little room: the samples of a chunk share the bytes of a few images. The reader finds
//! members by the index alone, so that it cannot tell.
// Each test program uses its own part.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::path::Path;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use r2o_storage::shard::{
    ChunkEntry, FORMAT, INDEX, Member, PackedPrior, SampleEntry, SetIndex, ShardEntry, ShardIndex, pretty,
};
use r2o_types::Keyed;

/// How a set is laid out.
pub(crate) struct Layout {
    /// Samples of the set.
    pub(crate) samples: u32,
    /// Samples of a chunk.
    pub(crate) per_chunk: u32,
    /// Chunks of a shard.
    pub(crate) per_shard: u32,
    /// Classes, in runs of equal length.
    pub(crate) classes: u32,
    /// Bytes that make a chunk longer.
    pub(crate) padding: usize,
    /// Images that the samples of a chunk take turns with.
    pub(crate) images: Vec<Vec<u8>>,
}

/// Small JPEGs that differ in every pixel.
pub(crate) fn small_images(count: u8) -> Vec<Vec<u8>> {
    let image = |number: u8| {
        let (width, height) = (40 + u16::from(number), 36);
        let pixel = |at: u32| [at as u8, (at / 7) as u8 ^ (number * 37), (at * u32::from(number + 3) / 5) as u8];
        let rgb: Vec<u8> = (0..u32::from(width * height)).flat_map(pixel).collect();
        let mut out = Vec::new();
        JpegEncoder::new(&mut out).encode(&rgb, width.into(), height.into(), ExtendedColorType::Rgb8).unwrap();
        out
    };
    (0..count).map(image).collect()
}

/// Photographs of ImageNet's size, some 100 KB each, made larger from the fixtures.
pub(crate) fn photographs(count: usize) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/photos");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    paths.sort();
    let image = |path: &std::path::PathBuf| {
        let small = image::load_from_memory(&fs::read(path).unwrap()).unwrap().into_rgb8();
        let large = image::imageops::resize(&small, 500, 375, image::imageops::FilterType::CatmullRom);
        let mut out = Vec::new();
        JpegEncoder::new_with_quality(&mut out, 98).encode(&large, 500, 375, ExtendedColorType::Rgb8).unwrap();
        out
    };
    paths.iter().step_by(25).take(count).map(image).collect()
}

/// Writes a set without label maps into `folder`.
pub(crate) fn write(folder: &Path, layout: &Layout) {
    fs::create_dir_all(folder).unwrap();
    let mut shards = Vec::new();
    let mut first = 0;
    while first < layout.samples {
        let end = layout.samples.min(first + layout.per_chunk * layout.per_shard);
        shards.push(shard(folder, layout, shards.len(), first..end));
        first = end;
    }
    let set = SetIndex {
        format: FORMAT,
        prior: PackedPrior { segments: 100, size: 32, definition: "none".to_owned() },
        classes: (0..layout.classes).map(|class| format!("class-{class}")).collect(),
        shards,
    };
    fs::write(folder.join(INDEX), pretty(&set)).unwrap();
}

fn shard(folder: &Path, layout: &Layout, number: usize, samples: std::ops::Range<u32>) -> ShardEntry {
    let (mut bytes, mut chunks, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for from in samples.clone().step_by(layout.per_chunk as usize) {
        let to = samples.end.min(from + layout.per_chunk);
        let start = bytes.len();
        // No two chunks have the same bytes.
        bytes.extend(from.to_le_bytes());
        let place = |image: &Vec<u8>| {
            let member = Member { offset: bytes.len() as u64, bytes: image.len() as u64 };
            bytes.extend(image);
            member
        };
        let members: Vec<Member> = layout.images.iter().map(place).collect();
        let mut dice = Keyed::new("padding", &[from.into()]);
        (0..layout.padding / 8).for_each(|_| bytes.extend(dice.next_u64().to_le_bytes()));
        entries.extend((from..to).map(|sample| SampleEntry {
            key: format!("{sample:08}"),
            label: Some((u64::from(sample) * u64::from(layout.classes) / u64::from(layout.samples)) as u32),
            width: 40,
            height: 36,
            image: members[sample as usize % members.len()],
            prior: None,
            mask: None,
        }));
        chunks.push(ChunkEntry {
            offset: start as u64,
            bytes: (bytes.len() - start) as u64,
            samples: to - from,
            blake3: blake3::hash(&bytes[start..]).to_hex().to_string(),
        });
    }
    let (file, index) = (format!("shard-{number:06}.tar"), format!("shard-{number:06}.json"));
    let text = pretty(&ShardIndex { samples: entries });
    fs::write(folder.join(&file), &bytes).unwrap();
    fs::write(folder.join(&index), &text).unwrap();
    ShardEntry {
        file,
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        index,
        index_blake3: blake3::hash(&text).to_hex().to_string(),
        chunks,
    }
}
