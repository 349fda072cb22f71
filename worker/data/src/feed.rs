//! Brings the bytes of step after step: from memory, from the disk cache, or from the store, ahead of their need.
//!
//! How far ahead follows from what was measured: a chunk is asked for when the time until its step is not much longer than a
//! read takes, with all that must come before it at the rate of the store. Memory bounds it: chunks in memory and on their way
//! never take more than the budget, and only what is needed later, or not at all, makes room for a read ahead of its time.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use r2o_types::EpochPlan;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::loader::LoaderOptions;
use crate::shelf::{Horizon, Outlook, Shelf};
use crate::stats::{LoaderStats, Stage};
use crate::step::{Need, Order, Source, Step};

/// Steps whose chunks are known ahead. A window of the usual 16 chunks lasts about half as long.
const STEPS_AHEAD: usize = 64;
/// Steps by which the view grows with each step, until it is as long as that.
const STEPS_MORE: usize = 3;
/// Steps ahead whose chunks are asked for before anything was measured.
const STEPS_AHEAD_FIRST: usize = 2;
/// How much earlier than by the measured rate chunks are asked for: rates are means, and a late chunk costs everybody.
const EARLY: f64 = 2.0;
/// Weight of the newest step in the time between steps.
const NEWEST: f64 = 0.3;

/// A step, and the chunks that its slots need, by chunk.
struct Wanted {
    order: Order,
    needs: Vec<Need>,
}

/// The orders of steps, one after another.
pub(crate) struct Orders {
    options: LoaderOptions,
    steps_per_epoch: u64,
    next: u64,
    epoch: u64,
    plan: EpochPlan,
}

impl Orders {
    pub(crate) fn new(options: LoaderOptions) -> Result<Self, DataError> {
        let LoaderOptions { total_lanes, samples_per_lane, first_step, .. } = options;
        let steps_per_epoch = r2o_types::steps_per_epoch(options.dataset.samples(), total_lanes, samples_per_lane);
        let epoch = first_step.checked_div(steps_per_epoch).unwrap_or(0);
        Ok(Self { plan: plan(&options, epoch)?, epoch, steps_per_epoch, next: first_step, options })
    }

    fn next(&mut self) -> Result<Order, DataError> {
        let step = self.next;
        let (epoch, step_in_epoch) = (step / self.steps_per_epoch, step % self.steps_per_epoch);
        if epoch != self.epoch {
            self.plan = plan(&self.options, epoch)?;
            self.epoch = epoch;
        }
        self.next += 1;
        let lanes = self.options.lanes.clone();
        let mut samples = Vec::with_capacity(lanes.len() * self.options.samples_per_lane as usize);
        lanes.iter().for_each(|&lane| samples.extend(self.plan.samples(step_in_epoch, lane)));
        let first_positions = lanes.iter().map(|&lane| self.plan.first_position(step_in_epoch, lane)).collect();
        Ok(Order { step, epoch, step_in_epoch, lanes, samples, first_positions })
    }
}

fn plan(options: &LoaderOptions, epoch: u64) -> Result<EpochPlan, DataError> {
    let LoaderOptions { dataset, seed, total_lanes, samples_per_lane, window_chunks, .. } = options;
    EpochPlan::new(dataset.chunks(), *seed, epoch, *total_lanes, *samples_per_lane, *window_chunks)
        .map_err(|source| DataError::Plan { url: dataset.url().to_owned(), source })
}

/// The walk over the steps, on a thread of its own.
pub(crate) struct Feeder {
    dataset: Arc<Dataset>,
    orders: Orders,
    ahead: VecDeque<Wanted>,
    horizon: Horizon,
    shelf: Shelf,
    stats: Arc<LoaderStats>,
    runtime: Runtime,
    /// Ends when nobody wants steps any more.
    ended: oneshot::Receiver<()>,
    /// Memory of steps that were decoded.
    spent: Receiver<Vec<u8>>,
    room: Vec<u8>,
    sent: Option<Instant>,
    between_steps: Option<Duration>,
}

/// Why there is no step.
enum Stop {
    Failed(DataError),
    Ended,
}

impl From<DataError> for Stop {
    fn from(error: DataError) -> Self {
        Self::Failed(error)
    }
}

