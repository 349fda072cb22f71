//! One arm per command.

use std::future::Future;

use futures::{StreamExt, stream};
use r2o_coordinator_core::{Command, CommittedStep, Event, NewJob, Notice, Record, Session};
use r2o_proto::v1::coordinator_message::Kind;
use r2o_proto::v1::{Prepare, Refused, Release, TakeCheckpoint};
use r2o_storage::Store;
use r2o_telemetry::TaskKind;
use r2o_telemetry::otlp::place;

use super::{Actor, Lost};
use crate::board::Past;
use crate::checkpoints::{self, Commit};
use crate::scribe::Purpose;
use crate::wire;

/// Jobs whose storage is read at one time when the coordinator starts.
const READ_AT_ONCE: usize = 16;

impl Actor {
    /// Does what the core decided, or keeps it until the journal has what it follows from.
    pub(super) async fn carry_out(&mut self, command: Command) -> Result<(), Lost> {
        let Some(command) = self.gate.pass(command) else { return Ok(()) };
        if let Some(record) = Record::of(&command, self.clock.now()) {
            let gate = command.job().filter(|_| command.is_gate());
            self.scribe.write(record, gate.map_or(Purpose::Note, |job| Purpose::Gate(job.to_owned())));
        }
        match command {
            Command::RecordGeneration { job, generation, .. } => {
                self.trace_opening(&job, generation);
                // Members that knew of the last steps may be gone with the old generation.
                if let Some(recorder) = self.recorders.get(&job) {
                    recorder.flush_soon();
                }
            }
            Command::RecordEnd { job, .. } => {
                self.recorders.remove(&job);
                self.traces.forget(&job);
            }
            Command::RecordPaused { .. }
            | Command::RecordResumed { .. }
            | Command::RecordRequeued { .. }
            | Command::RecordCheckpoint { .. } => {}
            Command::OpenRendezvous { job, generation } => self.rooms.open(&job, generation),
            Command::CloseRendezvous { job } => self.rooms.close(&job),
            Command::Assign { session, assignment } => {
                let traceparent = self.traces.forming(&assignment.job);
                self.send(session, Kind::Assignment(wire::assignment(&assignment, traceparent)));
            }
            Command::Grant { sessions, ticket } => {
                if let Some(entry) = self.board.get(&ticket.job) {
                    entry.metrics.granted(ticket.step + 1);
                }
                let traceparent = self.traces.granted(&ticket);
                self.send_all(&sessions, &Kind::Ticket(wire::ticket(&ticket, traceparent)));
            }
            Command::TakeCheckpoint { sessions, job, generation, step } => {
                let traceparent = self.traces.saving(&job, generation, step);
                let take = TakeCheckpoint { job, generation, step, traceparent };
                self.send_all(&sessions, &Kind::TakeCheckpoint(take));
            }
            Command::Release { session, job, generation, reason, keep } => {
                self.send(session, Kind::Release(Release { job, generation, reason, keep }));
            }
            Command::Prepare { session, job, spec } => {
                self.send(session, Kind::Prepare(Prepare { job, spec: spec.to_string() }));
            }
            Command::Disconnect { session, reason, refuse } => self.disconnect(session, reason, refuse),
            Command::CommitStep(step) => self.commit_step(*step),
            Command::CommitCheckpoint { job, generation, step, epoch, tensors } => {
                let worker_version = self.version_of_worker(&job);
                let unix_ms = self.clock.unix_ms();
                if let Some(entry) = self.board.get(&job) {
                    let recorder = self.recorders.get(&job).cloned();
                    let trace = self.traces.checkpoint(&job);
                    let commit = Commit { job, generation, step, epoch, tensors, worker_version, unix_ms, trace };
                    self.in_background("checkpoint", checkpoints::commit(entry, recorder, commit));
                }
            }
            Command::LocateCheckpoint { job } => {
                if let Some(entry) = self.board.get(&job) {
                    self.in_background("locate", checkpoints::locate(entry, job));
                }
            }
            Command::Finalize { job, .. } => {
                if let Some(entry) = self.board.get(&job) {
                    let recorder = self.recorders.get(&job).cloned();
                    self.in_background("finalize", checkpoints::finalize(entry, recorder, job));
                }
            }
            Command::AnswerCheckpoint { request, answer } => {
                if let Some(reply) = self.requests.remove(&request) {
                    let _gone = reply.send(answer);
                }
            }
            Command::Announce { job, notice } => self.announce(&job, notice),
            Command::JobChanged { job } => {
                if let (Some(entry), Some(view)) = (self.board.get(&job), self.core.job(&job)) {
                    entry.update(view);
                }
            }
        }
        Ok(())
    }

