//! Hostile input: bombs, garbage and damage are refused by name, within bounds of memory; a run goes on around a sample that
//! cannot be decoded, with the same pixels on any fleet.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use r2o_data::pack::{PackOptions, pack};
use r2o_data::{Batch, DataError, Dataset, DecodeError, Loader, LoaderOptions, Skip, decode, dimensions};
use r2o_types::Prior;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const SLIC: Prior = Prior::Slic { segments: 30 };

/// What a decoder may take for pictures that it refuses.
const REFUSAL_BYTES: usize = 2 << 20;

/// The most that was allocated at a time while `work` ran, in a program that does nothing else: so all of it is one test.
fn most(work: impl FnOnce()) -> usize {
    let _profiler = dhat::Profiler::builder().testing().build();
    work();
    dhat::HeapStats::get().max_bytes
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    out.extend(width.to_be_bytes());
    out.extend(height.to_be_bytes());
    out.extend([8, 2, 0, 0, 0]);
    let mut crc = u32::MAX;
    for byte in &out[12..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
        }
    }
    out.extend((!crc).to_be_bytes());
    out.extend(b"\0\0\0\x08IDAT\x78\x9c\x03\0\0\0\0\x01");
    out
}

/// A JPEG whose header says another size.
fn jpeg_of(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = fs::read(fixture("formats/baseline.jpg")).unwrap();
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// A lossless WebP's header.
fn webp_of(width: u32, height: u32) -> Vec<u8> {
    let size = (width - 1) | (height - 1) << 14;
    let mut out = b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0\x2f".to_vec();
    out.extend(size.to_le_bytes());
    out.extend([0; 15]);
    out
}

/// Every file of the formats, changed in some places that depend on the number.
fn mutants(rounds: u64) -> impl Iterator<Item = Vec<u8>> {
    let files = fs::read_dir(fixture("formats")).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap());
    let files: Vec<Vec<u8>> = files.collect();
    (0..rounds).map(move |round| {
        let mut keyed = r2o_types::Keyed::new("mutants", &[round]);
        let mut bytes = files[keyed.below(files.len() as u64) as usize].clone();
        for _ in 0..=keyed.below(8) {
            // Headers are at the beginning.
            let reach = if keyed.uniform() < 0.7 { bytes.len().min(64) } else { bytes.len() };
            let at = keyed.below(reach as u64) as usize;
            bytes[at] = keyed.next_u64() as u8;
        }
        if keyed.uniform() < 0.2 {
            bytes.truncate(keyed.below(bytes.len() as u64 + 1) as usize);
        }
        bytes
    })
}

fn bombs_are_refused_by_their_headers() {
    let bombs = [png_of(60_000, 60_000), jpeg_of(60_000, 60_000), webp_of(16_000, 16_000)];
    for bomb in &bombs {
        let taken = most(|| {
            let error = decode(bomb).unwrap_err();
            assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
            assert!(dimensions(bomb).is_err());
        });
        assert!(taken < REFUSAL_BYTES, "{taken} bytes for a picture that is refused");
    }
    let zeros = vec![0; 1 << 30];
    let taken = most(|| assert!(matches!(decode(&zeros), Err(DecodeError::TooLong { bytes, .. }) if bytes == 1 << 30)));
    assert!(taken < REFUSAL_BYTES, "{taken} bytes for a gigabyte of zeros");
}

fn damaged_images_end_in_an_error_or_a_picture() {
    let mut decoded = 0;
    for bytes in mutants(3000) {
        if let Ok(picture) = decode(&bytes) {
            assert_eq!(picture.rgb.len(), 3 * picture.width as usize * picture.height as usize);
            decoded += 1;
        }
    }
    assert!((100..2990).contains(&decoded), "{decoded} of 3000 were decoded: the damage is too weak or too strong");
}

