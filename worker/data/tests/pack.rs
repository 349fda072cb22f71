//! Packing in parts, from and to stores, over what was left and what was damaged: always the same set.
#![allow(clippy::unwrap_used)]

#[path = "kit/photos.rs"]
mod photos;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use photos::photographs;
use r2o_data::inspect::inspect;
use r2o_data::pack::{PackError, PackOptions, PackSummary, Part, merge, pack};
use r2o_test_stores::{Behind, Faults, Faulty};
use tempfile::TempDir;

/// Eighteen photographs in two classes, one that is no image, and three copies: one next to its original, two far away.
fn source(folder: &Path) -> PathBuf {
    let source = folder.join("photos");
    let names = photographs();
    for (number, path) in names.iter().step_by(6).take(18).enumerate() {
        let class = source.join(if number % 2 == 0 { "even" } else { "odd [~#%41]" });
        fs::create_dir_all(&class).unwrap();
        // Names that a store might be tempted to escape.
        fs::copy(path, class.join(format!("{number:02} #{number}[~%20].jpg"))).unwrap();
    }
    fs::copy(&names[0], source.join("even/00 copy.jpg")).unwrap();
    fs::copy(&names[0], source.join("odd [~#%41]/99 copy.jpg")).unwrap();
    fs::copy(&names[0], source.join("zz copy.jpg")).unwrap();
    fs::write(source.join("even/05 text.jpg"), "no image").unwrap();
    source
}

fn options(source: &str, out: &str) -> PackOptions {
    PackOptions { segments: 30, slic_size: 64, shard_bytes: 60_000, threads: 2, ..PackOptions::new(source, out) }
}

fn part(part: u32, of: u32, source: &str, out: &str) -> PackOptions {
    PackOptions { part: Part { part, of }, ..options(source, out) }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// All objects of a set, by key.
fn objects(url: &str) -> BTreeMap<String, Vec<u8>> {
    let store = r2o_storage::open(url).unwrap();
    block(async {
        let mut all = BTreeMap::new();
        for (key, _) in store.list("").await.unwrap() {
            all.insert(key.clone(), store.get(&key).await.unwrap().to_vec());
        }
        all
    })
}

struct Whole {
    folder: TempDir,
    source: String,
    out: String,
    summary: PackSummary,
    objects: BTreeMap<String, Vec<u8>>,
}

impl Whole {
    fn packed() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path()).display().to_string();
        let out = folder.path().join("set").display().to_string();
        let summary = pack(&options(&source, &out), &()).unwrap();
        let objects = objects(&out);
        assert!(summary.shards > 5 && !objects.keys().any(|key| key.starts_with("pack")), "{:?}", objects.keys());
        Self { folder, source, out, summary, objects }
    }

    fn out(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[test]
fn parts_in_any_order_and_number_make_the_same_set() {
    let whole = Whole::packed();
    for of in [2, 3, 50] {
        let out = whole.out(&format!("in-{of}"));
        for number in (1..=of).rev() {
            let summary = pack(&part(number, of, &whole.source, &out), &()).unwrap();
            assert!(summary.shards < whole.summary.shards);
        }
        let summary = merge(&out).unwrap();
        assert_eq!((summary.samples, &summary.skipped), (18, &whole.summary.skipped));
        assert_eq!(objects(&out), whole.objects, "{of} parts");
        assert_eq!(merge(&out).unwrap().samples, 18, "merging again changes nothing");
        assert_eq!(objects(&out), whole.objects);
    }
}

#[test]
fn a_merge_that_was_killed_while_it_cleaned_up_is_done_again() {
    let whole = Whole::packed();
    let out = whole.out("cleaning");
    for number in [1, 2] {
        pack(&part(number, 2, &whole.source, &out), &()).unwrap();
    }
    let records: Vec<_> = objects(&out).into_iter().filter(|(key, _)| key.starts_with("pack-")).collect();
    assert!(records.len() > 5);
    merge(&out).unwrap();
    // As after a kill: some records are left, but not the plan's.
    for (key, bytes) in &records[..3] {
        fs::write(Path::new(&out).join(key), bytes).unwrap();
    }
    assert_eq!(merge(&out).unwrap().samples, 18);
    assert_eq!(objects(&out), whole.objects);
}

#[test]
fn a_missing_part_is_named_by_the_command_that_packs_it() {
    let whole = Whole::packed();
    let out = whole.out("some");
    for number in [1, 3] {
        pack(&part(number, 3, &whole.source, &out), &()).unwrap();
    }
    let error = merge(&out).unwrap_err();
    let text = error.to_string();
    let command = format!("`r2octl data pack {} --out {out} --segments 30 --slic-size 64", whole.source);
    assert!(matches!(&error, PackError::Missing { commands, .. } if commands.len() == 1), "{text}");
    assert!(text.contains(&command) && text.contains("--part 2/3`"), "{text}");
    assert!(!Path::new(&out).join("index.json").exists());
    // Shared out in another way, what is missing is packed all the same, and by two at a time.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| pack(&part(1, 1, &whole.source, &out), &()).unwrap());
        }
    });
    assert_eq!(objects(&out), whole.objects);
    let nothing = merge(&whole.out("nothing")).unwrap_err();
    assert!(nothing.to_string().contains("index"), "{nothing}");
}