impl Feeder {
    pub(crate) fn new(
        orders: Orders,
        stats: Arc<LoaderStats>,
        runtime: Runtime,
        ended: oneshot::Receiver<()>,
        spent: Receiver<Vec<u8>>,
    ) -> Self {
        let dataset = Arc::clone(&orders.options.dataset);
        Self {
            shelf: Shelf::new(dataset.memory_bytes(), Arc::clone(&stats)),
            dataset,
            orders,
            ahead: VecDeque::new(),
            horizon: Horizon::new(),
            stats,
            runtime,
            ended,
            spent,
            room: Vec::new(),
            sent: None,
            between_steps: None,
        }
    }

    /// Sends steps until one fails or nobody takes them.
    pub(crate) fn run(mut self, steps: &Sender<Result<Step, DataError>>) {
        loop {
            let (step, failed) = match self.step() {
                Ok(step) => (Ok(step), false),
                Err(Stop::Failed(error)) => (Err(error), true),
                Err(Stop::Ended) => break,
            };
            if steps.send(step).is_err() || failed {
                break;
            }
            self.took_a_step();
        }
        // Reads that nobody waits for any more are given up, and a disk that hangs holds nobody.
        self.runtime.shutdown_background();
    }

    fn took_a_step(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.sent.replace(now) {
            let newest = now - last;
            let before = self.between_steps.unwrap_or(newest);
            self.between_steps = Some(before.mul_f64(1.0 - NEWEST) + newest.mul_f64(NEWEST));
        }
    }

    /// The next step, with all its bytes.
    fn step(&mut self) -> Result<Step, Stop> {
        // Little by little, so that the first batch need not wait for the plan of many.
        let more = if self.ahead.is_empty() { STEPS_AHEAD_FIRST + 1 } else { 1 + STEPS_MORE };
        for _ in 0..more.min(STEPS_AHEAD + 1 - self.ahead.len()) {
            self.look_ahead()?;
        }
        let Some(Wanted { order, needs }) = self.ahead.pop_front() else { return Err(Stop::Ended) };
        let (number, mut asked) = (order.step, 0);
        self.ask(&needs, number, &mut asked);
        if asked == needs.len() {
            self.ask_ahead();
        }
        let mut step = Step::new(order, self.spent.try_recv().unwrap_or_default());
        for group in needs.chunk_by(|a, b| a.chunk == b.chunk) {
            let chunk = group[0].chunk;
            self.lay(chunk, group, &mut step)?;
            // From here on it may make room for what is needed before its next use.
            self.used(chunk);
            self.ask(&needs, number, &mut asked);
        }
        self.stats.buffer(step.bytes() as u64);
        Ok(step)
    }

    fn look_ahead(&mut self) -> Result<(), DataError> {
        let order = self.orders.next()?;
        let needs = self.dataset.needs(&order.samples)?;
        for group in needs.chunk_by(|a, b| a.chunk == b.chunk) {
            let on_disk = || Outlook { on_disk: self.dataset.is_cached(group[0].chunk), ..Outlook::default() };
            self.horizon.entry(group[0].chunk).or_insert_with(on_disk).steps.push_back(order.step);
        }
        self.ahead.push_back(Wanted { order, needs });
        Ok(())
    }

    /// The first of the steps that need a chunk has it.
    fn used(&mut self, chunk: usize) {
        if let Entry::Occupied(mut outlook) = self.horizon.entry(chunk) {
            outlook.get_mut().steps.pop_front();
            if outlook.get().steps.is_empty() {
                outlook.remove();
            }
        }
    }

    /// Asks for a step's chunks, from the one numbered `asked` on, as far as there is room.
    fn ask(&mut self, needs: &[Need], step: u64, asked: &mut usize) {
        while let Some(need) = needs.get(*asked) {
            if self.is_missing(need.chunk) && !self.start(need.chunk, step) {
                return;
            }
            *asked += 1;
        }
    }

    /// Asks for the chunks of later steps that should be on their way by now, as far as there is room.
    fn ask_ahead(&mut self) {
        let pace = self.dataset.pace().zip(self.between_steps);
        let (mut missing, mut due, mut before) = (Vec::new(), 0, 0);
        for (steps, wanted) in (1..).zip(&self.ahead) {
            for group in wanted.needs.chunk_by(|a, b| a.chunk == b.chunk) {
                let chunk = group[0].chunk;
                if self.shelf.has(chunk) || self.horizon.get(&chunk).is_some_and(|outlook| outlook.on_disk) {
                    continue;
                }
                missing.push((chunk, wanted.order.step));
                before += self.dataset.chunk_bytes(chunk);
                let now = match pace {
                    None => steps <= STEPS_AHEAD_FIRST,
                    Some((pace, between_steps)) => {
                        let takes = pace.latency.as_secs_f64() + before as f64 / pace.bytes_per_second;
                        between_steps.as_secs_f64() * steps as f64 <= EARLY * takes
                    }
                };
                // In the order of need: what is due takes all before it along.
                due = if now { missing.len() } else { due };
            }
        }
        for (chunk, step) in missing.into_iter().take(due) {
            // The same chunk may be missed by several steps.
            if self.is_missing(chunk) && !self.start(chunk, step) {
                return;
            }
        }
    }

