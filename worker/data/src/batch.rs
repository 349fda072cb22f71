//! A batch: the images of a worker's lanes for one step, in plain memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use r2o_types::{Dtype, Prior};
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3Default;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::pixels::Pixels;
use crate::pool::{Buffers, Home, Pool};
use crate::prior::PriorSource;
use crate::sample::{Setting, Slot, skip_of};
use crate::stats::{LoaderStats, Stage};
use crate::step::{Order, Step, gather};

/// The images of all local lanes for one step, lane-major: N = lanes * samples per lane. Dropping it gives its buffers to a
/// later batch of the same loader.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// 0-based step of the run.
    pub step: u64,
    /// 0-based epoch.
    pub epoch: u64,
    /// 0-based step inside the epoch.
    pub step_in_epoch: u64,
    /// The lanes, in order.
    pub lanes: Vec<u32>,
    /// N.
    pub images: usize,
    /// Side s of every image in pixels.
    pub size: u32,
    /// (N, 3, s, s): the whole image, normalised unless it is uint8.
    pub raw: Pixels,
    /// (N, 3, s, s), likewise.
    pub view1: Pixels,
    /// (N, 3, s, s), likewise.
    pub view2: Pixels,
    /// (N, s, s): regions of the raw view, counted from 0.
    pub prior: Vec<u8>,
    /// (N, 4): y0, x0, y1, x1 of view 1 in the raw view, in [0, 1].
    pub boxes1: Vec<f32>,
    /// (N, 4), of view 2.
    pub boxes2: Vec<f32>,
    /// (N): view 1 is mirrored.
    pub flips1: Vec<bool>,
    /// (N), of view 2.
    pub flips2: Vec<bool>,
    /// (N): ordinals of the samples.
    pub samples: Vec<u64>,
    /// Per lane: its first position in the epoch's order.
    pub first_positions: Vec<u64>,
    /// Per lane, when audited: XXH3 of the bytes of raw, view 1 and view 2. Empty otherwise.
    pub pixel_digests: Vec<u64>,
    /// Where the buffers go in the end.
    pub(crate) home: Home,
}

impl Drop for Batch {
    fn drop(&mut self) {
        let (raw, view1, view2) = (self.raw.take(), self.view1.take(), self.view2.take());
        self.home.give_back(Buffers { raw, view1, view2, prior: std::mem::take(&mut self.prior) });
    }
}

/// How a batch is made.
#[derive(Debug, Clone)]
pub(crate) struct Making {
    pub(crate) seed: u64,
    pub(crate) side: u32,
    pub(crate) prior: PriorSource,
    pub(crate) audit: bool,
    pub(crate) pool: Arc<Pool>,
    pub(crate) stats: Arc<LoaderStats>,
}

impl Batch {
    /// Decodes and augments, on the current rayon pool.
    pub(crate) fn make(dataset: &Dataset, step: &Step, making: &Making) -> Result<Self, DataError> {
        let (start, order) = (Instant::now(), &step.order);
        let (n, side) = (order.samples.len(), making.side as usize);
        let pixels = side * side;
        let (buffers, home) = making.pool.take(n, pixels);
        let mut batch = Self {
            step: order.step,
            epoch: order.epoch,
            step_in_epoch: order.step_in_epoch,
            images: n,
            size: making.side,
            raw: buffers.raw,
            view1: buffers.view1,
            view2: buffers.view2,
            prior: buffers.prior,
            boxes1: vec![0.0; n * 4],
            boxes2: vec![0.0; n * 4],
            flips1: vec![false; n],
            flips2: vec![false; n],
            samples: order.samples.clone(),
            lanes: order.lanes.clone(),
            first_positions: order.first_positions.clone(),
            pixel_digests: Vec::new(),
            home,
        };
        let (stats, lanes) = (&*making.stats, batch.lanes.len().max(1));
        let (seed, epoch, prior) = (making.seed, order.epoch, &making.prior);
        let setting = Setting { dataset, seed, epoch, side: making.side, prior, stats };
        let lost = Mutex::new(Vec::new());
        let mut slots = batch.slots(pixels);
        stats.spent(Stage::Assemble, start);
        slots.par_iter_mut().enumerate().try_for_each(|(number, slot)| {
            match setting.fill(slot, step.members(number)) {
                Err(error) if skip_of(&error).is_some() => {
                    lost.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
                    Ok(())
                }
                done => done,
            }
        })?;
        let start = Instant::now();
        let lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !lost.is_empty() {
            substitute(&setting, &mut slots, n / lanes, lost, step)?;
        }
        drop(slots);
        if making.audit {
            batch.digest(3 * pixels);
        }
        stats.spent(Stage::Assemble, start);
        Ok(batch)
    }

