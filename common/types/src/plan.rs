//! The order of an epoch, as pure functions of (seed, epoch) and the set's chunks.
//!
//! Chunks are permuted by (seed, epoch). The permuted chunks are cut into windows of so many chunks; inside a window all
//! samples are shuffled, keyed by (seed, epoch, window). The windows one after another are the *positions* 0..N of the
//! epoch. A lane owns one contiguous run of positions: at step `s` lane `l` takes the `B` positions from
//! `l * steps * B + s * B`. A lane so reads few chunks, whoever computes it, and the position at any step is known at once.
//! The last positions, fewer than one global batch, are left out; the permutation makes them other samples every epoch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::random::Keyed;

/// Windows whose shuffled order is kept: each lane of a worker walks through one at a time.
const WINDOWS_KEPT: usize = 256;

/// A run of consecutive samples of one shard: the unit of ranged reads and of global shuffling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Index of the shard in the set.
    pub shard: u32,
    /// Ordinal, in the whole set, of the chunk's first sample.
    pub first: u64,
    /// Number of samples, at least 1.
    pub samples: u32,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Fewer samples than one global batch.
    #[error(
        "the data set has {samples} samples, but one step takes {needed} ({lanes} lanes of {samples_per_lane}): \
         use fewer lanes, fewer samples per lane, or more data"
    )]
    TooFewSamples {
        /// Samples in the set.
        samples: u64,
        /// Samples of one global batch.
        needed: u64,
        /// Lanes of the job.
        lanes: u32,
        /// Samples per lane and step.
        samples_per_lane: u32,
    },
}

/// Steps of one epoch: whole global batches of `lanes * samples_per_lane` samples.
#[must_use]
pub fn steps_per_epoch(samples: u64, lanes: u32, samples_per_lane: u32) -> u64 {
    let batch = u64::from(lanes) * u64::from(samples_per_lane);
    samples.checked_div(batch).unwrap_or(0)
}

/// The order of one epoch. Cheap to make (one permutation of chunks); asking is O(log chunks) once a window is shuffled.
#[derive(Debug)]
pub struct EpochPlan {
    seed: u64,
    epoch: u64,
    lanes: u32,
    samples_per_lane: u32,
    steps: u64,
    /// Chunks in the epoch's order.
    chunks: Vec<ChunkRef>,
    /// First position of each window, then the number of samples.
    window_starts: Vec<u64>,
    window_chunks: usize,
    shuffled: Mutex<HashMap<usize, Arc<Vec<u64>>>>,
}

impl EpochPlan {
    /// The plan of `epoch` (0-based) over a set's chunks.
    ///
    /// # Errors
    /// When the set holds less than one global batch.
    pub fn new(
        chunks: &[ChunkRef],
        seed: u64,
        epoch: u64,
        lanes: u32,
        samples_per_lane: u32,
        window_chunks: u32,
    ) -> Result<Self, PlanError> {
        let samples: u64 = chunks.iter().map(|c| u64::from(c.samples)).sum();
        let steps = steps_per_epoch(samples, lanes, samples_per_lane);
        if steps == 0 {
            let needed = u64::from(lanes) * u64::from(samples_per_lane);
            return Err(PlanError::TooFewSamples { samples, needed, lanes, samples_per_lane });
        }
        let mut chunks = chunks.to_vec();
        Keyed::new("chunks", &[seed, epoch]).shuffle(&mut chunks);
        let window_chunks = window_chunks.max(1) as usize;
        let mut window_starts = vec![0];
        let mut position = 0;
        for window in chunks.chunks(window_chunks) {
            position += window.iter().map(|c| u64::from(c.samples)).sum::<u64>();
            window_starts.push(position);
        }
        Ok(Self {
            seed,
            epoch,
            lanes,
            samples_per_lane,
            steps,
            chunks,
            window_starts,
            window_chunks,
            shuffled: Mutex::new(HashMap::new()),
        })
    }

    /// Steps of the epoch.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The first of the `samples_per_lane` consecutive positions that a lane takes at a step.
    #[must_use]
    pub fn first_position(&self, step_in_epoch: u64, lane: u32) -> u64 {
        debug_assert!(step_in_epoch < self.steps && lane < self.lanes, "step {step_in_epoch}, lane {lane}");
        (u64::from(lane) * self.steps + step_in_epoch) * u64::from(self.samples_per_lane)
    }

    /// Ordinals, in the whole set, of the samples of a lane at a step, in slot order.
    #[must_use]
    pub fn samples(&self, step_in_epoch: u64, lane: u32) -> Vec<u64> {
        let first = self.first_position(step_in_epoch, lane);
        (first..first + u64::from(self.samples_per_lane)).map(|position| self.sample_at(position)).collect()
    }

