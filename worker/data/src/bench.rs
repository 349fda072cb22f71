//! How fast a set can be fed to training from here, stage by stage, and what holds it back.

mod order;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use r2o_types::{Dtype, Prior};
use serde::Serialize;

pub use order::{OrderReport, order};

use crate::dataset::Dataset;
use crate::decode::DECODER;
use crate::error::DataError;
use crate::loader::{Loader, LoaderOptions};
use crate::stats::{LoaderStats, Skip, Stage};

/// Images of a batch.
const BATCH: u32 = 32;
/// Batches that pay for threads, buffers and the first reads.
const WARM_UP: usize = 2;
/// Below this share of what the threads could do, they wait for the store.
const STARVED: f64 = 0.8;

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Side of the views in pixels.
    pub image_size: u32,
    /// Type of the pixels.
    pub dtype: Dtype,
    /// The job's prior; `None`: the stored label maps.
    pub prior: Option<Prior>,
    /// Decoding threads; 0 counts as 1.
    pub threads: usize,
    /// How long to measure.
    pub time: Duration,
    /// Images that a GPU trains on in a second.
    pub gpu_rate: f64,
    /// How long it took to open the set.
    pub opened: Duration,
}

impl BenchOptions {
    /// float32, one thread and ten seconds, at the method's image size, for an H100 at the method's ceiling.
    #[must_use]
    pub fn new(opened: Duration) -> Self {
        Self {
            image_size: 224,
            dtype: Dtype::Float32,
            prior: None,
            threads: 1,
            time: Duration::from_secs(10),
            gpu_rate: 2350.0,
            opened,
        }
    }
}