    fn slots(&mut self, pixels: usize) -> Vec<Slot<'_>> {
        let values = 3 * pixels;
        let mut raw = self.raw.sheets(values);
        let mut view1 = self.view1.sheets(values);
        let mut view2 = self.view2.sheets(values);
        let mut prior = self.prior.chunks_exact_mut(pixels);
        let mut boxes1 = self.boxes1.chunks_exact_mut(4);
        let mut boxes2 = self.boxes2.chunks_exact_mut(4);
        let mut flips1 = self.flips1.iter_mut();
        let mut flips2 = self.flips2.iter_mut();
        let slot = |&sample: &u64| {
            Some(Slot {
                sample,
                raw: raw.next()?,
                view1: view1.next()?,
                view2: view2.next()?,
                prior: prior.next()?,
                box1: boxes1.next()?,
                box2: boxes2.next()?,
                flip1: flips1.next()?,
                flip2: flips2.next()?,
            })
        };
        self.samples.iter().map_while(slot).collect()
    }

    fn digest(&mut self, values: usize) {
        let per_lane = |pixels: &Pixels| values * self.images / self.lanes.len().max(1) * pixels.dtype().bytes();
        let lanes = 0..self.lanes.len();
        self.pixel_digests = lanes
            .into_par_iter()
            .map(|lane| {
                let mut hasher = Xxh3Default::new();
                for images in [&self.raw, &self.view1, &self.view2] {
                    let bytes = per_lane(images);
                    hasher.update(&images.bytes()[lane * bytes..(lane + 1) * bytes]);
                }
                hasher.digest()
            })
            .collect();
    }
}

/// Fills the slots of samples that cannot be decoded with those that follow in their lane, augmented by the lost samples'
/// keys: so what a lane trains on depends on its samples alone, on any fleet. Each is named in the log and counted.
///
/// # Errors
/// When half of a lane's samples or more are lost, the first of them: then the set is at fault.
fn substitute(
    setting: &Setting<'_>,
    slots: &mut [Slot<'_>],
    per_lane: usize,
    mut lost: Vec<(usize, DataError)>,
    step: &Step,
) -> Result<(), DataError> {
    lost.sort_by_key(|(number, _)| *number);
    let numbers: Vec<usize> = lost.iter().map(|(number, _)| *number).collect();
    for (number, error) in lost {
        let lane = number / per_lane * per_lane..(number / per_lane + 1) * per_lane;
        let gone = numbers.iter().filter(|other| lane.contains(other)).count();
        let next = (1..per_lane)
            .map(|after| lane.start + (number - lane.start + after) % per_lane)
            .find(|candidate| !numbers.contains(candidate));
        let (Some(next), false) = (next, 2 * gone >= per_lane) else { return Err(error) };
        let from = slots[next].sample;
        if let Some(reason) = skip_of(&error) {
            setting.stats.skip(reason);
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let (sample, reason) = (slots[number].sample, reason.word());
            tracing::warn!(sample, from, reason, "{error}: {source}; another sample of its lane takes its place");
        }
        setting.fill_from(&mut slots[number], from, step.members(next))?;
    }
    Ok(())
}

/// Fixed samples as one lane, augmented as in epoch 0: for pictures of a run. Blocks; not for a runtime's thread.
///
/// # Errors
/// When a sample cannot be read or decoded.
pub fn probe(
    dataset: &Dataset,
    samples: &[u64],
    image_size: u32,
    prior: &Prior,
    seed: u64,
) -> Result<Batch, DataError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DataError::Threads)?;
    let making = Making {
        seed,
        side: image_size,
        prior: PriorSource::choose(prior, dataset.binding()),
        audit: false,
        pool: Pool::new(1, Dtype::Float32, None),
        stats: Arc::default(),
    };
    let order = Order {
        step: 0,
        epoch: 0,
        step_in_epoch: 0,
        lanes: vec![0],
        samples: samples.to_vec(),
        first_positions: vec![0],
    };
    let step = runtime.block_on(gather(dataset, order))?;
    Batch::make(dataset, &step, &making)
}
