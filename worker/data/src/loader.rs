//! Batches of a worker's lanes, step by step, made ahead of the step that trains.
//!
//! One thread walks the steps: while the samples of a step are decoded and augmented on a pool of threads, the chunks of
//! the next step are read. A bounded channel keeps the number of finished batches, and so the memory, small.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use r2o_types::{EpochPlan, Prior, steps_per_epoch};
use tokio::runtime::Runtime;

use crate::batch::{Batch, Chunks, Making, Order};
use crate::cache::ChunkCache;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::pool::Pool;
use crate::prior::PriorSource;
use crate::stats::{LoaderStats, Stage};

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
}

/// A running loader. Dropping it ends its threads.
#[derive(Debug)]
pub struct Loader {
    batches: Receiver<Result<Batch, DataError>>,
    next_step: u64,
    stats: Arc<LoaderStats>,
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
        let walk = Walk::new(options)?;
        let stats = Arc::clone(&walk.making.stats);
        let (sender, batches) = bounded(prefetch);
        std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || walk.run(&pool, &runtime, &sender))
            .map_err(DataError::Threads)?;
        Ok(Self { batches, next_step, stats })
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

/// The walk over the steps.
struct Walk {
    options: LoaderOptions,
    making: Making,
    steps_per_epoch: u64,
    plan: EpochPlan,
    plan_epoch: u64,
    cache: ChunkCache,
}

impl Walk {
    fn new(options: LoaderOptions) -> Result<Self, DataError> {
        let steps_per_epoch = steps_per_epoch(options.dataset.samples(), options.total_lanes, options.samples_per_lane);
        let making = Making {
            seed: options.seed,
            side: options.image_size,
            prior: PriorSource::choose(&options.prior, options.dataset.binding()),
            audit: options.audit,
            // Those that are ready, one in the making and one that trains.
            pool: Pool::new(options.prefetch_steps.max(1) + 2),
            stats: Arc::default(),
        };
        let plan_epoch = options.first_step.checked_div(steps_per_epoch).unwrap_or(0);
        let plan = plan(&options, plan_epoch)?;
        Ok(Self { making, steps_per_epoch, plan, plan_epoch, cache: ChunkCache::default(), options })
    }

    fn run(mut self, pool: &rayon::ThreadPool, runtime: &Runtime, batches: &Sender<Result<Batch, DataError>>) {
        let mut step = self.options.first_step;
        let mut ahead = self.order(step).map(|order| self.request(runtime, order));
        loop {
            let ready = ahead.and_then(|reading| self.arrived(runtime, reading));
            step += 1;
            // The next step's chunks are on their way while this step is decoded.
            ahead = self.order(step).map(|order| self.request(runtime, order));
            let dataset = Arc::clone(&self.options.dataset);
            let making = &self.making;
            let made = ready.and_then(|(order, chunks)| pool.install(|| Batch::make(&dataset, order, making, &chunks)));
            let failed = made.is_err();
            if batches.send(made).is_err() || failed {
                return;
            }
        }
    }

    /// The samples of a step.
    fn order(&mut self, step: u64) -> Result<Order, DataError> {
        let (epoch, step_in_epoch) = (step / self.steps_per_epoch, step % self.steps_per_epoch);
        if epoch != self.plan_epoch {
            self.plan = plan(&self.options, epoch)?;
            self.plan_epoch = epoch;
        }
        let lanes = self.options.lanes.clone();
        let samples = lanes.iter().flat_map(|&lane| self.plan.samples(step_in_epoch, lane)).collect();
        let first_positions = lanes.iter().map(|&lane| self.plan.first_position(step_in_epoch, lane)).collect();
        Ok(Order { step, epoch, step_in_epoch, lanes, samples, first_positions })
    }

    /// Takes from the cache what is there and starts to read the rest.
    fn request(&mut self, runtime: &Runtime, order: Order) -> Reading {
        let mut chunks = Chunks::new();
        let mut missing = Vec::new();
        for &sample in &order.samples {
            let Ok(chunk) = self.options.dataset.locate(sample).map(|place| place.chunk) else { continue };
            if chunks.contains_key(&chunk) || missing.contains(&chunk) {
                continue;
            }
            match self.cache.get(chunk) {
                Some(bytes) => {
                    self.making.stats.kept();
                    chunks.insert(chunk, bytes);
                }
                None => missing.push(chunk),
            }
        }
        let (dataset, stats) = (Arc::clone(&self.options.dataset), Arc::clone(&self.making.stats));
        let read = async move {
            let reads = missing.into_iter().map(|chunk| {
                let (dataset, stats) = (&dataset, &stats);
                async move {
                    let start = Instant::now();
                    let bytes = dataset.read_chunk(chunk).await?;
                    stats.spent(Stage::Read, start);
                    stats.read(bytes.len());
                    Ok::<_, DataError>((chunk, bytes))
                }
            });
            futures::future::try_join_all(reads).await
        };
        Reading { order, chunks, read: runtime.spawn(read) }
    }

    fn arrived(&mut self, runtime: &Runtime, reading: Reading) -> Result<(Order, Chunks), DataError> {
        let Reading { order, mut chunks, read } = reading;
        let read = runtime.block_on(read).map_err(|_| DataError::Lost { step: order.step })??;
        for (chunk, bytes) in read {
            self.cache.put(chunk, bytes.clone());
            chunks.insert(chunk, bytes);
        }
        Ok((order, chunks))
    }
}

/// A step whose chunks are on their way.
struct Reading {
    order: Order,
    chunks: Chunks,
    read: tokio::task::JoinHandle<Result<Vec<(usize, bytes::Bytes)>, DataError>>,
}

fn plan(options: &LoaderOptions, epoch: u64) -> Result<EpochPlan, DataError> {
    EpochPlan::new(
        options.dataset.chunks(),
        options.seed,
        epoch,
        options.total_lanes,
        options.samples_per_lane,
        options.window_chunks,
    )
    .map_err(|source| DataError::Plan { url: options.dataset.url().to_owned(), source })
}
