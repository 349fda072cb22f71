//! How well an epoch's order mixes a set, and what it costs in reads: statistics of [`EpochPlan`], for people who choose a
//! window. Beside a plan of one window, which is a full permutation, they say what a smaller window gives away.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::deal::deal_lanes;
use crate::plan::{ChunkRef, EpochPlan, PlanError};

/// The shape of a job, as far as its order depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The job's seed.
    pub seed: u64,
    /// Lanes of the job.
    pub lanes: u32,
    /// Images per lane and step.
    pub samples_per_lane: u32,
}

/// What an order does to a set. Shares are in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mixing {
    /// Chunks that are shuffled together.
    pub window_chunks: u32,
    /// How far samples go from their place in the set, as a share of the set; the mean of a full permutation is 1/3.
    pub displacement_mean: f64,
    /// The same: 10th, 50th and 90th percentile.
    pub displacement: [f64; 3],
    /// Share of the set's neighbours (a sample and the next one) that are in one lane's batch together.
    pub neighbours_in_lane: f64,
    /// Share of the pairs in a lane's batch that are together in a lane's batch in the next epoch too.
    pub meet_again: f64,
    /// Different classes in a lane's batch, the mean; `None`: the set has no labels.
    pub classes_in_lane: Option<f64>,
    /// Different classes in a global batch, the mean.
    pub classes_in_batch: Option<f64>,
    /// Copies of the set that a fleet reads in an epoch when each worker reads a chunk once: (workers, copies). With as many
    /// workers as lanes, it is also what any fleet reads whose workers forget a chunk with its window.
    pub copies: Vec<(u32, f64)>,
}

impl Mixing {
    /// Measures the first epochs of a job over a set's `chunks`, of which `label` gives a sample's class.
    ///
    /// # Errors
    /// When the set holds less than one global batch.
    pub fn measure(
        chunks: &[ChunkRef],
        label: impl Fn(u64) -> Option<u32>,
        shape: Shape,
        window_chunks: u32,
    ) -> Result<Self, PlanError> {
        let epoch = |epoch| {
            let plan = EpochPlan::new(chunks, shape.seed, epoch, shape.lanes, shape.samples_per_lane, window_chunks)?;
            let taken = plan.steps() * u64::from(shape.lanes) * u64::from(shape.samples_per_lane);
            let order = plan.order();
            Ok(Epoch { steps: plan.steps(), batches: order[..taken as usize].to_vec(), shape, order })
        };
        let (first, second): (Epoch, Epoch) = (epoch(0)?, epoch(1)?);
        let (displacement_mean, displacement) = first.displacement();
        Ok(Self {
            window_chunks,
            displacement_mean,
            displacement,
            neighbours_in_lane: first.neighbours(),
            meet_again: first.meet_again(&second),
            classes_in_lane: mean(first.lane_batches().filter_map(|batch| classes(batch, &label))),
            classes_in_batch: mean((0..first.steps).filter_map(|step| classes(&first.global_batch(step), &label))),
            copies: [1, 8, shape.lanes].iter().map(|&workers| (workers, first.copies(chunks, workers))).collect(),
        })
    }
}

/// One epoch's order, and that of the samples which are taken.
struct Epoch {
    steps: u64,
    shape: Shape,
    order: Vec<u64>,
    batches: Vec<u64>,
}

impl Epoch {
    /// The batches of all lanes, each lane's steps in order.
    fn lane_batches(&self) -> impl Iterator<Item = &[u64]> {
        self.batches.chunks_exact(self.shape.samples_per_lane as usize)
    }

    fn global_batch(&self, step: u64) -> Vec<u64> {
        let each = self.lane_batches().skip(step as usize).step_by(self.steps as usize);
        each.flatten().copied().collect()
    }

    fn displacement(&self) -> (f64, [f64; 3]) {
        let length = self.order.len();
        let mut far: Vec<u64> = self.order.iter().zip(0_u64..).map(|(&sample, at)| at.abs_diff(sample)).collect();
        far.sort_unstable();
        let share = |distance: u64| distance as f64 / length as f64;
        let percentile = |percent: usize| share(far[(length - 1) * percent / 100]);
        (far.iter().map(|&d| share(d)).sum::<f64>() / length as f64, [10, 50, 90].map(percentile))
    }

    /// The batch of each sample that is taken.
    fn batch_of(&self) -> Vec<Option<u32>> {
        let mut of = vec![None; self.order.len()];
        for (batch, number) in self.lane_batches().zip(0_u32..) {
            batch.iter().for_each(|&sample| of[sample as usize] = Some(number));
        }
        of
    }

