//! One arm per command.

use std::future::Future;

use r2o_coordinator_core::{Command, CommittedStep, Event, Notice, Record, Session};
use r2o_proto::v1::coordinator_message::Kind;
use r2o_proto::v1::{Prepare, Refused, Release, TakeCheckpoint};
use r2o_telemetry::TaskKind;
use r2o_telemetry::otlp::place;
use r2o_types::TrainJob;

use super::{Actor, Lost};
use crate::board::Past;
use crate::checkpoints::{self, Commit};
use crate::scribe::Purpose;
use crate::wire;

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
    pub(crate) async fn restore(&mut self, jobs: Vec<r2o_coordinator_core::NewJob>) -> Result<(), Lost> {
        for new in jobs {
            let job: TrainJob = new.job.clone();
            let url = job.spec.checkpoint.url.clone().unwrap_or_default();
            let (store, unusable) = match r2o_storage::open(&url) {
                Ok(store) => (store, None),
                // An empty folder in its place would start the job over: it fails instead, and says why.
                Err(error) => {
                    let place = self.state.child(&format!("jobs/{}", job.metadata.name));
                    (place, Some(r2o_telemetry::chain(&error).to_string()))
                }
            };
            let commands = self.core.handle(self.clock.now(), Event::JobSubmitted(Box::new(new)));
            let committed = self.core.job(&job.metadata.name).map_or(0, |view| view.committed);
            let past = Past::read(&store, committed).await;
            let entry = self.add_entry(&job.metadata.name, job.spec.epochs, store, past);
            if let Some(entry) = entry.filter(|e| !e.view().state.has_ended()) {
                entry.announce("CoordinatorRestarted", "the coordinator has restarted".to_owned(), false);
            }
            if let Some(reason) = unusable {
                let job = job.metadata.name;
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
