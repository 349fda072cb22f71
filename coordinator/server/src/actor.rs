//! The one task that touches the core and the journal.
//!
//! Events come in over a channel; commands are carried out in order. The journal is written before anything that follows
//! from it is sent. Work on storage runs in tasks of its own and comes back as events.

mod carry;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use r2o_coordinator_core::{Core, Event, Held, NewJob, Refusal, Resume, Session, WorkerInfo};
use r2o_proto::v1::CoordinatorMessage;
use r2o_storage::Store;
use r2o_storage::journal::{AppendError, Journal};
use r2o_telemetry::chain;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::admit::{Admitted, Refused, difference};
use crate::board::{Board, Entry};
use crate::clock::Clock;
use crate::record::Record;
use crate::recorder::Recorder;
use crate::rendezvous::Rooms;

/// How often a submission tries to write its journal record before it is refused.
const SUBMIT_TRIES: u32 = 3;
/// How often the actor sees that it is running.
const PULSE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What others ask of the actor.
pub(crate) enum Message {
    /// Something for the core.
    Event(Event),
    /// A worker's stream.
    Join { worker: WorkerInfo, held: Option<Held>, line: Line, reply: oneshot::Sender<Session> },
    /// A job that passed all checks but those of names.
    Submit { admitted: Box<Admitted>, reply: oneshot::Sender<Result<Submitted, Status>> },
    /// A checkpoint now.
    Checkpoint { job: String, reply: oneshot::Sender<Result<u64, Refusal>> },
    /// Write what is left, and stop.
    Stop,
}

/// The entry of a submitted job, and whether it is new.
pub(crate) struct Submitted {
    pub(crate) entry: Arc<Entry>,
    pub(crate) created: bool,
}

/// The coordinator's side of a worker's stream.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) outbox: mpsc::UnboundedSender<Result<CoordinatorMessage, Status>>,
    /// Ends the task that reads the stream.
    pub(crate) end: CancellationToken,
}

/// This coordinator leads no more.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

/// The way to the actor.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox(pub(crate) mpsc::UnboundedSender<Message>);

impl Mailbox {
    pub(crate) fn send(&self, message: Message) {
        // An actor that is gone means that the process stops.
        let _stopping = self.0.send(message);
    }

    pub(crate) fn event(&self, event: Event) {
        self.send(Message::Event(event));
    }
}

pub(crate) struct Actor {
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) state: Store,
    pub(crate) board: Board,
    pub(crate) rooms: Rooms,
    pub(crate) mailbox: Mailbox,
    pub(crate) flush: Duration,
    pub(crate) stop: CancellationToken,
    pub(crate) lines: HashMap<Session, Line>,
    pub(crate) recorders: HashMap<String, Recorder>,
    pub(crate) requests: HashMap<u64, oneshot::Sender<Result<u64, Refusal>>>,
    pub(crate) last_number: u64,
}