    fn neighbours(&self) -> f64 {
        let together = self.batch_of().windows(2).filter(|pair| pair[0].is_some() && pair[0] == pair[1]).count();
        together as f64 / (self.order.len() - 1).max(1) as f64
    }

    fn meet_again(&self, next: &Self) -> f64 {
        let next = next.batch_of();
        let (mut again, mut pairs) = (0_u64, 0_u64);
        for batch in self.lane_batches() {
            for (number, &one) in batch.iter().enumerate() {
                let one = next[one as usize];
                let others = &batch[number + 1..];
                pairs += others.len() as u64;
                again += others.iter().filter(|&&other| one.is_some() && one == next[other as usize]).count() as u64;
            }
        }
        again as f64 / pairs.max(1) as f64
    }

    fn copies(&self, chunks: &[ChunkRef], workers: u32) -> f64 {
        let lane_samples = self.steps as usize * self.shape.samples_per_lane as usize;
        let mut read = 0;
        for lanes in deal_lanes(self.shape.lanes, workers as usize, 1) {
            let samples = lanes.iter().flat_map(|&lane| &self.batches[lane as usize * lane_samples..][..lane_samples]);
            let mine: BTreeSet<usize> = samples.map(|sample| chunks.partition_point(|c| c.first <= *sample)).collect();
            read += mine.len();
        }
        read as f64 / chunks.len() as f64
    }
}

fn classes(batch: &[u64], label: impl Fn(u64) -> Option<u32>) -> Option<f64> {
    let found: BTreeSet<u32> = batch.iter().filter_map(|&sample| label(sample)).collect();
    (!found.is_empty()).then_some(found.len() as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { seed: 3, lanes: 8, samples_per_lane: 32 };

    /// 8192 samples in 128 chunks, 16 classes one after another.
    fn measured(window_chunks: u32) -> Mixing {
        let chunks: Vec<_> =
            (0..128_u32).map(|n| ChunkRef { shard: 0, first: u64::from(n) * 64, samples: 64 }).collect();
        Mixing::measure(&chunks, |sample| Some((sample / 512) as u32), SHAPE, window_chunks).unwrap()
    }

    #[test]
    fn one_window_has_the_statistics_of_a_full_permutation() {
        let full = measured(128);
        assert!((full.displacement_mean - 1.0 / 3.0).abs() < 0.01, "{full:?}");
        // Two of 8192 samples are in one batch of 32 with 31 / 8191.
        let chance = 31.0 / 8191.0;
        assert!((full.neighbours_in_lane / chance - 1.0).abs() < 0.5, "{full:?}");
        assert!((full.meet_again / chance - 1.0).abs() < 0.1, "{full:?}");
        // 16 classes, 32 draws without returning: 16 * (1 - (15/16)^32) = 13.97 with returning.
        let classes = full.classes_in_lane.unwrap();
        assert!((13.8..14.3).contains(&classes) && full.classes_in_batch == Some(16.0), "{full:?}");
    }

    #[test]
    fn a_smaller_window_mixes_less_and_reads_less() {
        let (one, four, full) = (measured(1), measured(4), measured(128));
        // A window of one chunk is one class, and half of the chunk is a batch.
        assert_eq!(one.classes_in_lane, Some(1.0));
        assert!(one.neighbours_in_lane > 0.4 && one.meet_again > 0.004, "{one:?}");
        assert!(one.neighbours_in_lane > four.neighbours_in_lane && four.neighbours_in_lane > full.neighbours_in_lane);
        assert!(one.classes_in_lane < four.classes_in_lane && four.classes_in_lane < full.classes_in_lane);
        // 8 lanes of 16 chunks each end where windows of 4 do; every lane reads all of a single window.
        assert_eq!(four.copies, [(1, 1.0), (8, 1.0), (8, 1.0)]);
        assert_eq!((full.copies[0], full.copies[2].1 > 7.9), ((1, 1.0), true), "{full:?}");
    }

    #[test]
    fn a_set_without_labels_has_no_classes() {
        let chunks: Vec<_> = (0..8_u32).map(|n| ChunkRef { shard: 0, first: u64::from(n) * 64, samples: 64 }).collect();
        let mixing = Mixing::measure(&chunks, |_| None, SHAPE, 4).unwrap();
        assert_eq!((mixing.classes_in_lane, mixing.classes_in_batch), (None, None));
        assert!(Mixing::measure(&chunks[..1], |_| None, SHAPE, 4).is_err());
    }
}
