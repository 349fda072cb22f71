//! The one task that touches the core and the journal.
//!
//! Events come in over a channel; commands are carried out in order. The journal is written before anything that follows
//! from it is sent. Work on storage runs in tasks of its own and comes back as events.

mod carry;
mod submit;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use r2o_coordinator_core::{Core, Event, Gate, Held, Refusal, Session, WorkerInfo, WorkerView};
use r2o_proto::v1::{CoordinatorMessage, JobLog};
use r2o_storage::Store;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::admit::Admitted;
use crate::board::{Board, Entry, Past};
use crate::clock::Clock;
use crate::lead::Lead;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::rendezvous::Rooms;
use crate::scribe::{Purpose, Scribe};
use crate::traces::Traces;

/// How often the actor sees that it is running.
const PULSE: Duration = Duration::from_millis(100);
/// Workers up to which the core is checked after every event in a debug build.
const CHECKED_WORKERS: usize = 16;
/// How long the end waits for the journal.
const PATIENCE: Duration = Duration::from_secs(5);

/// What others ask of the actor.
pub(crate) enum Message {
    /// Something for the core.
    Event(Event),
    /// A worker's stream.
    Join { worker: WorkerInfo, held: Option<Held>, line: Line, reply: oneshot::Sender<Session> },
    /// A job that passed all checks but those of names.
    Submit { admitted: Box<Admitted>, reply: oneshot::Sender<Result<Submitted, Status>> },
    /// A record is in the journal.
    Written { number: u64, purpose: Purpose },
    /// A record is not in the journal yet: the storage fails. It is tried again.
    NotWritten { reason: String },
    /// Another coordinator leads.
    Lost(Lost),
    /// Who the workers are. They are asked for seldom and change with nearly every event, so nobody keeps a copy.
    Workers { reply: oneshot::Sender<Vec<WorkerView>> },
    /// A worker's log line that names no job.
    Log { session: Session, line: JobLog },
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
#[derive(Debug, Clone)]
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
    pub(crate) lead: Lead,
    pub(crate) scribe: Scribe,
    /// What jobs are to do once their records are in the journal.
    pub(crate) gate: Gate,
    /// Submissions in order; the first one is being written.
    pub(crate) submissions: VecDeque<submit::Submission>,
    pub(crate) state: Store,
    pub(crate) board: Board,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
    pub(crate) rooms: Rooms,
    pub(crate) mailbox: Mailbox,
    pub(crate) flush: Duration,
    pub(crate) lines: HashMap<Session, Line>,
    pub(crate) recorders: HashMap<String, Recorder>,
    pub(crate) requests: HashMap<u64, oneshot::Sender<Result<u64, Refusal>>>,
    pub(crate) last_number: u64,
    /// Events since the core was last checked.
    pub(crate) unchecked: usize,
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
                // Another coordinator may have taken over meanwhile: nothing is granted before that is known.
                self.lead.confirm().await.map_err(Lost)?;
                tracing::warn!("was not running for {away} ms: all leases begin anew");
                self.feed(Event::WasAway).await?;
            }
            match message {
                Some(Message::Event(event)) => self.feed(event).await?,
                Some(Message::Join { worker, held, line, reply }) => self.join(worker, held, line, reply).await?,
                Some(Message::Submit { admitted, reply }) => self.submit(admitted, reply),
                Some(Message::Written { number, purpose }) => self.written(number, purpose).await?,
                Some(Message::NotWritten { reason }) => self.not_written(&reason),
                Some(Message::Lost(lost)) => return Err(lost),
                Some(Message::Workers { reply }) => {
                    let _gone = reply.send(self.core.workers());
                }
                Some(Message::Log { session, line }) => {
                    if let Some(entry) = self.core.job_of(session).and_then(|job| self.board.get(job)) {
                        entry.logs.push(line);
                    }
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
        if let Event::WorkerLeft { session, .. } = event {
            self.hang_up(session);
        }
        let commands = self.core.handle(self.clock.now(), event);
        debug_assert_eq!(self.check_invariants(), Ok(()));
        for command in commands {
            self.carry_out(command).await?;
        }
        Ok(())
    }

    /// Checks the core after every event; of a large fleet after some of them, since each look is at all workers.
    fn check_invariants(&mut self) -> Result<(), String> {
        self.unchecked += 1;
        if self.unchecked <= self.lines.len() / CHECKED_WORKERS {
            return Ok(());
        }
        self.unchecked = 0;
        self.core.check_invariants()
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

    /// Shows a job that the core has just taken.
    pub(crate) fn add_entry(&mut self, name: &str, epochs: u64, store: Store, past: Past) -> Option<Arc<Entry>> {
        let view = self.core.job(name)?;
        let store = store.fenced(self.lead.fence());
        let ended = view.state.has_ended();
        let entry = Entry::new(view.clone(), epochs, store.clone(), past, self.clock, &self.metrics);
        self.board.insert(name, Arc::clone(&entry));
        if !ended {
            let recorder = Recorder::start(Arc::clone(&entry), store, self.flush);
            self.recorders.insert(name.to_owned(), recorder);
        }
        entry.update(view);
        Some(entry)
    }

    /// A record is in the journal: what waited for it is done.
    async fn written(&mut self, number: u64, purpose: Purpose) -> Result<(), Lost> {
        match purpose {
            Purpose::Note => {}
            Purpose::Submission => self.accept(number).await?,
            Purpose::Gate(job) => {
                if let Some(entry) = self.board.get(&job) {
                    entry.set_held_up(None);
                }
                for command in self.gate.open(&job) {
                    self.carry_out(command).await?;
                }
            }
        }
        Ok(())
    }

    /// The storage fails: whatever waits for the journal says so.
    fn not_written(&mut self, reason: &str) {
        self.tell_submitters(reason);
        for entry in self.gate.waiting().filter_map(|job| self.board.get(job)) {
            entry.set_held_up(Some(reason.to_owned()));
        }
    }

    /// Writes history and events of all jobs.
    async fn finish(mut self) {
        for (job, recorder) in self.recorders.drain() {
            if let Err(reason) = recorder.flush().await {
                tracing::warn!(job, "history is not complete: {reason}");
            }
        }
        self.scribe.finish(PATIENCE).await;
    }
}
