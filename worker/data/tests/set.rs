//! Packing, inspecting and loading real photographs, whole and damaged.
#![allow(clippy::unwrap_used)]

#[path = "kit/photos.rs"]
mod photos;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use photos::photographs;
use r2o_data::inspect::{InspectReport, inspect};
use r2o_data::pack::{PackOptions, PackSummary, pack};
use r2o_data::{Batch, DataError, Dataset, Loader, LoaderOptions, probe};
use r2o_types::pixels::{DEVIATION, MEAN};
use r2o_types::{Dtype, Prior};
use tempfile::TempDir;

const SLIC: Prior = Prior::Slic { segments: 30 };

/// Twenty of the committed photographs, in two class folders.
fn source(folder: &Path) -> PathBuf {
    let source = folder.join("photos");
    for (number, path) in photographs().into_iter().step_by(6).take(20).enumerate() {
        let class = source.join(if number % 2 == 0 { "even" } else { "odd" });
        fs::create_dir_all(&class).unwrap();
        fs::copy(&path, class.join(path.file_name().unwrap())).unwrap();
    }
    source
}

fn options(source: &Path, out: &Path) -> PackOptions {
    PackOptions {
        segments: 30,
        slic_size: 64,
        // Several shards of several samples.
        shard_bytes: 60_000,
        threads: 2,
        ..PackOptions::new(source.display().to_string(), out.display().to_string())
    }
}

struct Packed {
    _folder: TempDir,
    source: PathBuf,
    out: PathBuf,
    summary: PackSummary,
}

fn packed() -> Packed {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let out = folder.path().join("set");
    let summary = pack(&options(&source, &out), &()).unwrap();
    Packed { _folder: folder, source, out, summary }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(p).unwrap())).collect()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn open(out: &Path) -> Arc<Dataset> {
    Arc::new(block(Dataset::open(&out.display().to_string())).unwrap())
}

fn look(out: &Path) -> InspectReport {
    block(inspect(&out.display().to_string())).unwrap()
}

fn loading(dataset: &Arc<Dataset>, lanes: &[u32], first_step: u64) -> LoaderOptions {
    LoaderOptions {
        seed: 7,
        image_size: 32,
        prior: SLIC,
        lanes: lanes.to_vec(),
        total_lanes: 3,
        samples_per_lane: 2,
        window_chunks: 2,
        first_step,
        threads: 2,
        prefetch_steps: 2,
        audit: true,
        ..LoaderOptions::new(Arc::clone(dataset))
    }
}

fn load(dataset: &Arc<Dataset>, lanes: &[u32], first_step: u64, steps: usize) -> Vec<Batch> {
    let mut loader = Loader::start(loading(dataset, lanes, first_step)).unwrap();
    (0..steps).map(|_| loader.next().unwrap()).collect()
}

#[test]
fn a_folder_becomes_a_whole_set() {
    let set = packed();
    assert_eq!((set.summary.samples, set.summary.resumed), (20, 0));
    assert!(set.summary.shards > 2, "{} shards", set.summary.shards);
    assert_eq!(set.summary.classes, ["even", "odd"]);
    let report = look(&set.out);
    assert_eq!(report.bad, Vec::<String>::new());
    assert_eq!(report.samples, 20);
    assert_eq!(report.classes, [("even".to_owned(), 10), ("odd".to_owned(), 10)]);
    assert!(report.smallest[0] >= 192 || report.smallest[1] >= 192);
    assert!(!files(&set.out).keys().any(|name| name.starts_with("pack")), "the records of an unfinished pack are gone");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let set = packed();
    let again = set.out.with_file_name("again");
    pack(&PackOptions { threads: 1, ..options(&set.source, &again) }, &()).unwrap();
    assert_eq!(files(&again), files(&set.out));
}

#[test]
fn another_source_does_not_overwrite_a_set() {
    let set = packed();
    fs::remove_file(fs::read_dir(set.source.join("odd")).unwrap().next().unwrap().unwrap().path()).unwrap();
    let error = pack(&options(&set.source, &set.out), &()).unwrap_err().to_string();
    assert!(error.contains("already holds a data set") && error.contains("set"), "{error}");
}

#[test]
fn what_cannot_be_trained_on_is_listed_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let some = fs::read_dir(source.join("even")).unwrap().next().unwrap().unwrap().path();
    fs::write(source.join("zero.jpg"), []).unwrap();
    fs::write(source.join("text.png"), "hello").unwrap();
    let bytes = fs::read(&some).unwrap();
    fs::write(source.join("half.jpg"), &bytes[..bytes.len() / 3]).unwrap();
    fs::copy(&some, source.join("zz-copy.jpg")).unwrap();
    fs::write(source.join("notes.txt"), "not an image, and not mentioned").unwrap();
    let tiny = r2o_tiny_png();
    fs::write(source.join("tiny.png"), tiny).unwrap();
    let summary = pack(&options(&source, &folder.path().join("set")), &()).unwrap();
    assert_eq!(summary.samples, 20);
    let reasons: BTreeMap<_, _> = summary.skipped.iter().map(|s| (s.name.as_str(), s.reason.as_str())).collect();
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    assert!(reasons["zero.jpg"].contains("empty"), "{reasons:?}");
    assert!(reasons["text.png"].contains("not a JPEG"), "{reasons:?}");
    assert!(reasons["zz-copy.jpg"].starts_with("duplicate of even/"), "{reasons:?}");
    assert!(reasons["tiny.png"].contains("8 x 8"), "{reasons:?}");
    assert!(!reasons["half.jpg"].is_empty());
}