#[test]
fn an_interrupted_pack_goes_on() {
    let whole = Whole::packed();
    let out = whole.out("half");
    let first = pack(&part(1, 2, &whole.source, &out), &()).unwrap();
    let half = Path::new(&out);
    // A tar whose record did not make it, one that was cut off, and a record that says nothing.
    fs::remove_file(half.join("pack-000000.json")).unwrap();
    fs::write(half.join("shard-000001.tar"), &whole.objects["shard-000001.tar"][..700]).unwrap();
    fs::write(half.join("pack-000002.json"), "{").unwrap();
    let summary = pack(&options(&whole.source, &out), &()).unwrap();
    assert_eq!(summary.resumed, first.shards - 3);
    assert_eq!(objects(&out), whole.objects);
}

#[test]
fn parts_of_another_source_or_with_other_options_are_refused() {
    let whole = Whole::packed();
    let out = whole.out("mixed");
    pack(&part(1, 2, &whole.source, &out), &()).unwrap();
    for other in [
        PackOptions { segments: 20, ..part(2, 2, &whole.source, &out) },
        PackOptions { shard_bytes: 70_000, ..part(2, 2, &whole.source, &out) },
        PackOptions { side_min: 33, ..part(2, 2, &whole.source, &out) },
        part(2, 2, &format!("{}/even", whole.source), &out),
    ] {
        assert!(matches!(pack(&other, &()), Err(PackError::OtherSet { .. })), "{other:?}");
    }
}

#[test]
fn duplicates_are_left_out_wherever_they_lie() {
    let whole = Whole::packed();
    let reasons: Vec<_> = whole.summary.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(whole.summary.samples, 18);
    let copies = reasons.iter().filter(|reason| reason.ends_with("duplicate of even/00 #0[~%20].jpg")).count();
    assert_eq!((reasons.len(), copies), (4, 3), "{reasons:?}");
    let report = block(inspect(&whole.out)).unwrap();
    assert_eq!((report.samples, report.bad), (18, vec![]));
}

#[test]
fn packing_again_mends_what_is_damaged_and_nothing_else() {
    let whole = Whole::packed();
    let tar = Path::new(&whole.out).join("shard-000002.tar");
    let mut bytes = fs::read(&tar).unwrap();
    bytes[9_000] ^= 1;
    fs::write(&tar, bytes).unwrap();
    fs::remove_file(Path::new(&whole.out).join("shard-000004.json")).unwrap();
    let summary = pack(&options(&whole.source, &whole.out), &()).unwrap();
    assert_eq!(summary.resumed, whole.summary.shards - 2);
    assert_eq!(objects(&whole.out), whole.objects);
}

/// An empty prefix of a store that a test's environment names, filled with all that is in `folder`.
fn filled(url: &str, folder: &Path) -> String {
    let url = format!("{url}/pack-{}", std::process::id());
    let store = r2o_storage::open(&url).unwrap();
    let local = r2o_storage::open(&folder.display().to_string()).unwrap();
    block(async {
        for (key, _) in local.list("").await.unwrap() {
            store.put(&key, local.get(&key).await.unwrap()).await.unwrap();
        }
    });
    url
}

