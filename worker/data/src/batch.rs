//! A batch: the images of a worker's lanes for one step, in plain memory.

use std::collections::HashMap;

use bytes::Bytes;
use r2o_types::Prior;
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3Default;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::prior::PriorSource;
use crate::sample::{Setting, Slot};

/// The images of all local lanes for one step, lane-major: N = lanes * samples per lane.
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
    /// (N, 3, s, s): the whole image, normalised.
    pub raw: Vec<f32>,
    /// (N, 3, s, s), normalised.
    pub view1: Vec<f32>,
    /// (N, 3, s, s), normalised.
    pub view2: Vec<f32>,
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
    /// Per lane, when audited: XXH3 of raw, view 1 and view 2. Empty otherwise.
    pub pixel_digests: Vec<u64>,
}

/// Which samples a batch holds.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    pub(crate) step_in_epoch: u64,
    pub(crate) lanes: Vec<u32>,
    pub(crate) samples: Vec<u64>,
    pub(crate) first_positions: Vec<u64>,
}

/// How a batch is made.
#[derive(Debug, Clone)]
pub(crate) struct Making {
    pub(crate) seed: u64,
    pub(crate) side: u32,
    pub(crate) prior: PriorSource,
    pub(crate) audit: bool,
}

/// Chunks by their number in the set.
pub(crate) type Chunks = HashMap<usize, Bytes>;

impl Batch {
    /// Decodes and augments, on the current rayon pool.
    pub(crate) fn make(dataset: &Dataset, order: Order, making: &Making, chunks: &Chunks) -> Result<Self, DataError> {
        let (n, side) = (order.samples.len(), making.side as usize);
        let (pixels, values) = (side * side, 3 * side * side);
        let mut batch = Self {
            step: order.step,
            epoch: order.epoch,
            step_in_epoch: order.step_in_epoch,
            images: n,
            size: making.side,
            raw: vec![0.0; n * values],
            view1: vec![0.0; n * values],
            view2: vec![0.0; n * values],
            prior: vec![0; n * pixels],
            boxes1: vec![0.0; n * 4],
            boxes2: vec![0.0; n * 4],
            flips1: vec![false; n],
            flips2: vec![false; n],
            samples: order.samples,
            lanes: order.lanes,
            first_positions: order.first_positions,
            pixel_digests: Vec::new(),
        };
        let setting =
            Setting { dataset, seed: making.seed, epoch: order.epoch, side: making.side, prior: &making.prior };
        batch.slots(pixels).into_par_iter().try_for_each(|mut slot| {
            let chunk = dataset.locate(slot.sample)?.chunk;
            let bytes = chunks.get(&chunk).ok_or(DataError::Lost { step: order.step })?;
            setting.fill(&mut slot, bytes)
        })?;
        if making.audit {
            batch.digest(values);
        }
        Ok(batch)
    }

    fn slots(&mut self, pixels: usize) -> Vec<Slot<'_>> {
        let values = 3 * pixels;
        let mut raw = self.raw.chunks_exact_mut(values);
        let mut view1 = self.view1.chunks_exact_mut(values);
        let mut view2 = self.view2.chunks_exact_mut(values);
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
        let per_lane = values * self.images / self.lanes.len().max(1);
        let lanes = 0..self.lanes.len();
        self.pixel_digests = lanes
            .into_par_iter()
            .map(|lane| {
                let mut hasher = Xxh3Default::new();
                for images in [&self.raw, &self.view1, &self.view2] {
                    for value in &images[lane * per_lane..(lane + 1) * per_lane] {
                        hasher.update(&value.to_le_bytes());
                    }
                }
                hasher.digest()
            })
            .collect();
    }
}

/// Reads the chunks of some samples, each once.
pub(crate) async fn fetch(dataset: &Dataset, samples: &[u64]) -> Result<Chunks, DataError> {
    let mut chunks = Chunks::new();
    for &sample in samples {
        let chunk = dataset.locate(sample)?.chunk;
        if let std::collections::hash_map::Entry::Vacant(entry) = chunks.entry(chunk) {
            entry.insert(dataset.read_chunk(chunk).await?);
        }
    }
    Ok(chunks)
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
    let chunks = runtime.block_on(fetch(dataset, samples))?;
    let packed = dataset.prior();
    let making = Making {
        seed,
        side: image_size,
        prior: PriorSource::choose(prior, packed.segments, packed.size),
        audit: false,
    };
    let order = Order {
        step: 0,
        epoch: 0,
        step_in_epoch: 0,
        lanes: vec![0],
        samples: samples.to_vec(),
        first_positions: vec![0],
    };
    Batch::make(dataset, order, &making, &chunks)
}
