//! The disk cache: it saves reads, stays within its budget, serves nothing wrong, and touches nothing that is not its own.
#![allow(clippy::unwrap_used)]

#[path = "kit/streaming.rs"]
mod streaming;
#[path = "kit/synthetic.rs"]
mod synthetic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use r2o_data::{CacheError, CacheOptions, DataError, Dataset, Loader, Put, StreamOptions};
use r2o_test_stores::{Behind, Faults, Faulty};
use r2o_types::Keyed;
use streaming::{Set, child, digests, in_child, opened, started, wait_until};

/// Set in a child: where its cache is.
const FOLDER: &str = "R2O_TEST_CACHE";
const PLENTY: u64 = 1 << 30;
/// Kills of a filling worker.
const KILLS: u64 = 20;

fn with_cache(folder: &Path, bytes: u64) -> StreamOptions {
    // Little memory, so that the disk is what serves.
    let cache = Some(CacheOptions { folder: folder.to_owned(), bytes });
    StreamOptions { memory_bytes: 1, cache, ..StreamOptions::default() }
}

fn loader(set: &Set, folder: &Path, bytes: u64) -> Loader {
    started(&opened(&set.folder().display().to_string(), with_cache(folder, bytes)), 0)
}

/// The entries of all sets.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let sets = list(folder).into_iter().filter(|path| path.is_dir());
    let mut all: Vec<PathBuf> =
        sets.flat_map(|set| list(&set)).filter(|path| path.file_name().is_some_and(|name| name != "used")).collect();
    all.sort();
    all
}

fn taken(folder: &Path) -> u64 {
    entries(folder).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn what_was_read_once_is_read_from_disk_by_any_worker_of_the_host() {
    let (set, folder) = (Set::small(), tempfile::tempdir().unwrap());
    let mut first = loader(&set, folder.path(), PLENTY);
    assert_eq!(digests(&mut first, set.steps()), set.digests());
    assert_eq!(first.stats().cache_puts(Put::Full) + first.stats().cache_puts(Put::Failed), 0);
    drop(first);
    assert_eq!(entries(folder.path()).len() as u64, set.chunks());
    // Another process would see the same; the set may even be unreadable by now.
    let dataset = opened(&set.folder().display().to_string(), with_cache(folder.path(), PLENTY));
    for file in fs::read_dir(set.folder()).unwrap().map(|e| e.unwrap().path()) {
        fs::remove_file(file).unwrap();
    }
    let mut second = started(&dataset, 0);
    assert_eq!(digests(&mut second, set.steps()), set.digests());
    let stats = second.stats();
    assert_eq!((stats.chunks_read(), stats.bytes_read()), (0, 0));
    assert!(stats.chunks_cached() > 0 && stats.bytes_cached() > 0);
}

#[test]
fn workers_of_a_host_stay_within_one_budget() {
    let (set, folder) = (Set::small(), tempfile::tempdir().unwrap());
    // Room for half of the set, and three workers that fill it at once, each with a file handle of its own.
    let budget = set.chunks() / 2 * (set.chunk_bytes() + 200);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut loader = loader(&set, folder.path(), budget);
                assert_eq!(digests(&mut loader, set.steps()), set.digests());
                assert!(loader.stats().cache_puts(Put::Full) > 0, "{:?}", loader.stats());
            });
        }
    });
    let (taken, count) = (taken(folder.path()), entries(folder.path()).len() as u64);
    assert!(taken <= budget, "{taken} of {budget}");
    assert!(count + 2 >= set.chunks() / 2, "{count} entries: much of the budget is idle");
    // A smaller budget is kept from the next start on.
    drop(loader(&set, folder.path(), budget / 4));
    assert!(self::taken(folder.path()) <= budget / 4);
}