    /// The sample at a position of the epoch.
    #[must_use]
    pub fn sample_at(&self, position: u64) -> u64 {
        let window = self.window_starts.partition_point(|&start| start <= position) - 1;
        let order = self.window(window);
        order[(position - self.window_starts[window]) as usize]
    }

    /// The samples of all positions, in order: one entry per sample of the set, those that are left out at the end.
    #[must_use]
    pub fn order(&self) -> Vec<u64> {
        let windows = 0..self.window_starts.len() - 1;
        windows.flat_map(|window| self.shuffle(window)).collect()
    }

    fn window(&self, window: usize) -> Arc<Vec<u64>> {
        let mut kept = self.shuffled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(order) = kept.get(&window) {
            return Arc::clone(order);
        }
        if kept.len() >= WINDOWS_KEPT {
            kept.clear();
        }
        let order = Arc::new(self.shuffle(window));
        kept.insert(window, Arc::clone(&order));
        order
    }

    fn shuffle(&self, window: usize) -> Vec<u64> {
        let from = window * self.window_chunks;
        let to = (from + self.window_chunks).min(self.chunks.len());
        let mut order: Vec<u64> =
            self.chunks[from..to].iter().flat_map(|c| c.first..c.first + u64::from(c.samples)).collect();
        Keyed::new("window", &[self.seed, self.epoch, window as u64]).shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn chunks(sizes: &[u32]) -> Vec<ChunkRef> {
        let mut first = 0;
        let place = |(i, &samples): (usize, &u32)| {
            let chunk = ChunkRef { shard: i as u32 / 3, first, samples };
            first += u64::from(samples);
            chunk
        };
        sizes.iter().enumerate().map(place).collect()
    }

    fn all(plan: &EpochPlan) -> Vec<u64> {
        let lanes = 0..plan.lanes;
        lanes.flat_map(|lane| (0..plan.steps()).flat_map(move |step| plan.samples(step, lane))).collect()
    }

    proptest! {
        /// Promise 2: each sample at most once, and less than one global batch left out.
        #[test]
        fn exactly_once_less_a_partial_batch(
            sizes in proptest::collection::vec(1_u32..40, 1..40),
            lanes in 1_u32..9, per_lane in 1_u32..9, window in 1_u32..20, seed: u64, epoch in 0_u64..1000,
        ) {
            let chunks = chunks(&sizes);
            let samples: u64 = sizes.iter().map(|&s| u64::from(s)).sum();
            let batch = u64::from(lanes * per_lane);
            match EpochPlan::new(&chunks, seed, epoch, lanes, per_lane, window) {
                Err(_) => prop_assert!(samples < batch),
                Ok(plan) => {
                    let taken = all(&plan);
                    let distinct: BTreeSet<_> = taken.iter().copied().collect();
                    prop_assert_eq!(distinct.len(), taken.len(), "a sample was taken twice");
                    prop_assert!(distinct.iter().all(|&s| s < samples));
                    prop_assert!(samples - (taken.len() as u64) < batch);
                }
            }
        }

        /// A step's samples are the same whether it is asked first or after all others.
        #[test]
        fn jumping_is_the_same_as_walking(seed: u64, step in 0_u64..8, lane in 0_u32..4) {
            let chunks = chunks(&[16; 20]);
            let walked = EpochPlan::new(&chunks, seed, 3, 4, 8, 4).unwrap();
            let _ = all(&walked);
            let jumped = EpochPlan::new(&chunks, seed, 3, 4, 8, 4).unwrap();
            prop_assert_eq!(jumped.samples(step, lane), walked.samples(step, lane));
            let (order, first) = (walked.order(), walked.first_position(step, lane) as usize);
            prop_assert_eq!(&order[first..first + 8], &walked.samples(step, lane));
        }
    }

    #[test]
    fn one_window_is_a_full_permutation_and_epochs_differ() {
        let chunks = chunks(&[64, 64, 6]);
        let order = |epoch| all(&EpochPlan::new(&chunks, 7, epoch, 1, 134, 16).unwrap());
        let first = order(0);
        assert_eq!(first.iter().copied().collect::<BTreeSet<_>>(), (0..134).collect());
        assert_ne!(first, order(1));
        let stays = first.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        assert!(stays < 10, "{stays} neighbours stay neighbours");
    }

    #[test]
    fn too_few_samples_say_what_to_change() {
        let error = EpochPlan::new(&chunks(&[10]), 0, 0, 4, 8, 16).unwrap_err();
        assert!(error.to_string().contains("10 samples") && error.to_string().contains("32"), "{error}");
    }
}