fn r2o_tiny_png() -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[7; 192]).unwrap();
    out
}

#[test]
fn a_set_can_be_packed_from_its_own_tars_and_from_a_list() {
    let set = packed();
    let from_tars = set.out.with_file_name("from-tars");
    let summary = pack(&options(&set.out, &from_tars), &()).unwrap();
    assert_eq!((summary.samples, look(&from_tars).bad.len()), (20, 0));

    let list = set.source.with_file_name("list.txt");
    fs::write(&list, "# path, label\nphotos/even/missing.jpg\tcat\n").unwrap();
    let error = pack(&options(&list, &set.out.with_file_name("l")), &()).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("missing.jpg"), "{error}");
    let some = fs::read_dir(set.source.join("even")).unwrap().next().unwrap().unwrap().path();
    fs::write(&list, format!("{}\tcat\n", some.display())).unwrap();
    let summary = pack(&options(&list, &set.out.with_file_name("listed")), &()).unwrap();
    assert_eq!((summary.samples, summary.classes), (1, vec!["cat".to_owned()]));
}

#[test]
fn any_deal_of_lanes_and_any_start_load_the_same_pixels() {
    let set = packed();
    let dataset = open(&set.out);
    let steps = 7; // three an epoch
    let whole = load(&dataset, &[0, 1, 2], 0, steps);
    assert_eq!(whole.iter().map(|b| (b.epoch, b.step_in_epoch)).collect::<Vec<_>>()[2..4], [(0, 2), (1, 0)]);
    for deal in [vec![vec![0], vec![1, 2]], vec![vec![0], vec![1], vec![2]]] {
        for lanes in deal {
            for (a, b) in whole.iter().zip(load(&dataset, &lanes, 0, steps)) {
                for (i, &lane) in lanes.iter().enumerate() {
                    assert_eq!(b.pixel_digests[i], a.pixel_digests[lane as usize], "step {} lane {lane}", a.step);
                    assert_eq!(b.samples[2 * i..2 * i + 2], a.samples[2 * lane as usize..2 * lane as usize + 2]);
                    assert_eq!(b.first_positions[i], a.first_positions[lane as usize]);
                }
            }
        }
    }
    for batch in &whole[1..] {
        assert_eq!(&load(&dataset, &[0, 1, 2], batch.step, 1)[0], batch, "started at {}", batch.step);
    }
}

#[test]
fn values_of_every_type_are_the_nearest_to_the_same_views() {
    let set = packed();
    let dataset = open(&set.out);
    let of = |dtype| Loader::start(LoaderOptions { dtype, ..loading(&dataset, &[0], 0) }).unwrap().next().unwrap();
    let [float, half, levels] = [Dtype::Float32, Dtype::Bfloat16, Dtype::Uint8].map(of);
    let views = |batch: &Batch| [&batch.raw, &batch.view1, &batch.view2].map(|view| view.to_float32().into_owned());
    for (exact, near) in views(&float).iter().zip(views(&half)) {
        assert!(exact.iter().zip(near).all(|(exact, near)| half::bf16::from_f32(*exact).to_f32() == near));
    }
    let plane = 32 * 32;
    for (exact, levels) in views(&float).iter().zip(views(&levels)) {
        for (at, (exact, level)) in exact.iter().zip(levels).enumerate() {
            let channel = at / plane % 3;
            let apart = 255.0 * (exact * DEVIATION[channel] + MEAN[channel]) - level;
            assert!(apart.abs() < 0.5001, "value {at}: {apart} from level {level}");
        }
    }
    assert_eq!(levels.raw.bytes().len(), 2 * 3 * plane, "one byte a value");
    assert!(levels.prior == float.prior && levels.boxes1 == float.boxes1 && levels.samples == float.samples);
}

