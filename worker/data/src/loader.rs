//! Batches of a worker's lanes, step by step, made ahead of the step that trains.
//!
//! One thread gathers the bytes of step after step (see `feed`), another has them decoded and augmented on a pool of threads.
//! Bounded channels between them keep the number of steps and of finished batches, and so the memory, small.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use r2o_types::{Dtype, Prior};
use tokio::sync::oneshot;

use crate::batch::{Batch, Making};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::feed::{Feeder, Orders};
use crate::pixels::Memory;
use crate::pool::Pool;
use crate::prior::PriorSource;
use crate::stats::{LoaderStats, Stage};
use crate::step::Step;

/// What a loader loads.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// The set.
    pub dataset: Arc<Dataset>,
    /// The job's seed.
    pub seed: u64,
    /// Side of the views in pixels.
    pub image_size: u32,
    /// The job's prior.
    pub prior: Prior,
    /// Lanes of this worker.
    pub lanes: Vec<u32>,
    /// Lanes of the job.
    pub total_lanes: u32,
    /// Images per lane and step.
    pub samples_per_lane: u32,
    /// Chunks that are shuffled together.
    pub window_chunks: u32,
    /// 0-based step of the run to start at.
    pub first_step: u64,
    /// Threads for decoding; 0 counts as 1.
    pub threads: usize,
    /// Finished batches to keep ready; 0 counts as 1.
    pub prefetch_steps: usize,
    /// Digest every lane's pixels.
    pub audit: bool,
    /// Type of the pixels.
    pub dtype: Dtype,
    /// Where pixels should lie; none: in ordinary memory.
    pub memory: Option<Arc<dyn Memory>>,
}

impl LoaderOptions {
    /// One image a step of one lane, on one thread: what a caller does not change.
    pub fn new(dataset: Arc<Dataset>) -> Self {
        Self {
            dataset,
            seed: 0,
            image_size: 224,
            prior: Prior::None {},
            lanes: vec![0],
            total_lanes: 1,
            samples_per_lane: 1,
            window_chunks: 16,
            first_step: 0,
            threads: 1,
            prefetch_steps: 1,
            audit: false,
            dtype: Dtype::Float32,
            memory: None,
        }
    }
}

/// A running loader. Dropping it ends its threads.
#[derive(Debug)]
pub struct Loader {
    batches: Receiver<Result<Batch, DataError>>,
    next_step: u64,
    stats: Arc<LoaderStats>,
    /// Tells the feeder, wherever it waits, that the loader is gone.
    _alive: oneshot::Sender<()>,
}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the set is smaller than one global batch, or the system refuses threads.
    pub fn start(options: LoaderOptions) -> Result<Self, DataError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.max(1))
            .thread_name(|i| format!("decode-{i}"))
            .build()
            .map_err(|e| DataError::Threads(std::io::Error::other(e)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("data-io")
            .enable_all()
            .build()
            .map_err(DataError::Threads)?;
        let next_step = options.first_step;
        let prefetch = options.prefetch_steps.max(1);
        let stats: Arc<LoaderStats> = Arc::default();
        let making = Making {
            seed: options.seed,
            side: options.image_size,
            prior: PriorSource::choose(&options.prior, options.dataset.binding()),
            audit: options.audit,
            // Those that are ready, one in the making and one that trains.
            pool: Pool::new(prefetch + 2, options.dtype, options.memory.clone()),
            stats: Arc::clone(&stats),
        };
        warn_of_little_memory(&options);
        let dataset = Arc::clone(&options.dataset);
        let (alive, ended) = oneshot::channel();
        // One step waits while the one before is decoded and the one after is gathered.
        let (next, steps) = bounded(1);
        let (spent, memory) = unbounded();
        let feeder = Feeder::new(Orders::new(options)?, Arc::clone(&stats), runtime, ended, memory);
        let (sender, batches) = bounded(prefetch);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        thread("data-feed").spawn(move || feeder.run(&next)).map_err(DataError::Threads)?;
        let decode = move || run(&dataset, &making, &pool, &steps, &spent, &sender);
        thread("loader").spawn(decode).map_err(DataError::Threads)?;
        Ok(Self { batches, next_step, stats, _alive: alive })
    }

    /// The batch of the next step; steps go on over all epochs, for ever. Blocks until it is ready.
    ///
    /// # Errors
    /// When a chunk is missing or damaged, half of a lane's samples cannot be decoded, or the store fails. The loader has ended
    /// then.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Batch, DataError> {
        let start = Instant::now();
        let batch = self.batches.recv().map_err(|_| DataError::Lost { step: self.next_step })??;
        self.stats.spent(Stage::Wait, start);
        self.next_step = batch.step + 1;
        Ok(batch)
    }

    /// Batches that wait to be taken.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.batches.len()
    }

    /// What this loader has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<LoaderStats> {
        Arc::clone(&self.stats)
    }
}

/// Decodes step after step until one fails or nobody takes them.
fn run(
    dataset: &Dataset,
    making: &Making,
    pool: &rayon::ThreadPool,
    steps: &Receiver<Result<Step, DataError>>,
    spent: &Sender<Vec<u8>>,
    batches: &Sender<Result<Batch, DataError>>,
) {
    for step in steps {
        let made = step.and_then(|step| {
            let made = pool.install(|| Batch::make(dataset, &step, making));
            making.stats.unbuffer(step.bytes() as u64);
            // The feeder may have ended.
            let _ = spent.send(step.into_bytes());
            made
        });
        let failed = made.is_err();
        if batches.send(made).is_err() || failed {
            return;
        }
    }
}

/// Windows that do not fit into memory are read again for every step, unless a disk holds them.
fn warn_of_little_memory(options: &LoaderOptions) {
    let LoaderOptions { dataset, lanes, window_chunks, .. } = options;
    let chunks = dataset.chunks().len().min(lanes.len() * *window_chunks as usize) as u64;
    let mean =
        (0..dataset.chunks().len()).map(|c| dataset.chunk_bytes(c)).sum::<u64>() / dataset.chunks().len().max(1) as u64;
    let (needed, memory) = (chunks * mean, dataset.memory_bytes());
    if needed > memory && !dataset.has_cache() {
        tracing::warn!(
            needed,
            memory,
            "the shuffle windows of this worker's lanes do not fit into the loader's memory, and their chunks will be read \
             more than once: give the worker --cache-dir, or more --loader-memory"
        );
    }
}