impl Actor {
    /// Serves until it is told to stop, or leads no more.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) -> Result<(), Lost> {
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beat = self.clock.now();
        loop {
            // Messages that are there count before the clock: a lease must not end because the coordinator was slow.
            let deadline = self.core.next_deadline().map(|at| self.clock.instant(at));
            let tick = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                biased;
                message = inbox.recv() => Some(message.unwrap_or(Message::Stop)),
                () = tick => Some(Message::Event(Event::Tick)),
                _ = pulse.tick() => None,
            };
            // A process that was stopped finds its leases over, and their renewals still in its sockets.
            let now = self.clock.now();
            let away = now - std::mem::replace(&mut beat, now);
            if away > self.core.lease_ms() / 2 {
                tracing::warn!("was not running for {away} ms: all leases begin anew");
                self.feed(Event::WasAway).await?;
            }
            match message {
                Some(Message::Event(event)) => self.feed(event).await?,
                Some(Message::Join { worker, held, line, reply }) => self.join(worker, held, line, reply).await?,
                Some(Message::Submit { admitted, reply }) => {
                    let answer = self.submit(*admitted).await?;
                    let _gone = reply.send(answer);
                }
                Some(Message::Checkpoint { job, reply }) => {
                    self.last_number += 1;
                    let request = self.last_number;
                    self.requests.insert(request, reply);
                    self.feed(Event::CheckpointRequested { job, request }).await?;
                }
                Some(Message::Stop) => {
                    self.finish().await;
                    return Ok(());
                }
                None => {}
            }
        }
    }

    /// Feeds the core and carries out what it decides.
    pub(crate) async fn feed(&mut self, event: Event) -> Result<(), Lost> {
        let heard = matches!(event, Event::WorkerHeard { .. } | Event::Tick);
        if let Event::WorkerLeft { session, .. } = event {
            self.hang_up(session);
        }
        let commands = self.core.handle(self.clock.now(), event);
        debug_assert_eq!(self.core.check_invariants(), Ok(()));
        if !heard || !commands.is_empty() {
            self.board.set_workers(self.core.workers());
        }
        for command in commands {
            self.carry_out(command).await?;
        }
        Ok(())
    }

    async fn join(
        &mut self,
        worker: WorkerInfo,
        held: Option<Held>,
        line: Line,
        reply: oneshot::Sender<Session>,
    ) -> Result<(), Lost> {
        self.last_number += 1;
        let session = self.last_number;
        tracing::info!(worker = worker.name, device = worker.device, address = worker.address, "worker joined");
        let _unsent = line.outbox.send(Ok(crate::wire::welcome(self.core.lease_ms())));
        self.lines.insert(session, line);
        let _gone = reply.send(session);
        self.feed(Event::WorkerJoined { session, worker, held }).await
    }

    async fn submit(&mut self, admitted: Admitted) -> Result<Result<Submitted, Status>, Lost> {
        let name = admitted.job.metadata.name.clone();
        match self.existing(&admitted) {
            Ok(Some(entry)) => return Ok(Ok(Submitted { entry, created: false })),
            Ok(None) => {}
            Err(refused) => return Ok(Err(refused.into())),
        }
        let record = Record::JobSubmitted {
            job: Box::new(admitted.job.clone()),
            steps_per_epoch: admitted.steps_per_epoch,
            last_generation: admitted.last_generation,
            unix_ms: self.clock.now(),
        };
        let order = self.journal.next();
        if let Err(reason) = self.try_record(&record, SUBMIT_TRIES).await? {
            let message = format!("job {name} was not accepted, because the journal cannot be written: {reason}");
            return Ok(Err(Status::internal(message)));
        }
        let new = NewJob {
            job: admitted.job,
            steps_per_epoch: admitted.steps_per_epoch,
            order,
            submitted_at: self.clock.now(),
            last_generation: admitted.last_generation,
            lineage: 0,
            last_workers: Vec::new(),
            resume: admitted.resume,
        };
        let message =
            format!("{} steps of {} an epoch", new.steps_per_epoch * new.job.spec.epochs, new.steps_per_epoch);
        let epochs = new.job.spec.epochs;
        let commands = self.core.handle(self.clock.now(), Event::JobSubmitted(Box::new(new)));
        let Some(entry) = self.add_entry(&name, epochs, admitted.store, admitted.events) else {
            return Ok(Err(Status::internal(format!("job {name} was lost"))));
        };
        entry.announce("Submitted", message, false);
        for warning in admitted.warnings {
            entry.announce("CheckpointDamaged", warning, true);
        }
        for command in commands {
            self.carry_out(command).await?;
        }
        Ok(Ok(Submitted { entry, created: true }))
    }

    /// The job of this name when it is the same one; an error when it is another that has not ended.
    fn existing(&self, admitted: &Admitted) -> Result<Option<Arc<Entry>>, Refused> {
        let (name, url) = (&admitted.job.metadata.name, admitted.store.url());
        let busy = |e: &&Arc<Entry>| e.store.url() == url && !e.view().state.has_ended();
        if let Some(other) = self.board.entries().iter().find(busy).filter(|e| e.view().name != *name) {
            let message = format!("spec.checkpoint.url: {url} is in use by job {}", other.view().name);
            return Err(Refused::InTheWay(message));
        }
        let Some(entry) = self.board.get(name) else { return Ok(None) };
        let view = entry.view();
        let old: serde_json::Value = serde_json::from_str(&view.spec).unwrap_or_default();
        let new = serde_json::to_value(&admitted.job).unwrap_or_default();
        let succeeded = view.state == r2o_coordinator_core::JobState::Succeeded;
        match (view.state.has_ended(), old == new) {
            (false, true) => Ok(Some(entry)),
            (true, true) if succeeded && matches!(admitted.resume, Resume::Checkpoint(s) if s == view.steps) => {
                Ok(Some(entry))
            }
            (true, _) => Ok(None),
            (false, false) => {
                let field = difference(&old, &new).map_or_else(|| "spec".to_owned(), |(path, _, _)| path);
                Err(Refused::Taken { name: name.clone(), field })
            }
        }
    }

    /// Shows a job that the core has just taken.
    pub(crate) fn add_entry(
        &mut self,
        name: &str,
        epochs: u64,
        store: Store,
        events: Vec<r2o_storage::run::EventRecord>,
    ) -> Option<Arc<Entry>> {
        let view = self.core.job(name)?;
        let ended = view.state.has_ended();
        let entry = Entry::new(view.clone(), epochs, store.clone(), events, self.clock);
        self.board.insert(name, Arc::clone(&entry));
        if !ended {
            let recorder = Recorder::start(Arc::clone(&entry), store, self.flush);
            self.recorders.insert(name.to_owned(), recorder);
        }
        entry.update(view);
        Some(entry)
    }

    /// Writes a record, however long the journal's storage fails: nothing that follows from it may be seen before.
    pub(crate) async fn record(&mut self, record: &Record) -> Result<(), Lost> {
        loop {
            match self.try_record(record, u32::MAX).await? {
                Ok(()) => return Ok(()),
                Err(reason) => tracing::warn!("the journal is not written: {reason}"),
            }
        }
    }

    async fn try_record(&mut self, record: &Record, tries: u32) -> Result<Result<(), String>, Lost> {
        let bytes = match serde_json::to_vec(record) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut pause = RETRY;
        let mut tried = 0;
        loop {
            match self.journal.append(self.journal.next(), &bytes).await {
                Ok(()) => return Ok(Ok(())),
                Err(error @ AppendError::LostLeadership { .. }) => return Err(Lost(error.to_string())),
                Err(error) => {
                    tried += 1;
                    let reason = chain(&error).to_string();
                    tracing::warn!("journal record {} is not written, trying again: {reason}", self.journal.next());
                    if tried >= tries {
                        return Ok(Err(reason));
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                () = self.stop.cancelled() => return Err(Lost("told to stop while the journal could not be written".to_owned())),
            }
        }
    }

    /// Writes history and events of all jobs.
    async fn finish(&mut self) {
        for (job, recorder) in self.recorders.drain() {
            if let Err(reason) = recorder.flush().await {
                tracing::warn!(job, "history is not complete: {reason}");
            }
        }
    }
}
