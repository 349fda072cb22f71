//! Packing parquet files: those that pyarrow writes (see tests/fixtures/pack/make.py), and damaged ones.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use r2o_data::Dataset;
use r2o_data::pack::{PackError, PackOptions, PackSummary, pack};
use r2o_types::Keyed;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pack").join(name)
}

fn options(source: &Path, out: &Path) -> PackOptions {
    let (source, out) = (source.display().to_string(), out.display().to_string());
    PackOptions { segments: 10, slic_size: 32, threads: 1, ..PackOptions::new(source, out) }
}

/// Packs, and says each sample's label.
fn packed(options: &PackOptions) -> (PackSummary, Vec<Option<u32>>) {
    let summary = pack(options, &()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dataset = runtime.block_on(Dataset::open(&options.out)).unwrap();
    let labels = (0..dataset.samples()).map(|sample| dataset.label(sample)).collect();
    (summary, labels)
}

#[test]
fn rows_of_hugging_face_keep_their_labels_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let (summary, labels) = packed(&options(&fixture("hub.parquet"), &folder.path().join("set")));
    assert_eq!(summary.classes, ["zebra", "ape", "cat"]);
    assert_eq!(labels, [Some(0), Some(2), Some(2), Some(0), None, Some(2)]);
    let skipped: Vec<_> = summary.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["hub.parquet:4: the row has no image"]);
}

#[test]
fn plain_bytes_have_strings_or_numbers_for_labels() {
    let folder = tempfile::tempdir().unwrap();
    let (summary, labels) = packed(&options(&fixture("plain.parquet"), &folder.path().join("strings")));
    assert_eq!(summary.classes, ["a", "b"]);
    assert_eq!(labels, [Some(1), Some(0), None, Some(1), Some(0), Some(1), Some(0)]);
    let (summary, labels) = packed(&options(&fixture("numbers.parquet"), &folder.path().join("numbers")));
    assert_eq!(summary.classes, ["9", "10", "100"]);
    assert_eq!(labels, [1, 0, 0, 1, 2, 0, 0].map(Some));
}

/// All images of a set, in order.
fn images(out: &Path) -> Vec<Vec<u8>> {
    let mut tars: Vec<_> = fs::read_dir(out).unwrap().map(|e| e.unwrap().path()).collect();
    tars.retain(|path| path.extension().is_some_and(|e| e == "tar"));
    tars.sort();
    let mut images = Vec::new();
    for tar in tars {
        let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap().extension().is_some_and(|e| e == "jpg") {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                images.push(bytes);
            }
        }
    }
    images
}

#[test]
fn shards_may_begin_and_end_anywhere_in_a_row_group() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hub", "plain", "numbers"] {
        let source = fixture(&format!("{name}.parquet"));
        let [one, many] = ["one", "many"].map(|out| folder.path().join(format!("{name}-{out}")));
        packed(&options(&source, &one));
        let (summary, _) = packed(&PackOptions { shard_bytes: 4_000, ..options(&source, &many) });
        assert!(summary.shards >= 3, "{name}: {}", summary.shards);
        assert_eq!(images(&many), images(&one), "{name}");
    }
}

#[test]
fn a_folder_of_files_with_other_names_of_labels_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("data");
    fs::create_dir(&source).unwrap();
    fs::copy(fixture("hub.parquet"), source.join("train-0.parquet")).unwrap();
    let hub = fs::read(fixture("hub.parquet")).unwrap();
    // The names stand in the file twice, one of them in base64 of Arrow's own schema.
    let at = hub.windows(5).position(|window| window == b"zebra").unwrap();
    let mut other = hub.clone();
    other[at..at + 5].copy_from_slice(b"horse");
    fs::write(source.join("train-1.parquet"), other).unwrap();
    let error = pack(&options(&source, &folder.path().join("set")), &()).unwrap_err();
    let PackError::Source { path, source } = error else { panic!("{error}") };
    assert!(path == "train-1.parquet" && source.to_string().contains("other names"), "{path}: {source}");
    let masks = PackOptions {
        masks: Some(folder.path().display().to_string()),
        ..options(&fixture("hub.parquet"), &folder.path().join("set"))
    };
    assert!(matches!(pack(&masks, &()), Err(PackError::Option(_))));
}

#[test]
fn damage_anywhere_is_an_error_or_a_skipped_row_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Keyed::new("damage", &[1]);
    let (mut refused, mut tries) = (0, 0);
    for name in ["hub", "plain"] {
        let whole = fs::read(fixture(&format!("{name}.parquet"))).unwrap();
        for number in 0..150_u64 {
            let mut bytes = whole.clone();
            match number % 3 {
                0 => bytes.truncate(dice.below(whole.len() as u64) as usize),
                1 => bytes[dice.below(whole.len() as u64) as usize] ^= 1 << dice.below(8),
                // The footer and the headers of pages, where lies do most.
                _ => {
                    let at = whole.len() - 1 - dice.below(2_000.min(whole.len() as u64)) as usize;
                    bytes[at] = dice.below(256) as u8;
                }
            }
            let source = folder.path().join("damaged.parquet");
            fs::write(&source, bytes).unwrap();
            tries += 1;
            if let Err(error) = pack(&options(&source, &folder.path().join(format!("{name}-{number}"))), &()) {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("damaged.parquet"), "{text}");
            }
        }
    }
    println!("{refused} of {tries} refused");
    assert!(refused > tries / 3, "{refused} of {tries}");
}
