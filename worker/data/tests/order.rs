//! Promise 1 on 100,000 samples: order and pixels are the same on 1, 2, 3, 7 and 128 workers, and from any step on.
#![allow(clippy::unwrap_used)]

#[path = "kit/synthetic.rs"]
mod synthetic;

use std::sync::Arc;

use r2o_data::{Batch, Dataset, Loader, LoaderOptions};
use r2o_types::{EpochPlan, Keyed, deal_lanes, sample_digest};

const SAMPLES: u32 = 100_000;
const LANES: u32 = 128;
const PER_LANE: u32 = 4;
const SEED: u64 = 11;
const WINDOW: u32 = 16;
const FLEETS: [usize; 5] = [1, 2, 3, 7, 128];
/// Resumptions of each fleet: 200 in all.
const RESUMED: u64 = 40;
/// Some steps beyond an epoch of 195.
const STEPS: u64 = 201;

fn dataset() -> (tempfile::TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    let images = synthetic::small_images(5);
    let layout = synthetic::Layout { samples: SAMPLES, per_chunk: 64, per_shard: 400, classes: 10, padding: 0, images };
    synthetic::write(folder.path(), &layout);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dataset = Arc::new(runtime.block_on(Dataset::open(&folder.path().display().to_string())).unwrap());
    assert_eq!(dataset.samples(), u64::from(SAMPLES));
    (folder, dataset)
}

fn loader(dataset: &Arc<Dataset>, lanes: &[u32], first_step: u64) -> Loader {
    Loader::start(LoaderOptions {
        seed: SEED,
        image_size: 32,
        lanes: lanes.to_vec(),
        total_lanes: LANES,
        samples_per_lane: PER_LANE,
        window_chunks: WINDOW,
        first_step,
        threads: 2,
        audit: true,
        ..LoaderOptions::new(Arc::clone(dataset))
    })
    .unwrap()
}

/// What is known of a lane at a step: a hash of its samples in their order, and one of its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    order: u64,
    pixels: u64,
}

fn seen(batch: &Batch) -> Vec<(u32, Seen)> {
    let lanes = batch.lanes.iter().zip(batch.samples.chunks_exact(PER_LANE as usize)).zip(&batch.pixel_digests);
    lanes.map(|((&lane, samples), &pixels)| (lane, Seen { order: sample_digest(samples), pixels })).collect()
}

/// The run of one worker that nothing disturbs: by step and lane.
fn undisturbed(dataset: &Arc<Dataset>) -> Vec<Vec<Seen>> {
    let mut loader = loader(dataset, &(0..LANES).collect::<Vec<_>>(), 0);
    let all = (0..STEPS).map(|_| seen(&loader.next().unwrap()).into_iter().map(|(_, seen)| seen).collect());
    all.collect()
}

#[test]
fn order_and_pixels_are_the_same_on_any_fleet_and_from_any_step() {
    let (_folder, dataset) = dataset();
    let whole = undisturbed(&dataset);
    let distinct: std::collections::BTreeSet<u64> = whole.iter().flatten().map(|seen| seen.pixels).collect();
    assert_eq!(distinct.len(), STEPS as usize * LANES as usize, "no two batches are alike");
    let agrees = |batch: &Batch, what: &str| {
        for (lane, seen) in seen(batch) {
            assert_eq!(seen, whole[batch.step as usize][lane as usize], "{what}: step {}, lane {lane}", batch.step);
        }
    };
    for fleet in FLEETS {
        let deal = deal_lanes(LANES, fleet, LANES);
        let mut dice = Keyed::new("resumed", &[fleet as u64]);
        // All workers at one step, so that every lane's is seen.
        let step = dice.below(STEPS);
        for lanes in &deal {
            agrees(&loader(&dataset, lanes, step).next().unwrap(), &format!("{fleet} workers"));
        }
        for _ in 0..RESUMED {
            let (step, lanes) = (dice.below(STEPS), &deal[dice.below(fleet as u64) as usize]);
            agrees(&loader(&dataset, lanes, step).next().unwrap(), &format!("{fleet} workers, resumed at {step}"));
        }
    }
}

#[test]
fn the_order_of_whole_epochs_is_the_same_on_any_fleet() {
    let (_folder, dataset) = dataset();
    let plan = |epoch| EpochPlan::new(dataset.chunks(), SEED, epoch, LANES, PER_LANE, WINDOW).unwrap();
    let digest = |plan: &EpochPlan, step, lane| sample_digest(&plan.samples(step, lane));
    for epoch in 0..2 {
        let walked = plan(epoch);
        let all: Vec<Vec<u64>> =
            (0..walked.steps()).map(|step| (0..LANES).map(|lane| digest(&walked, step, lane)).collect()).collect();
        for fleet in FLEETS {
            for lanes in deal_lanes(LANES, fleet, LANES) {
                // A plan of its own, walked lane by lane and from the end: whatever it keeps, it keeps otherwise.
                let own = plan(epoch);
                for lane in lanes {
                    for step in (0..own.steps()).rev() {
                        assert_eq!(digest(&own, step, lane), all[step as usize][lane as usize], "{fleet} workers");
                    }
                }
            }
        }
    }
}