    /// Adds a line to the job's events. Some of them say that what is traced has ended.
    fn announce(&mut self, job: &str, notice: Notice) {
        let Notice { reason, message, warning } = notice;
        let place = place(self.traces.of_event(job, reason));
        match reason {
            "Training" => self.traces.ready(job),
            "GenerationEnded" => self.traces.ended(job, &message),
            "CheckpointCommitted" => self.traces.saved(job, None),
            "CheckpointFailed" => self.traces.saved(job, Some(&message)),
            _ => {}
        }
        if let Some(entry) = self.board.get(job) {
            place.in_scope(|| entry.announce(reason, message, warning));
        }
    }

    fn trace_opening(&mut self, job: &str, generation: u64) {
        if !self.traces.are_wanted() {
            return;
        }
        if let (Some(entry), Some(view)) = (self.board.get(job), self.core.job(job)) {
            self.traces.opened(job, view.submitted_at, generation, entry.metrics.opening());
        }
    }

    fn commit_step(&mut self, step: CommittedStep) {
        self.traces.committed(&step);
        let job = &step.ticket.job;
        if let Some(entry) = self.board.get(job) {
            entry.step(&step);
        }
        if let Some(recorder) = self.recorders.get(job) {
            recorder.step(wire::step_record(step));
        }
    }

    fn send(&self, session: Session, kind: Kind) {
        if let Some(line) = self.lines.get(&session) {
            // A stream that broke is reported by the task that reads it.
            let _broken = line.outbox.send(Ok(wire::message(kind)));
        }
    }

    fn send_all(&self, sessions: &[Session], kind: &Kind) {
        sessions.iter().for_each(|session| self.send(*session, kind.clone()));
    }

    fn disconnect(&mut self, session: Session, reason: String, refuse: bool) {
        tracing::warn!(session, "closing a worker's stream: {reason}");
        if refuse {
            self.send(session, Kind::Refused(Refused { reason }));
        } else {
            self.metrics.leases_lost.inc(&[]);
        }
        self.hang_up(session);
    }

    /// Forgets a stream; both of its halves end.
    pub(crate) fn hang_up(&mut self, session: Session) {
        if let Some(line) = self.lines.remove(&session) {
            line.end.cancel();
        }
    }

    fn version_of_worker(&self, job: &str) -> String {
        let workers = self.core.workers();
        workers.iter().find(|w| w.job.as_deref() == Some(job)).map(|w| w.info.version.clone()).unwrap_or_default()
    }

    fn in_background(&self, name: &'static str, work: impl Future<Output = Event> + Send + 'static) {
        let mailbox = self.mailbox.clone();
        let _runs_on = r2o_telemetry::spawn(name, TaskKind::Work, async move { mailbox.event(work.await) });
    }

    /// Takes over what the journal says.
    pub(crate) async fn restore(&mut self, jobs: Vec<NewJob>) -> Result<(), Lost> {
        let state = self.state.clone();
        let found = stream::iter(jobs).map(|new| Restored::find(&state, new)).buffered(READ_AT_ONCE);
        for Restored { new, store, unusable, past } in found.collect::<Vec<_>>().await {
            let (job, epochs) = (new.job.metadata.name.clone(), new.job.spec.epochs);
            let commands = self.core.handle(self.clock.now(), Event::JobSubmitted(Box::new(new)));
            let entry = self.add_entry(&job, epochs, store, past);
            if let Some(entry) = entry.filter(|e| !e.view().state.has_ended()) {
                entry.announce("CoordinatorRestarted", "the coordinator has restarted".to_owned(), false);
            }
            if let Some(reason) = unusable {
                self.feed(Event::CheckpointsUnreadable { job, reason }).await?;
                continue;
            }
            for command in commands {
                self.carry_out(command).await?;
            }
        }
        Ok(())
    }
}

/// A job of the journal, and what lies in its storage.
struct Restored {
    new: NewJob,
    store: Store,
    /// Why its own place cannot be opened.
    unusable: Option<String>,
    past: Past,
}

impl Restored {
    async fn find(state: &Store, new: NewJob) -> Self {
        let url = new.job.spec.checkpoint.url.as_deref().unwrap_or_default();
        let (store, unusable) = match r2o_storage::open(url) {
            Ok(store) => (store, None),
            // An empty folder in its place would start the job over: it fails instead, and says why.
            Err(error) => {
                let place = state.child(&format!("jobs/{}", new.job.metadata.name));
                (place, Some(r2o_telemetry::chain(&error).to_string()))
            }
        };
        let past = Past::read(&store, new.resume.committed()).await;
        Self { new, store, unusable, past }
    }
}
