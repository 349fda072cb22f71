//! How well a set is mixed by windows of several sizes, and how long a jump to any step takes. Only the index is read.

use std::time::Instant;

use r2o_types::{EpochPlan, Keyed, Mixing, PlanError, Shape};
use serde::Serialize;

use crate::dataset::Dataset;
use crate::error::DataError;

/// Jumps that are timed.
const JUMPS: u64 = 50;
/// Epochs of a run, for jumps.
const EPOCHS: u64 = 300;

/// What an order does to a set.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderReport {
    /// The set.
    pub url: String,
    /// Its samples.
    pub samples: u64,
    /// Its chunks.
    pub chunks: usize,
    /// Lanes of the job.
    pub lanes: u32,
    /// Images per lane and step.
    pub samples_per_lane: u32,
    /// From nothing to the samples of all lanes at any step of 300 epochs: the median of 50 jumps, and the slowest, with the
    /// first of the windows.
    pub jump_milliseconds: [f64; 2],
    /// Each window, and all chunks in one, which is a full permutation.
    pub windows: Vec<Mixing>,
}

/// Measures windows of so many chunks.
///
/// # Errors
/// When the set holds less than one global batch.
pub fn order(dataset: &Dataset, shape: Shape, windows: &[u32]) -> Result<OrderReport, DataError> {
    let chunks = dataset.chunks();
    let failed = |source: PlanError| DataError::Plan { url: dataset.url().to_owned(), source };
    let all = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let sizes = windows.iter().copied().filter(|&size| size < all).chain([all]);
    let measured = sizes.map(|size| Mixing::measure(chunks, |sample| dataset.label(sample), shape, size));
    Ok(OrderReport {
        url: dataset.url().to_owned(),
        samples: dataset.samples(),
        chunks: chunks.len(),
        lanes: shape.lanes,
        samples_per_lane: shape.samples_per_lane,
        windows: measured.collect::<Result<_, _>>().map_err(failed)?,
        jump_milliseconds: jump(dataset, shape, windows.first().copied().unwrap_or(all)).map_err(failed)?,
    })
}

fn jump(dataset: &Dataset, shape: Shape, window: u32) -> Result<[f64; 2], PlanError> {
    let Shape { seed, lanes, samples_per_lane } = shape;
    let mut dice = Keyed::new("jumps", &[seed]);
    let mut took = Vec::new();
    for _ in 0..JUMPS {
        let start = Instant::now();
        let plan = EpochPlan::new(dataset.chunks(), seed, dice.below(EPOCHS), lanes, samples_per_lane, window)?;
        let step = dice.below(plan.steps());
        (0..lanes).for_each(|lane| drop(std::hint::black_box(plan.samples(step, lane))));
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok([took[took.len() / 2], took[took.len() - 1]])
}
