//! How long it takes to prove a whole run: 300 epochs of 1.28 million samples on 128 lanes of 32.
//!
//! `cargo run --release -p r2o-storage --example prove [EPOCHS]`

use std::time::Instant;

use r2o_storage::history::{LaneRecord, StepRecord};
use r2o_storage::ledger::proof::{Plan, prove};
use r2o_storage::ledger::{Range, Segment, kept};
use r2o_types::{ChunkRef, EpochPlan, sample_digest};
use rayon::prelude::*;

const SAMPLES: u64 = 1_281_167;
/// Some 8 MiB of pictures of ImageNet.
const CHUNK: u32 = 75;

fn main() {
    let epochs = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(300);
    let chunk = |first: u64| ChunkRef { shard: 0, first, samples: CHUNK.min((SAMPLES - first) as u32) };
    let chunks = (0..SAMPLES).step_by(CHUNK as usize).map(chunk).collect();
    let plan = Plan { chunks, seed: 0, epochs, lanes: 128, samples_per_lane: 32, window_chunks: 16 };
    let began = Instant::now();
    let ranges: Vec<Range> = (0..epochs).into_par_iter().flat_map(|epoch| trained(&plan, epoch)).collect();
    println!("made the ledger of {epochs} epochs, {} ranges, in {:.1?}", ranges.len(), began.elapsed());
    let bytes: usize = ranges.iter().map(|range| serde_json::to_vec(range).unwrap_or_default().len()).sum();
    println!("the ledger has {bytes} bytes");
    let (began, steps) = (Instant::now(), plan.steps_per_epoch() * epochs);
    match prove(&plan, &kept(ranges), steps) {
        Ok(proven) => println!("proved {} steps of {} epochs in {:.1?}", steps, proven.epochs.len(), began.elapsed()),
        Err(flaw) => println!("not proven: {flaw}"),
    }
}

/// The ranges of an epoch as a right run leaves them.
fn trained(plan: &Plan, epoch: u64) -> Vec<Range> {
    let (per_epoch, mut segment) = (plan.steps_per_epoch(), Segment::default());
    let Ok(order) =
        EpochPlan::new(&plan.chunks, plan.seed, epoch, plan.lanes, plan.samples_per_lane, plan.window_chunks)
    else {
        return Vec::new();
    };
    for step in 0..per_epoch {
        let lane = |lane| LaneRecord {
            lane,
            first_position: order.first_position(step, lane),
            sample_digest: sample_digest(&order.samples(step, lane)),
            ..LaneRecord::default()
        };
        let lanes = (0..plan.lanes).map(lane).collect();
        let record =
            StepRecord { step: epoch * per_epoch + step, epoch, generation: 1, lanes, ..StepRecord::default() };
        assert!(segment.add(&record, 0), "a range of one epoch fits into a segment");
    }
    segment.ranges().to_vec()
}