#[test]
fn views_and_priors_are_what_the_method_says() {
    let set = packed();
    let dataset = open(&set.out);
    let batch = probe(&dataset, &[0, 5], 64, &SLIC, 3).unwrap();
    assert_eq!(batch.images, 2);
    assert_eq!(batch.raw.len(), 2 * 3 * 64 * 64);
    let views = [&batch.raw, &batch.view1, &batch.view2];
    assert!(views.iter().all(|view| view.to_float32().iter().all(|v| (-2.2..=2.7).contains(v))));
    let regions = batch.prior[..64 * 64].iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!((10..=40).contains(&regions), "{regions} regions");
    // Other segments than the stored maps' are found on line.
    let on_line = probe(&dataset, &[0], 64, &Prior::Slic { segments: 80 }, 3).unwrap();
    assert!(on_line.prior != batch.prior[..64 * 64], "the stored map was taken");
    assert!(probe(&dataset, &[0], 64, &Prior::None {}, 3).unwrap().prior.iter().all(|&l| l == 0));
    assert_eq!(probe(&dataset, &[0], 64, &Prior::Grid { cells: 14 }, 3).unwrap().prior.iter().max(), Some(&195));
    assert!(matches!(probe(&dataset, &[99], 64, &SLIC, 3), Err(DataError::NoSample { sample: 99, .. })));
}

/// Loads until something fails.
fn failure(dataset: &Arc<Dataset>) -> String {
    let mut loader = Loader::start(loading(dataset, &[0, 1, 2], 0)).unwrap();
    for _ in 0..20 {
        if let Err(error) = loader.next() {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            return text;
        }
    }
    panic!("the damage was not seen");
}

#[test]
fn a_flipped_bit_is_named() {
    let set = packed();
    let tar = set.out.join("shard-000001.tar");
    let mut bytes = fs::read(&tar).unwrap();
    bytes[9_000] ^= 1;
    fs::write(&tar, bytes).unwrap();
    let error = failure(&open(&set.out));
    assert!(error.contains("shard-000001.tar") && error.contains("checksum") && error.contains("inspect"), "{error}");
    let report = look(&set.out);
    assert!(report.bad.iter().any(|b| b.contains("shard-000001.tar") && b.contains("checksum")), "{:?}", report.bad);
    assert!(report.bad.iter().any(|b| b.contains("chunk 0")), "{:?}", report.bad);
    assert_eq!(report.shards.iter().filter(|s| !s.whole).count(), 1);
}

#[test]
fn a_truncated_and_a_missing_shard_are_named() {
    let set = packed();
    let tar = set.out.join("shard-000000.tar");
    fs::OpenOptions::new().write(true).open(&tar).unwrap().set_len(5_000).unwrap();
    let error = failure(&open(&set.out));
    assert!(error.contains("shard-000000.tar") && error.contains("truncated"), "{error}");
    assert!(look(&set.out).bad.iter().any(|b| b.contains("shard-000000.tar is truncated: 5000 of")));
    fs::remove_file(&tar).unwrap();
    let error = failure(&open(&set.out));
    assert!(error.contains("shard-000000.tar"), "{error}");
}

/// Rewrites a shard's index, and the set's index so that it fits.
fn rewrite(out: &Path, change: impl Fn(&mut serde_json::Value)) {
    let path = out.join("shard-000000.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    let text = index.to_string();
    fs::write(&path, &text).unwrap();
    let mut set: serde_json::Value = serde_json::from_slice(&fs::read(out.join("index.json")).unwrap()).unwrap();
    set["shards"][0]["indexBlake3"] = blake3::hash(text.as_bytes()).to_hex().to_string().into();
    fs::write(out.join("index.json"), set.to_string()).unwrap();
}

#[test]
fn a_missing_label_map_and_an_empty_image_are_named() {
    let set = packed();
    rewrite(&set.out, |index| {
        index["samples"][0].as_object_mut().unwrap().remove("prior");
    });
    let dataset = open(&set.out);
    let error = failure(&dataset);
    assert!(error.contains("sample 00000000") && error.contains("no label map"), "{error}");
    assert!(look(&set.out).bad.iter().any(|b| b.contains("sample 00000000") && b.contains("no label map")));
    // A job that does not read the maps does not miss it.
    assert!(probe(&dataset, &[0], 32, &Prior::None {}, 0).is_ok());

    rewrite(&set.out, |index| index["samples"][0]["image"]["bytes"] = 0.into());
    let error = probe(&open(&set.out), &[0], 32, &Prior::None {}, 0).unwrap_err();
    assert!(matches!(&error, DataError::Decode { key, member: "image", .. } if key == "00000000"), "{error}");
}

#[test]
fn a_damaged_index_and_no_set_are_told_apart() {
    let set = packed();
    fs::write(set.out.join("shard-000000.json"), "{}").unwrap();
    let error = block(Dataset::open(&set.out.display().to_string())).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("shard-000000.json"), "{error:?}");
    let nothing = block(Dataset::open("/no/such/set")).unwrap_err();
    assert!(std::error::Error::source(&nothing).unwrap().to_string().contains("/no/such/set"), "{nothing:?}");
}

#[test]
fn too_few_samples_say_so() {
    let set = packed();
    let dataset = open(&set.out);
    let error = Loader::start(LoaderOptions { total_lanes: 50, ..loading(&dataset, &[0], 0) }).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("20 samples"), "{error:?}");
}
