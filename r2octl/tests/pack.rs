//! `data pack --part` and `data merge` with real processes, one of which is killed.

#![allow(clippy::unwrap_used)]

#[path = "kit/output.rs"]
mod output;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use output::printed;
use r2o_test_stores::{Behind, Faults, Faulty};

const PARTS: usize = 3;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_r2octl"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A list of photographs, each with so much behind its end that three fill a shard of 1 MiB.
fn photographs(folder: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/photos");
    let mut photos: Vec<_> = fs::read_dir(fixtures).unwrap().map(|e| e.unwrap().path()).collect();
    photos.retain(|path| path.extension().is_some_and(|e| e == "jpg"));
    photos.sort();
    let mut list = String::new();
    for (number, photo) in photos.iter().take(36).enumerate() {
        let mut bytes = fs::read(photo).unwrap();
        bytes.resize(340_000, number as u8);
        fs::write(folder.join(format!("{number:02}.jpg")), bytes).unwrap();
        list.push_str(&format!("{number:02}.jpg\n"));
    }
    fs::write(folder.join("list.txt"), list).unwrap();
}

fn files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(p).unwrap())).collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let (_never, tick) = mpsc::channel::<()>();
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        let _ = tick.recv_timeout(Duration::from_millis(1));
    }
}

#[test]
fn parts_of_several_processes_make_the_set_of_one_though_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    photographs(folder.path());
    let server = Faulty::start(Behind::Folder(folder.path().to_owned()), Faults::default()).unwrap();
    let source = format!("{}/list.txt", server.url());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (one, out) = (path("one"), path("parts"));
    let options = ["--shard-mib", "1", "--slic-size", "256", "--threads", "1"];
    let pack = |out: &str, part: &str| {
        command(&[&["data", "pack", &source, "--out", out, "--part", part], &options[..]].concat())
    };
    printed(&pack(&one, "1/1").output().unwrap(), 0);
    let whole = files(&one);
    assert_eq!(whole.keys().filter(|name| name.ends_with(".tar")).count(), 12);

    let part = |number: usize| format!("{number}/{PARTS}");
    // The second part's shards are 4 to 7. An image of the last one does not come, so that it cannot end before it is killed.
    server.hold("GET /23.jpg");
    let mut children: Vec<Child> = (1..=PARTS).map(|number| pack(&out, &part(number)).spawn().unwrap()).collect();
    let record = |shard: usize| Path::new(&out).join(format!("pack-{shard:06}.json")).exists();
    wait_until("the second part has a shard", || record(4));
    let mut second = children.remove(1);
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(!record(7), "a shard without its last image");
    server.release();
    for child in children {
        let text = printed(&child.wait_with_output().unwrap(), 0);
        assert!(
            text.contains("packed 12 images into 4 shards") && text.contains(&format!("data merge {out}")),
            "{text}"
        );
    }
    let merge = || command(&["data", "merge", &out]).output().unwrap();
    let text = printed(&merge(), 4);
    let again = format!("`r2octl data pack {source} --out {out} --slic-size 256 --shard-mib 1 --part 2/3`");
    assert!(text.contains("of the 12 shards") && text.contains(&again), "{text}");
    // Two processes with the same part do the same.
    let twice: Vec<Child> = (0..2).map(|_| pack(&out, &part(2)).spawn().unwrap()).collect();
    for child in twice {
        let text = printed(&child.wait_with_output().unwrap(), 0);
        assert!(text.contains("finished by an earlier run"), "{text}");
    }
    let text = printed(&merge(), 0);
    assert!(text.contains("packed 36 images into 12 shards"), "{text}");
    assert_eq!(files(&out), whole);
}

#[test]
fn nonsense_is_refused() {
    for part in ["0/3", "4/3", "three"] {
        let text = printed(&command(&["data", "pack", "x", "--out", "y", "--part", part]).output().unwrap(), 2);
        assert!(text.contains("I from 1 to N"), "{text}");
    }
    let text = printed(&command(&["data", "merge", "/nonexistent/set"]).output().unwrap(), 3);
    assert!(text.contains("/nonexistent/set"), "{text}");
}