fn packed(folder: &Path, add: impl Fn(&Path)) -> (PathBuf, r2o_data::pack::PackSummary) {
    let (source, out) = (folder.join("photos"), folder.join("set"));
    fs::create_dir_all(&source).unwrap();
    let mut names: Vec<_> = fs::read_dir(fixture("photos")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for path in names.iter().filter(|p| p.extension().is_some_and(|e| e == "jpg")).take(24) {
        fs::copy(path, source.join(path.file_name().unwrap())).unwrap();
    }
    add(&source);
    let options = PackOptions {
        segments: 30,
        slic_size: 64,
        ..PackOptions::new(source.display().to_string(), out.display().to_string())
    };
    let summary = pack(&options, &()).unwrap();
    (out, summary)
}

fn packing_names_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let taken = most(|| {
        let (_, summary) = packed(folder.path(), |source| {
            fs::write(source.join("bomb.png"), png_of(60_000, 60_000)).unwrap();
            // A file of a gigabyte that takes no room.
            fs::File::create(source.join("zeros.jpg")).unwrap().set_len(1 << 30).unwrap();
            fs::write(source.join("noise.jpg"), b"\xff\xd8\xff\xe0 and then no JPEG").unwrap();
        });
        let reason = |name: &str| &summary.skipped.iter().find(|s| s.name == name).unwrap().reason;
        assert!(reason("bomb.png").contains("60000 x 60000"), "{:?}", summary.skipped);
        assert!(reason("zeros.jpg").contains("1073741824 bytes"), "{:?}", summary.skipped);
        assert!(!reason("noise.jpg").is_empty());
        assert_eq!((summary.samples, summary.skipped.len()), (24, 3));
    });
    assert!(taken < 256 << 20, "{taken} bytes");
}

/// Overwrites a sample's image in its shard, and makes all checksums fit: the bytes are those that were meant.
fn plant(out: &Path, sample: usize, member: &str, change: impl Fn(&mut [u8])) {
    let read =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&fs::read(out.join(name)).unwrap()).unwrap() };
    let (mut set, index) = (read("index.json"), read("shard-000000.json"));
    let mut tar = fs::read(out.join("shard-000000.tar")).unwrap();
    let place = &index["samples"][sample][member];
    let from = place["offset"].as_u64().unwrap() as usize;
    change(&mut tar[from..from + place["bytes"].as_u64().unwrap() as usize]);
    let shard = &mut set["shards"][0];
    for chunk in shard["chunks"].as_array_mut().unwrap() {
        let from = chunk["offset"].as_u64().unwrap() as usize;
        let to = from + chunk["bytes"].as_u64().unwrap() as usize;
        chunk["blake3"] = blake3::hash(&tar[from..to]).to_hex().to_string().into();
    }
    shard["blake3"] = blake3::hash(&tar).to_hex().to_string().into();
    fs::write(out.join("index.json"), set.to_string()).unwrap();
    fs::write(out.join("shard-000000.tar"), tar).unwrap();
}

fn load(out: &Path, lanes: &[u32], steps: usize) -> (Result<Vec<Batch>, DataError>, Arc<r2o_data::LoaderStats>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dataset = Arc::new(runtime.block_on(Dataset::open(&out.display().to_string())).unwrap());
    let mut loader = Loader::start(LoaderOptions {
        seed: 7,
        image_size: 64,
        prior: SLIC,
        lanes: lanes.to_vec(),
        total_lanes: 2,
        samples_per_lane: 12,
        window_chunks: 4,
        threads: 2,
        audit: true,
        ..LoaderOptions::new(dataset)
    })
    .unwrap();
    let stats = loader.stats();
    ((0..steps).map(|_| loader.next()).collect(), stats)
}