/// One stage's share.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageReport {
    /// Its word.
    pub stage: &'static str,
    /// Of one thread.
    pub milliseconds_per_image: f64,
    /// What a core would do that did nothing else; `None`: too little to tell.
    pub images_per_second_per_core: Option<f64>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BenchReport {
    /// The set.
    pub url: String,
    /// The JPEG decoder.
    pub decoder: &'static str,
    /// Decoding threads.
    pub threads: usize,
    /// Images in the time measured.
    pub images: u64,
    /// The time measured.
    pub seconds: f64,
    /// Images that came out.
    pub images_per_second: f64,
    /// The same for each thread.
    pub images_per_second_per_core: f64,
    /// Images for each second of processor time, on all threads; `None`: the system does not tell.
    pub images_per_processor_second: Option<f64>,
    /// From nothing to the set's index in memory.
    pub open_seconds: f64,
    /// From there to the first batch.
    pub first_batch_seconds: f64,
    /// What a core does by the sum of its stages.
    pub stages_per_second_per_core: f64,
    /// Mean bytes of an image's file.
    pub bytes_per_image: f64,
    /// Bytes that came from the store, warm-up included.
    pub bytes_read: u64,
    /// Share of the chunks needed by steps that were in memory already.
    pub chunks_in_memory: f64,
    /// Share of them that the disk cache had.
    pub chunks_on_disk: f64,
    /// Bytes that the store sent, those of hedges and of what was read twice included.
    pub bytes_requested: u64,
    /// Bytes of samples that came from the disk cache.
    pub bytes_from_disk: u64,
    /// Requests to the store: all, retries, hedges.
    pub requests: [u64; 3],
    /// The most memory that waited for decoding, reads under way included.
    pub buffered_bytes: u64,
    /// The stages that cores work on.
    pub stages: Vec<StageReport>,
    /// Samples left out, by reason.
    pub skipped: Vec<(&'static str, u64)>,
    /// The stage that holds the rate back: `read`, or the one that costs cores most.
    pub limit: &'static str,
    /// As asked.
    pub gpu_rate: f64,
    /// Cores that such a GPU needs for its images.
    pub cores_for_gpu: f64,
}

/// Counters at one moment.
struct Moment {
    at: Instant,
    images: u64,
    bytes: u64,
    nanoseconds: [u64; Stage::ALL.len()],
    processor_seconds: Option<f64>,
}

impl Moment {
    fn of(stats: &LoaderStats) -> Self {
        Self {
            at: Instant::now(),
            images: stats.images(),
            bytes: stats.image_bytes(),
            nanoseconds: Stage::ALL.map(|stage| stats.nanoseconds(stage)),
            processor_seconds: processor_seconds(),
        }
    }
}

/// Loads batches for a while, as one lane that nobody trains on. Blocks; not for a runtime's thread.
///
/// # Errors
/// When the set cannot be read.
pub fn bench(dataset: Dataset, options: &BenchOptions) -> Result<BenchReport, DataError> {
    let prior = options.prior.clone().unwrap_or(Prior::Slic { segments: dataset.prior().segments });
    let (dataset, threads) = (Arc::new(dataset), options.threads.max(1));
    let begun = Instant::now();
    let mut loader = Loader::start(LoaderOptions {
        image_size: options.image_size,
        prior,
        samples_per_lane: BATCH.min(u32::try_from(dataset.samples()).unwrap_or(BATCH)).max(1),
        threads,
        dtype: options.dtype,
        ..LoaderOptions::new(Arc::clone(&dataset))
    })?;
    let stats = loader.stats();
    loader.next()?;
    let first_batch = begun.elapsed();
    for _ in 1..WARM_UP {
        loader.next()?;
    }
    let start = Moment::of(&stats);
    let mut images = 0;
    while start.at.elapsed() < options.time || images == 0 {
        images += loader.next()?.images as u64;
    }
    Ok(report(&dataset, options, &stats, &start, images, first_batch))
}

/// Processor time of all threads of this process that live; `None`: the system does not tell.
#[must_use]
pub fn processor_seconds() -> Option<f64> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

fn report(
    dataset: &Dataset,
    options: &BenchOptions,
    stats: &LoaderStats,
    start: &Moment,
    images: u64,
    first_batch: Duration,
) -> BenchReport {
    let threads = options.threads.max(1);
    let end = Moment::of(stats);
    let seconds = (end.at - start.at).as_secs_f64();
    // Those that were made in the meantime, which stages are counted for; a batch more or less than came out.
    let made = (end.images - start.images).max(1) as f64;
    let stages: Vec<StageReport> = Stage::ALL
        .into_iter()
        .filter(|stage| ![Stage::Read, Stage::Wait].contains(stage))
        .map(|stage| {
            let spent = (end.nanoseconds[stage as usize] - start.nanoseconds[stage as usize]) as f64 / made;
            StageReport {
                stage: stage.word(),
                milliseconds_per_image: spent / 1e6,
                images_per_second_per_core: (spent > 1e3).then(|| 1e9 / spent),
            }
        })
        .collect();
    let milliseconds: f64 = stages.iter().map(|stage| stage.milliseconds_per_image).sum();
    let possible = 1e3 / milliseconds;
    let rate = images as f64 / seconds;
    let starved = rate < STARVED * possible * threads as f64;
    let dearest = stages.iter().max_by(|a, b| a.milliseconds_per_image.total_cmp(&b.milliseconds_per_image));
    let (kept, on_disk) = (stats.chunks_kept() as f64, stats.chunks_cached() as f64);
    let needed = (kept + on_disk + stats.chunks_read() as f64).max(1.0);
    let reads = stats.reads();
    let processor = end.processor_seconds.zip(start.processor_seconds).map(|(end, start)| end - start);
    BenchReport {
        url: dataset.url().to_owned(),
        decoder: DECODER,
        threads,
        images,
        seconds,
        images_per_second: rate,
        images_per_second_per_core: rate / threads as f64,
        stages_per_second_per_core: possible,
        bytes_per_image: (end.bytes - start.bytes) as f64 / made,
        bytes_read: stats.bytes_read(),
        images_per_processor_second: processor.filter(|&seconds| seconds > 0.0).map(|seconds| images as f64 / seconds),
        open_seconds: options.opened.as_secs_f64(),
        first_batch_seconds: first_batch.as_secs_f64(),
        chunks_in_memory: kept / needed,
        chunks_on_disk: on_disk / needed,
        bytes_requested: reads.bytes.load(Relaxed),
        bytes_from_disk: stats.bytes_cached(),
        requests: [&reads.requests, &reads.retries, &reads.hedges].map(|count| count.load(Relaxed)),
        buffered_bytes: stats.buffered_most(),
        skipped: Skip::ALL.into_iter().map(|reason| (reason.word(), stats.skipped(reason))).collect(),
        limit: if starved { Stage::Read.word() } else { dearest.map_or("", |stage| stage.stage) },
        gpu_rate: options.gpu_rate,
        cores_for_gpu: options.gpu_rate * milliseconds / 1e3,
        stages,
    }
}
