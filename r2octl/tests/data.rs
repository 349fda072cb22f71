//! `data pack`, `data inspect` and `data bench` with the real program on photographs and on damage.

#![allow(clippy::unwrap_used)]

#[path = "kit/output.rs"]
mod output;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use output::printed;

fn r2octl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_r2octl")).args(args).output().unwrap()
}

/// Some photographs of the fixtures in two classes, a broken one, an empty one and a copy.
fn photographs(folder: &Path) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/photos");
    let mut found: Vec<_> = walk(&fixtures).into_iter().filter(|p| p.extension().is_some_and(|e| e == "jpg")).collect();
    found.sort();
    let source = folder.join("source");
    for class in ["a", "b"] {
        fs::create_dir_all(source.join(class)).unwrap();
    }
    for (i, photo) in found.iter().take(6).enumerate() {
        fs::copy(photo, source.join(["a", "b"][i % 2]).join(format!("{i}.jpg"))).unwrap();
    }
    fs::copy(&found[0], source.join("b/copy.jpg")).unwrap();
    fs::write(source.join("b/empty.jpg"), b"").unwrap();
    fs::write(source.join("b/text.jpg"), b"this is no image").unwrap();
    source.to_str().unwrap().to_owned()
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn photographs_are_packed_inspected_and_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = photographs(folder.path());
    let set = folder.path().join("set");
    let out = set.to_str().unwrap();
    let text = printed(&r2octl(&["data", "pack", &source, "--out", out, "--slic-size", "64"]), 0);
    assert!(text.contains("packed 6 images into 1 shard ") && text.contains("2 classes"), "{text}");
    for name in ["b/copy.jpg", "b/empty.jpg", "b/text.jpg"] {
        assert!(text.contains(name), "{name} is named: {text}");
    }
    let text = printed(&r2octl(&["data", "inspect", out, "-o", "wide"]), 0);
    assert!(text.contains("samples:     6") && text.contains("damage:      none"), "{text}");
    let report: serde_json::Value =
        serde_json::from_slice(&r2octl(&["data", "inspect", out, "-o", "json"]).stdout).unwrap();
    assert_eq!((&report["samples"], &report["bad"]), (&6.into(), &serde_json::json!([])));

    let tar = walk(&set).into_iter().find(|p| p.extension().is_some_and(|e| e == "tar")).unwrap();
    let whole = fs::read(&tar).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    fs::write(&tar, &flipped).unwrap();
    let text = printed(&r2octl(&["data", "inspect", out]), 4);
    assert!(text.contains(tar.file_name().unwrap().to_str().unwrap()) && text.contains("checksum"), "{text}");
    fs::write(&tar, &whole[..whole.len() / 2]).unwrap();
    assert!(printed(&r2octl(&["data", "inspect", out]), 4).contains("is truncated"));
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_set_is_measured_from_its_place_and_from_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let (source, set, cache) = (photographs(folder.path()), folder.path().join("set"), folder.path().join("cache"));
    let (out, cache) = (set.to_str().unwrap(), cache.to_str().unwrap());
    printed(&r2octl(&["data", "pack", &source, "--out", out, "--slic-size", "64"]), 0);
    let bench =
        |more: &[&str]| r2octl(&[&["data", "bench", out, "--seconds", "1", "--image-size", "64"], more].concat());
    let text = printed(&bench(&["--gpu-rate", "1000"]), 0);
    for part in
        ["cold start:", "s more to the first batch", "rate:", "decode:", "prior:", "limit:", "1000 images/s needs"]
    {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let cached = ["--cache-dir", cache, "--cache-bytes", "100000000", "--loader-memory", "1", "-o", "json"];
    let report = json(&bench(&cached));
    let number = |report: &serde_json::Value, field: &str| report[field].as_f64().unwrap();
    assert!(number(&report, "imagesPerSecond") > 0.0 && number(&report, "firstBatchSeconds") > 0.0, "{report}");
    let stages: f64 =
        report["stages"].as_array().unwrap().iter().map(|s| s["millisecondsPerImage"].as_f64().unwrap()).sum();
    assert!((stages * number(&report, "stagesPerSecondPerCore") / 1e3 - 1.0).abs() < 1e-6, "{report}");
    assert!((stages * number(&report, "gpuRate") / 1e3 - number(&report, "coresForGpu")).abs() < 1e-6, "{report}");
    // One chunk, read once: by this run, and then by nobody any more.
    assert_eq!((&report["requests"], number(&report, "bytesRead") > 0.0), (&serde_json::json!([1, 0, 0]), true));
    let report = json(&bench(&cached));
    assert_eq!(report["requests"], serde_json::json!([0, 0, 0]), "{report}");
    assert!(number(&report, "chunksOnDisk") == 1.0 && number(&report, "bytesFromDisk") > 0.0, "{report}");
    // The set itself is no place for a cache.
    let text = printed(&bench(&["--cache-dir", out, "--cache-bytes", "1"]), 4);
    assert!(text.contains("nothing in it was touched"), "{text}");
    assert!(printed(&bench(&["--cache-dir", cache]), 2).contains("--cache-bytes"));
}

#[test]
fn the_order_of_a_set_is_shown_beside_a_full_permutation() {
    let folder = tempfile::tempdir().unwrap();
    let (source, set) = (photographs(folder.path()), folder.path().join("set"));
    let out = set.to_str().unwrap();
    printed(&r2octl(&["data", "pack", &source, "--out", out, "--slic-size", "64"]), 0);
    let order = |more: &[&str]| r2octl(&[&["data", "bench", out, "--order"], more].concat());
    let job = ["--lanes", "1", "--samples-per-lane", "2"];
    let text = printed(&order(&job), 0);
    assert!(text.contains("a jump:") && text.contains("1 (all)") && text.contains("COPIES READ"), "{text}");
    let report = json(&order(&[&job[..], &["-o", "json"]].concat()));
    assert_eq!((&report["samples"], report["windows"].as_array().unwrap().len()), (&6.into(), 1));
    assert_eq!(report["windows"][0]["copies"][0], serde_json::json!([1, 1.0]));
    assert!(printed(&order(&[]), 4).contains("6 samples"), "fewer than 128 lanes need");
}

#[test]
fn what_cannot_be_packed_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("set");
    let out = out.to_str().unwrap();
    let text = printed(&r2octl(&["data", "pack", "/nonexistent/photos", "--out", out]), 3);
    assert!(text.contains("/nonexistent/photos"), "{text}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let text = printed(&r2octl(&["data", "pack", empty.to_str().unwrap(), "--out", out]), 4);
    assert!(text.contains("no usable image"), "{text}");
    let source = photographs(folder.path());
    let text = printed(&r2octl(&["data", "pack", &source, "--out", "ftp://host/set"]), 4);
    assert!(text.contains("not a storage URL"), "{text}");
    printed(&r2octl(&["data", "pack", &source]), 2);
    let text = printed(&r2octl(&["data", "inspect", out]), 3);
    assert!(text.contains("index.json") && text.contains("data pack"), "{text}");
    let text = printed(&r2octl(&["data", "inspect", "http://127.0.0.1:1/set"]), 5);
    assert!(text.contains("cannot be reached"), "{text}");
}