fn a_run_goes_on_around_samples_that_cannot_be_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let (out, _) = packed(folder.path(), |_| ());
    let (whole, stats) = load(&out, &[0, 1], 3);
    let whole = whole.unwrap();
    assert!(Skip::ALL.iter().all(|&reason| stats.skipped(reason) == 0));

    // 1: no image; 4: a bomb; 9: a label map that was left from another image.
    plant(&out, 1, "image", |bytes| bytes.fill(0));
    plant(&out, 4, "image", |bytes| {
        let bomb = jpeg_of(60_000, 60_000);
        let length = bytes.len().min(bomb.len());
        bytes[..length].copy_from_slice(&bomb[..length]);
    });
    plant(&out, 9, "prior", |bytes| bytes[10] ^= 1);
    let (both, stats) = load(&out, &[0, 1], 3);
    let both = both.unwrap();
    // Of 24 samples, each of the three steps takes all.
    for (reason, count) in
        [(Skip::Unknown, 3), (Skip::TooLarge, 3), (Skip::LabelMap, 3), (Skip::Broken, 0), (Skip::Empty, 0)]
    {
        assert_eq!(stats.skipped(reason), count, "{reason:?}");
    }
    for lane in [0, 1] {
        let (alone, _) = load(&out, &[lane], 3);
        for (a, b) in both.iter().zip(alone.unwrap()) {
            assert_eq!(a.pixel_digests[lane as usize], b.pixel_digests[0], "another fleet trains on other pixels");
        }
    }
    let size = 3 * 64 * 64;
    for (a, b) in whole.iter().zip(&both) {
        assert_eq!(a.samples, b.samples, "the order stays");
        for (slot, sample) in a.samples.iter().enumerate() {
            let pixels = slot * size..(slot + 1) * size;
            let same = [(&a.view1, &b.view1), (&a.raw, &b.raw)]
                .iter()
                .all(|(a, b)| a.to_float32()[pixels.clone()] == b.to_float32()[pixels.clone()]);
            assert_eq!(same, ![1, 4, 9].contains(sample), "sample {sample}");
        }
    }

    // A lane that would be half substitutes is not trained on.
    (10..24).for_each(|sample| plant(&out, sample, "image", |bytes| bytes.fill(7)));
    let error = load(&out, &[0, 1], 1).0.unwrap_err();
    assert!(matches!(&error, DataError::Decode { member: "image", .. }), "{error}");
    assert!(error.to_string().contains("shard-000000.tar"), "{error}");
}

fn wild_indexes_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (out, _) = packed(folder.path(), |_| ());
    let whole: serde_json::Value = serde_json::from_slice(&fs::read(out.join("index.json")).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let open = || runtime.block_on(Dataset::open(&out.display().to_string()));
    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, &str); 4] = [
        (|set| set["prior"]["size"] = u32::MAX.into(), "4294967295"),
        (|set| set["prior"]["size"] = 0.into(), "0 pixels"),
        (
            |set| {
                set["shards"][0]["bytes"] = (1_u64 << 40).into();
                set["shards"][0]["chunks"][0]["bytes"] = (1_u64 << 39).into();
            },
            "shard-000000.tar",
        ),
        (|set| set["shards"][0]["chunks"][0]["samples"] = u32::MAX.into(), "shard-000000.json"),
    ];
    for (change, named) in changes {
        let mut set = whole.clone();
        change(&mut set);
        fs::write(out.join("index.json"), set.to_string()).unwrap();
        let mut text = String::new();
        let taken = most(|| text = format!("{:#}", anyhow::Error::new(open().unwrap_err())));
        assert!(text.contains(named), "{text}");
        assert!(taken < 8 << 20, "{taken} bytes");
    }
    // An index of many gigabytes, which takes no room.
    fs::File::create(out.join("index.json")).unwrap().set_len(1 << 36).unwrap();
    let taken = most(|| assert!(open().is_err()));
    assert!(taken < 8 << 20, "{taken} bytes");
    // Damage of any kind ends in an error or in the same set.
    let text = whole.to_string().into_bytes();
    for round in 0..300 {
        let mut keyed = r2o_types::Keyed::new("indexes", &[round]);
        let mut bytes = text.clone();
        (0..=keyed.below(4)).for_each(|_| bytes[keyed.below(text.len() as u64) as usize] = keyed.next_u64() as u8);
        fs::write(out.join("index.json"), bytes).unwrap();
        drop(open());
    }
}

/// One test, because memory is measured for the whole program.
#[test]
fn hostile_input_is_refused_within_bounds_and_the_run_goes_on() {
    bombs_are_refused_by_their_headers();
    packing_names_what_it_leaves_out();
    damaged_images_end_in_an_error_or_a_picture();
    a_run_goes_on_around_samples_that_cannot_be_decoded();
    wild_indexes_are_refused_by_name();
}