#[test]
fn a_damaged_entry_is_never_served() {
    let (set, folder) = (Set::small(), tempfile::tempdir().unwrap());
    digests(&mut loader(&set, folder.path(), PLENTY), set.steps());
    // A bit anywhere, a lost end, another chunk's entry, nothing at all.
    let all = entries(folder.path());
    for (number, path) in (0..).zip(&all) {
        let (mut dice, mut bytes) = (Keyed::new("damage", &[number]), fs::read(path).unwrap());
        match number % 4 {
            // Of the head, or of what samples lie in.
            0 => bytes[dice.below(12_000) as usize] ^= 1 << dice.below(8),
            1 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
            2 => bytes = fs::read(&all[(number as usize + 1) % all.len()]).unwrap(),
            _ => bytes.clear(),
        }
        fs::write(path, bytes).unwrap();
    }
    let mut again = loader(&set, folder.path(), PLENTY);
    assert_eq!(digests(&mut again, set.steps()), set.digests());
    // Bits between the samples do not matter to anybody.
    let damaged = again.stats().cache_puts(Put::Damaged);
    assert!(damaged >= set.chunks() / 2, "{damaged} of {} were noticed", set.chunks());
    drop(again);
    // They were replaced.
    let mut whole = loader(&set, folder.path(), PLENTY);
    assert_eq!(digests(&mut whole, set.steps()), set.digests());
    assert_eq!(whole.stats().cache_puts(Put::Damaged), 0);
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_left_alone() {
    let (set, folder) = (Set::small(), tempfile::tempdir().unwrap());
    let url = set.folder().display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let open = |at: &Path| runtime.block_on(Dataset::open_with(&url, with_cache(at, 1)));
    // The set itself is a source, not a cache.
    let before = fs::read_dir(set.folder()).unwrap().count();
    let error = open(&set.folder()).unwrap_err();
    assert!(matches!(&error, DataError::Cache(CacheError::NotOurs { folder }) if *folder == set.folder()), "{error:?}");
    assert_eq!(fs::read_dir(set.folder()).unwrap().count(), before);
    // A mark of another program or of another version.
    fs::write(folder.path().join("r2o-chunk-cache"), "r2o chunk cache 2\n").unwrap();
    assert!(matches!(open(folder.path()).unwrap_err(), DataError::Cache(CacheError::NotOurs { .. })));
    // What others put into a cache's folder stays, however small the budget.
    let cache = folder.path().join("cache");
    digests(&mut loader(&set, &cache, PLENTY), 4);
    let of_set = entries(&cache)[0].parent().unwrap().to_owned();
    let theirs = ["notes.txt", "photos/one.jpg", "shard-000000.tar"].map(|name| cache.join(name));
    fs::create_dir(cache.join("photos")).unwrap();
    theirs.iter().for_each(|path| fs::write(path, "source").unwrap());
    fs::write(of_set.join("shard-000001.tar"), "source").unwrap();
    std::os::unix::fs::symlink(set.folder(), cache.join("0".repeat(32))).unwrap();
    drop(loader(&set, &cache, 1));
    assert!(theirs.iter().all(|path| path.exists()) && of_set.join("shard-000001.tar").exists());
    assert_eq!(fs::read_dir(set.folder()).unwrap().count(), before);
    let ours = entries(&cache).into_iter().filter(|path| path.extension().is_none() && path.starts_with(&of_set));
    assert_eq!(ours.count(), 0, "what is ours is gone");
}

#[test]
fn a_worker_killed_at_any_moment_leaves_no_wrong_byte() {
    const NAME: &str = "a_worker_killed_at_any_moment_leaves_no_wrong_byte";
    if let Some(url) = in_child() {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let mut loader = started(&opened(&url, with_cache(&folder, PLENTY)), 0);
        loop {
            drop(loader.next().unwrap());
        }
    }
    let (set, folder) = (Set::of(streaming::LONG), tempfile::tempdir().unwrap());
    let cache = folder.path().join("cache");
    let server = Faulty::start(Behind::Folder(set.folder()), Faults::default()).unwrap();
    let mut halves = 0;
    for kill in 0..KILLS {
        let mut dice = Keyed::new("kill", &[kill]);
        // Later workers find what the earlier ones left, less some, so that each has something to write.
        for entry in if cache.exists() { entries(&cache) } else { Vec::new() } {
            if dice.below(2) == 0 {
                fs::remove_file(entry).unwrap();
            }
        }
        let mut command = child(NAME, &server.url());
        command.env(FOLDER, &cache).stdout(Stdio::null()).stderr(Stdio::null());
        // Once so many chunks were asked for; and then, in three of four, while one is being written.
        let (asked, writing) = (server.ranges().len() as u64 + dice.below(8), dice.below(4) > 0);
        let now = || {
            let seen = if cache.exists() { entries(&cache) } else { Vec::new() };
            let parts = seen.iter().filter(|path| is_part(path)).count();
            // Whoever looks too seldom, on a busy machine, kills it once all is there.
            let over = (seen.len() - parts) as u64 == set.chunks();
            over || server.ranges().len() as u64 > asked && (!writing || parts > 0)
        };
        let (mut worker, start) = (command.spawn().unwrap(), Instant::now());
        while !now() {
            assert!(worker.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60), "kill {kill}");
            std::thread::yield_now();
        }
        worker.kill().unwrap();
        worker.wait().unwrap();
        halves += entries(&cache).iter().filter(|path| is_part(path)).count();
        // All that is there, read through a copy, so that the next worker finds what this one left.
        let copy = folder.path().join("copy");
        copy_tree(&cache, &copy);
        let whole = entries(&copy).iter().filter(|path| !is_part(path)).count();
        let mut check = loader(&set, &copy, PLENTY);
        assert_eq!(digests(&mut check, set.steps()), set.digests(), "kill {kill}");
        assert_eq!(check.stats().chunks_cached() > 0, whole > 0, "kill {kill}: what is there is served");
        assert_eq!(check.stats().cache_puts(Put::Damaged), 0, "kill {kill}: a half entry has a whole one's name");
        drop(check);
        assert!(!entries(&copy).iter().any(|path| is_part(path)), "kill {kill}: remains are left");
        fs::remove_dir_all(copy).unwrap();
    }
    println!("{KILLS} kills left {halves} half written entries, which were never served");
    assert!(halves >= 3, "{halves} of {KILLS} kills hit a write: the test shows too little");
}

fn is_part(path: &Path) -> bool {
    path.extension().is_some()
}

fn is_mark(path: &Path) -> bool {
    path.ends_with("r2o-chunk-cache")
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            // Entries never change, and the mark does.
            if is_mark(&target) {
                fs::copy(entry.path(), target).unwrap();
            } else {
                fs::hard_link(entry.path(), target).unwrap();
            }
        }
    }
}

#[test]
fn a_full_or_unwritable_disk_does_not_stop_training() {
    let (set, folder) = (Set::small(), tempfile::tempdir().unwrap());
    let dataset: Arc<Dataset> = opened(&set.folder().display().to_string(), with_cache(folder.path(), PLENTY));
    // As if the disk had gone: the set's folder cannot be written to any more.
    let of_set = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    fs::remove_dir_all(&of_set).unwrap();
    fs::write(&of_set, "no folder any more").unwrap();
    let mut loader = started(&dataset, 0);
    assert_eq!(digests(&mut loader, set.steps()), set.digests());
    assert!(loader.stats().cache_puts(Put::Failed) > 0);
    wait_until("nothing is left in memory", || loader.stats().buffered() < 1 << 20);
}