/// Sources in a store give the same bytes as local ones.
fn same_from(store: &str) {
    let whole = Whole::packed();
    let root = whole.folder.path();
    let list = "photos/even/00 #0[~%20].jpg\tcat\n./photos/zz copy.jpg\n";
    fs::write(root.join("list.tsv"), list).unwrap();
    let url = filled(store, root);
    for (number, source) in ["photos", "list.tsv", "set", "set/shard-000001.tar"].into_iter().enumerate() {
        let here = whole.out(&format!("here-{number}"));
        pack(&options(&root.join(source).display().to_string(), &here), &()).unwrap();
        let (from, there) = (format!("{url}/{source}"), format!("{url}/there-{number}"));
        pack(&options(&from, &there), &()).unwrap();
        assert_eq!(objects(&there), objects(&here), "{source}");
    }
    let error = pack(&options(&format!("{url}/none.tar"), &whole.out("none")), &()).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("none.tar"), "{error}");
    let error = pack(&options(&format!("{url}/none"), &whole.out("none")), &()).unwrap_err();
    assert!(matches!(error, PackError::Empty { .. }), "{error}");
    // A set there is checked and read as any other.
    let report = block(inspect(&format!("{url}/there-0"))).unwrap();
    assert!(report.bad.is_empty() && report.samples > 15, "{report:?}");
}

#[test]
fn a_source_on_s3_gives_the_same_bytes_as_a_local_one() {
    match std::env::var("R2O_TEST_S3_URL") {
        Ok(store) => same_from(&store),
        Err(_) => println!("not run: packing from and to S3: needs an S3 server (R2O_TEST_S3_URL and AWS_*)"),
    }
}

#[test]
fn a_source_on_azure_gives_the_same_bytes_as_a_local_one() {
    match std::env::var("R2O_TEST_AZURE_URL") {
        Ok(store) => same_from(&store),
        Err(_) => println!(
            "not run: packing from and to Azure: needs Node and `npm ci --prefix tests/azure` (or R2O_TEST_AZURE_URL and \
             AZURE_*)"
        ),
    }
}

#[test]
fn a_tar_behind_a_server_is_listed_in_few_requests() {
    let whole = Whole::packed();
    let source = whole.folder.path().join("source.tar");
    let mut tar = tar::Builder::new(fs::File::create(&source).unwrap());
    let photos = fs::read_dir(whole.folder.path().join("photos/odd [~#%41]")).unwrap();
    let mut photo = fs::read(photos.map(|entry| entry.unwrap().path()).min().unwrap()).unwrap();
    let length = photo.len();
    for number in 0..100_u8 {
        // Longer than a gap that is read on a disk, and each another one.
        photo.truncate(length);
        photo.resize(100_000, number);
        let mut header = tar::Header::new_gnu();
        header.set_size(photo.len() as u64);
        tar.append_data(&mut header, format!("{number:03}.jpg"), &photo[..]).unwrap();
    }
    tar.into_inner().unwrap();
    let server = Faulty::start(Behind::Folder(whole.folder.path().to_owned()), Faults::default()).unwrap();
    let summary = pack(&options(&format!("{}/source.tar", server.url()), &whole.out("there")), &()).unwrap();
    assert_eq!(summary.samples, 100);
    // One for each image, and those of the listing.
    let requests = server.ranges().len();
    assert!((100..125).contains(&requests), "{requests} requests");
}

#[test]
fn a_late_and_failing_server_of_files_gives_the_same_bytes() {
    let whole = Whole::packed();
    let root = whole.folder.path();
    for photo in fs::read_dir(root.join("photos/even")).unwrap() {
        let photo = photo.unwrap().path();
        let name = photo.file_name().unwrap().to_string_lossy()[..2].to_owned();
        fs::copy(&photo, root.join(format!("{name}.jpg"))).unwrap();
    }
    let lines: String =
        [0, 2, 4, 6, 8, 10, 12, 14, 16].map(|number| format!("{number:02}.jpg\tclass {}\n", number % 3)).concat();
    fs::write(root.join("list.tsv"), lines).unwrap();
    let tar = root.join("set/shard-000001.tar");
    for (number, source) in [root.join("list.tsv"), tar.clone()].into_iter().enumerate() {
        let here = whole.out(&format!("here-{number}"));
        pack(&options(&source.display().to_string(), &here), &()).unwrap();
        let faults = Faults { delay: Duration::from_millis(5), failing: 100, straggling: 50, lying: 0 };
        let server = Faulty::start(Behind::Folder(source.parent().unwrap().to_owned()), faults).unwrap();
        let from = format!("{}/{}", server.url(), source.file_name().unwrap().to_string_lossy());
        let there = whole.out(&format!("there-{number}"));
        pack(&options(&from, &there), &()).unwrap();
        assert_eq!(objects(&there), objects(&here), "{from}");
    }
}