    /// Neither in memory, nor on its way, nor in the disk cache.
    fn is_missing(&mut self, chunk: usize) -> bool {
        if self.shelf.has(chunk) {
            return false;
        }
        let on_disk = self.horizon.get(&chunk).is_some_and(|outlook| outlook.on_disk) || self.dataset.is_cached(chunk);
        if let Some(outlook) = self.horizon.get_mut(&chunk) {
            outlook.on_disk = on_disk;
        }
        !on_disk
    }

    /// Starts to read a chunk. `false`: there is no room.
    fn start(&mut self, chunk: usize, step: u64) -> bool {
        let bytes = self.dataset.chunk_bytes(chunk);
        if !self.shelf.make_room(bytes, step, &self.horizon) {
            return false;
        }
        let (dataset, stats) = (Arc::clone(&self.dataset), Arc::clone(&self.stats));
        let read = self.runtime.spawn(async move {
            let start = Instant::now();
            let chunk = dataset.fetch(chunk, &stats).await?;
            stats.spent(Stage::Read, start);
            Ok(chunk)
        });
        self.shelf.start(chunk, bytes, step, read);
        true
    }

    /// Lays the members of a chunk's samples into a step, wherever the chunk is.
    fn lay(&mut self, chunk: usize, group: &[Need], step: &mut Step) -> Result<(), Stop> {
        let number = step.order.step;
        if let Some(bytes) = self.shelf.here(chunk, number) {
            self.stats.kept();
            return Ok(self.copy(group, &Source::Memory(&bytes), step)?);
        }
        let entry = if self.shelf.has(chunk) { None } else { self.dataset.cached(chunk, &self.stats) };
        if let Some(entry) = entry {
            let (start, before) = (Instant::now(), step.bytes());
            match self.copy(group, &Source::Disk(&entry), step) {
                Ok(()) => {
                    self.stats.spent(Stage::Read, start);
                    self.stats.cached(step.bytes() - before);
                    return Ok(());
                }
                Err(DataError::Cache(error)) => self.dataset.discard(chunk, &error, &self.stats),
                Err(error) => return Err(error.into()),
            }
        }
        let bytes = self.obtain(chunk, number)?;
        Ok(self.copy(group, &Source::Memory(&bytes), step)?)
    }

    fn copy(&mut self, group: &[Need], from: &Source<'_>, step: &mut Step) -> Result<(), DataError> {
        for need in group {
            let place = self.dataset.locate(step.order.samples[need.slot])?;
            step.lay(need.slot, &place, from, &mut self.room).map_err(|e| DataError::Cache(e.into()))?;
        }
        Ok(())
    }

    /// A chunk that is on its way, or that is asked for only now, for want of room.
    fn obtain(&mut self, chunk: usize, step: u64) -> Result<Bytes, Stop> {
        while !self.shelf.has(chunk) && !self.start(chunk, step) {
            if !self.shelf.give_up_one(&self.horizon) {
                let other = self.shelf.any_coming().ok_or(DataError::Lost { step })?;
                self.arrive(other, step)?;
            }
        }
        self.arrive(chunk, step)
    }

    fn arrive(&mut self, chunk: usize, step: u64) -> Result<Bytes, Stop> {
        let read = self.shelf.coming(chunk).ok_or(DataError::Lost { step })?;
        let ended = &mut self.ended;
        let done = self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = ended => None,
                done = read => Some(done),
            }
        });
        match done {
            None => Err(Stop::Ended),
            Some(Ok(Ok(bytes))) => {
                self.shelf.came(chunk, bytes.clone());
                // Here, so that a slow disk slows reading, and does not fill memory.
                self.dataset.keep(chunk, &bytes, &self.stats);
                Ok(bytes)
            }
            Some(failed) => {
                self.shelf.lost(chunk);
                // A read that panicked has no error of its own.
                Err(failed.ok().and_then(Result::err).unwrap_or(DataError::Lost { step }).into())
            }
        }
    }
}
