//! A bounded part of the simulation, in every gate; `cargo xtask sim --seed N --seeds M` goes on where this ends.

use std::panic::catch_unwind;

use r2o_sim::{Options, Plant, Report, run};

/// Seeds that every gate runs.
const SEEDS: u64 = 3_000;
/// Seeds among which each planted bug must show.
const ENOUGH: u64 = 2_000;

/// A seed whose run panics is one that must be named, too.
fn guarded(seed: u64, options: Options) -> Result<Report, String> {
    let report = catch_unwind(|| run(seed, options)).map_err(|_| format!("seed {seed} panics"))?;
    match &report.violation {
        Some(violation) => Err(format!("seed {seed}: {violation}\n  to see it: cargo xtask sim --seed {seed}")),
        None => Ok(report),
    }
}

/// The first failure of some seeds, on all processors: a run knows of no other one.
fn first_failure(seeds: u64, options: Options) -> Option<String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        let part =
            |first: u64| move || (first..seeds).step_by(threads as usize).find_map(|s| guarded(s, options).err());
        let parts: Vec<_> = (0..threads).map(|first| scope.spawn(part(first))).collect();
        parts.into_iter().filter_map(|part| part.join().ok().flatten()).next()
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..64 {
        let (once, again) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!(once, again, "seed {seed}");
        let readable = run(seed, Options { readable: true, ..Options::default() });
        assert_eq!(once.hash, readable.hash, "seed {seed}: to be looked at changes nothing");
    }
    assert_ne!(run(1, Options::default()).hash, run(2, Options::default()).hash);
}

#[test]
fn every_promise_holds_for_all_seeds() {
    if let Some(failure) = first_failure(SEEDS, Options::default()) {
        panic!("{failure}");
    }
}

#[test]
fn everything_that_can_happen_happens() {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..200 {
        for (what, times) in run(seed, Options::default()).counts {
            *counts.entry(what).or_insert(0_u64) += times;
        }
    }
    for what in [
        "Preempted",
        "Paused",
        "Requeued",
        "WorkerDraining",
        "WorkerLost",
        "StepsRecovered",
        "ReplicaDiffers",
        "CheckpointFailed",
        "Cancelled",
        "damaged",
        "flipped",
        "steps lost",
        "storage failures",
        "stuck",
    ] {
        assert!(counts.get(what).is_some_and(|times| *times > 0), "{what} never happens: {counts:?}");
    }
}

#[test]
fn each_planted_bug_is_found_by_some_seed() {
    for plant in Plant::ALL {
        let options = Options { plant: Some(plant), ..Options::default() };
        let found = first_failure(ENOUGH, options);
        assert!(found.is_some(), "{plant:?} is not found by {ENOUGH} seeds");
        println!("{plant:?}: {}", found.unwrap_or_default());
    }
}
