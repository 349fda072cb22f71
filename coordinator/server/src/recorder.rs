//! Writes a job's history, ledger and events beside its checkpoints, in the background.
//!
//! Storage that fails costs nothing but a warning: what was not written stays in memory and is tried again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use r2o_storage::history::{self, StepRecord};
use r2o_storage::ledger::{self, Segment};
use r2o_storage::{Store, run};
use r2o_telemetry::{TaskKind, chain};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::board::Entry;
use crate::metrics::Storage;

/// A segment of history is written again with each flush until it has so many lanes' records.
const SEGMENT_LANES: usize = 16_384;
/// What a step's own numbers take in a segment, in lanes' records.
const STEP_LANES: usize = 8;
/// Steps of history that are kept while the storage fails.
const KEPT_STEPS: usize = 200_000;
/// Segments of the ledger that are kept while the storage fails: some 40 MB.
const KEPT_SEGMENTS: usize = 1_000;

enum Order {
    Step(Box<StepRecord>),
    Flush(oneshot::Sender<Result<(), String>>),
}

/// The sending half; the task ends when the last one is dropped and all is written.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(mpsc::UnboundedSender<Order>);

impl Recorder {
    /// Starts recording a job into its store.
    pub(crate) fn start(entry: Arc<Entry>, store: Store, flush: Duration) -> Self {
        let (sender, orders) = mpsc::unbounded_channel();
        let task = Task {
            entry,
            store,
            segment: Vec::new(),
            full: VecDeque::new(),
            dirty: false,
            ledger: Ledger::default(),
            events: 0,
            job: false,
            failing: false,
        };
        let _runs_on = r2o_telemetry::spawn("recorder", TaskKind::Work, task.run(orders, flush));
        Self(sender)
    }

    pub(crate) fn step(&self, record: StepRecord) {
        let _ended = self.0.send(Order::Step(Box::new(record)));
    }

    /// Writes everything that is there now, in the background.
    pub(crate) fn flush_soon(&self) {
        let (done, _nobody_waits) = oneshot::channel();
        let _ended = self.0.send(Order::Flush(done));
    }

    /// Writes everything that is there now.
    pub(crate) async fn flush(&self) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        let _ended = self.0.send(Order::Flush(done));
        answer.await.unwrap_or(Ok(()))
    }
}

struct Task {
    entry: Arc<Entry>,
    store: Store,
    /// The segment that still grows.
    segment: Vec<StepRecord>,
    /// Segments that do not grow any more and are not written.
    full: VecDeque<Vec<StepRecord>>,
    /// Whether the growing segment has records that are not written.
    dirty: bool,
    ledger: Ledger,
    /// Events that are written.
    events: usize,
    /// Whether the spec is written.
    job: bool,
    failing: bool,
}

/// The part of the ledger that is not written, or still grows.
#[derive(Default)]
struct Ledger {
    growing: Segment,
    full: VecDeque<Segment>,
    dirty: bool,
}

impl Ledger {
    fn add(&mut self, record: &StepRecord, unix_ms: i64) {
        if !self.growing.add(record, unix_ms) {
            let full = std::mem::take(&mut self.growing);
            if self.dirty {
                self.full.push_back(full);
            }
            if self.full.len() > KEPT_SEGMENTS {
                self.full.pop_front();
            }
            // An empty segment takes any step.
            let _taken = self.growing.add(record, unix_ms);
        }
        self.dirty = true;
    }

    async fn write(&mut self, store: &Store) -> Result<(), String> {
        while let Some(segment) = self.full.front() {
            ledger::write_segment(store, segment.ranges()).await.map_err(|e| chain(&e).to_string())?;
            self.full.pop_front();
        }
        if self.dirty {
            ledger::write_segment(store, self.growing.ranges()).await.map_err(|e| chain(&e).to_string())?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl Task {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, flush: Duration) {
        let mut beat = tokio::time::interval(flush);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Step(record)) => self.add(*record),
                    Some(Order::Flush(done)) => _ = done.send(self.flush().await),
                    None => {
                        let _said = self.flush().await;
                        return;
                    }
                },
                _ = beat.tick() => {
                    let _said = self.flush().await;
                }
            }
        }
    }

    fn add(&mut self, mut record: StepRecord) {
        self.ledger.add(&record, self.entry.unix_ms());
        if !record.is_audited() {
            record.lanes.clear();
        }
        let full = self.segment.iter().map(|r| r.lanes.len() + STEP_LANES).sum::<usize>() >= SEGMENT_LANES;
        let follows =
            self.segment.last().is_none_or(|l| l.generation == record.generation && l.step + 1 == record.step);
        if full || !follows {
            let segment = std::mem::take(&mut self.segment);
            if self.dirty {
                self.full.push_back(segment);
            }
            // A step of thousands of lanes takes the room of many.
            let room = |record: &StepRecord| record.lanes.len().div_ceil(16).max(1);
            let kept = |full: &VecDeque<Vec<StepRecord>>| full.iter().flatten().map(room).sum::<usize>();
            while kept(&self.full) > KEPT_STEPS {
                self.full.pop_front();
            }
        }
        self.segment.push(record);
        self.dirty = true;
    }

    async fn flush(&mut self) -> Result<(), String> {
        let result = self.write().await;
        if result.is_err() {
            Storage::History.tried_again(self.entry.metrics.all());
        }
        match &result {
            Ok(()) => self.failing = false,
            Err(reason) if !self.failing => {
                self.failing = true;
                let message = format!("history and ledger are not written for now, training goes on: {reason}");
                self.entry.announce("HistoryNotWritten", message, true);
            }
            Err(_) => {}
        }
        result
    }

    async fn write(&mut self) -> Result<(), String> {
        if !self.job {
            let spec = serde_json::from_str(&self.entry.spec()).map_err(|e| e.to_string())?;
            run::write_job(&self.store, &spec).await.map_err(|e| chain(&e).to_string())?;
            self.job = true;
        }
        while let Some(segment) = self.full.front() {
            self.write_segment(segment).await?;
            self.full.pop_front();
        }
        if self.dirty {
            self.write_segment(&self.segment).await?;
            self.dirty = false;
        }
        self.ledger.write(&self.store).await?;
        let events = self.entry.events.all();
        if self.events != events.len() {
            run::write_events(&self.store, &events).await.map_err(|e| chain(&e).to_string())?;
            self.events = events.len();
        }
        Ok(())
    }

    async fn write_segment(&self, segment: &[StepRecord]) -> Result<(), String> {
        let Some(first) = segment.first() else { return Ok(()) };
        history::append_segment(&self.store, first.generation, segment).await.map_err(|e| chain(&e).to_string())
    }
}
