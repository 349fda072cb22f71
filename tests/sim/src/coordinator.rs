//! The coordinator's shell, as coordinator/server is one: the core, the gate, the journal's task, a lease on the lead.

mod boot;
mod carry;
mod storing;

use std::collections::{BTreeMap, VecDeque};

use r2o_coordinator_core::{Core, Event, Fold, Gate, Record, Session};
use r2o_worker_core::Failure;

use crate::happening::{Happening, Op, Process, StreamId, Up, Wish};
use crate::options::{Plant, Promise};
use crate::trace::Actor;
use crate::world::{MS, World};

/// What a record is written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What this job is to do next waits for it.
    Gate(String),
    /// Nothing waits.
    Note,
    /// A job is to be accepted.
    Submission,
    /// Those before it are to be deleted.
    Snapshot,
}

/// A job that passed the checks, and where it goes on.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) job: usize,
    pub(crate) newest: Option<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) seat: usize,
    /// Milliseconds of its clock at virtual time 0.
    pub(crate) ahead_ms: u64,
    pub(crate) core: Core,
    pub(crate) gate: Gate,
    /// Records that are to be written, in order; the first one is on its way if `writing`.
    pub(crate) records: VecDeque<(Record, Purpose)>,
    pub(crate) writing: bool,
    pub(crate) pause_ms: u64,
    pub(crate) next_record: u64,
    pub(crate) fold: Fold,
    pub(crate) submissions: VecDeque<Submission>,
    pub(crate) lines: BTreeMap<Session, StreamId>,
    pub(crate) rooms: BTreeMap<String, u64>,
    /// Jobs whose storage is being searched.
    pub(crate) locating: BTreeMap<String, u64>,
    pub(crate) requests: BTreeMap<u64, String>,
    pub(crate) last_number: u64,
    pub(crate) lease: Option<u64>,
    pub(crate) serving: bool,
    pub(crate) stopped_until: u64,
    /// Since when it was stopped, until it has noticed.
    pub(crate) away_since: Option<u64>,
    /// When the next tick is on its way.
    pub(crate) tick_at: Option<u64>,
}

impl Coordinator {
    pub(crate) fn clock(&self, now: u64) -> u64 {
        self.ahead_ms + now / MS
    }
}

impl World {
    /// A process that was stopped finds its leases over, and their renewals still in its sockets.
    pub(crate) fn notice_away(&mut self, id: Process) {
        let Some(coordinator) = self.coordinators.get_mut(&id).filter(|c| c.serving) else { return };
        if let Some(since) = coordinator.away_since.take() {
            let away = (self.now - since) / MS;
            if away > coordinator.core.lease_ms() / 2 {
                self.say(Actor::Coordinator(id), "was away", [away, 0], || format!("for {away} ms"));
                self.feed_core(id, Event::WasAway);
            }
        }
    }

    /// Feeds a coordinator's core and carries out what it decides.
    pub(crate) fn feed(&mut self, id: Process, event: Event) {
        self.notice_away(id);
        if self.coordinators.get(&id).is_none_or(|c| !c.serving) {
            return;
        }
        self.feed_core(id, event);
        self.schedule_tick(id);
    }

    fn feed_core(&mut self, id: Process, event: Event) {
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        if let Event::WorkerLeft { session, .. } = event {
            coordinator.lines.remove(&session).into_iter().for_each(|stream| self.close_by_coordinator(stream));
        }
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let commands = coordinator.core.handle(coordinator.clock(self.now), event);
        let checked = coordinator.core.check_invariants();
        if let Err(broken) = checked {
            self.violate(Promise::Core, format!("coordinator {id}: {broken}"));
        }
        let looks = !commands.is_empty();
        for command in &commands {
            if let r2o_coordinator_core::Command::Assign { assignment, .. } = command
                && assignment.rank == 0
            {
                self.decided(id, assignment);
            }
        }
        for command in commands {
            self.carry_out(id, command);
        }
        if looks {
            self.watch_reasons(id);
        }
    }

    /// Wakes the core at its next deadline.
    fn schedule_tick(&mut self, id: Process) {
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        let Some(deadline) = coordinator.core.next_deadline() else { return };
        let at = (deadline.saturating_sub(coordinator.ahead_ms) * MS).max(self.now);
        if coordinator.tick_at.is_none_or(|tick| tick > at || tick < self.now) {
            coordinator.tick_at = Some(at);
            self.at(at, Happening::Tick { coordinator: id });
        }
    }

    pub(crate) fn tick(&mut self, id: Process) {
        let Some(coordinator) = self.coordinators.get_mut(&id).filter(|c| c.serving) else { return };
        if coordinator.tick_at.is_none_or(|at| at > self.now) {
            return;
        }
        coordinator.tick_at = None;
        self.feed(id, Event::Tick);
        let Some(coordinator) = self.coordinators.get(&id) else { return };
        let now = coordinator.clock(self.now);
        if let Some(deadline) = coordinator.core.next_deadline().filter(|deadline| *deadline <= now) {
            let jobs: Vec<String> = coordinator
                .core
                .job_names()
                .filter_map(|name| coordinator.core.job(name))
                .map(|view| format!("{} {}", view.name, view.reason))
                .collect();
            let what = format!(
                "coordinator {id}: after a tick at {now} the next deadline is {deadline}: it would spin; {}",
                jobs.join("; ")
            );
            self.violate(Promise::Core, what);
        }
    }

    pub(crate) fn join(
        &mut self,
        id: Process,
        stream: StreamId,
        worker: r2o_coordinator_core::WorkerInfo,
        held: Option<r2o_worker_core::Held>,
    ) {
        let Some(coordinator) = self.coordinators.get_mut(&id).filter(|c| c.serving) else {
            return self.coordinator_end_breaks(stream, "it does not serve");
        };
        coordinator.last_number += 1;
        let session = coordinator.last_number;
        coordinator.lines.insert(session, stream);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.session = Some(session);
        }
        self.say(Actor::Coordinator(id), "hello", [session, stream], || {
            let held = held.as_ref().map(|h| format!(", holds {} of generation {} of {}", h.step, h.generation, h.job));
            format!("of {}{}", worker.name, held.unwrap_or_default())
        });
        self.send_down(stream, crate::happening::Down::Welcome);
        let held = held.map(|h| r2o_coordinator_core::Held { job: h.job, generation: h.generation, step: h.step });
        self.feed(id, Event::WorkerJoined { session, worker, held });
    }

    pub(crate) fn heard(&mut self, id: Process, stream: StreamId, session: Session, message: Up) {
        let actor = Actor::Coordinator(id);
        let event = match message {
            Up::Hello { .. } => return,
            Up::Heartbeat => Event::WorkerHeard { session },
            Up::Ready { generation, step } => {
                self.say(actor, "ready", [generation, step], || {
                    format!("session {session}, {generation}, {step} steps")
                });
                Event::WorkerReady { session, generation, step }
            }
            Up::Recovered { generation, reports } => Event::StepsRecovered { session, generation, reports },
            Up::Report { generation, step, report } => {
                self.say(actor, "report", [generation, step], || {
                    format!("session {session}, generation {generation}, step {step}")
                });
                Event::StepReported { session, generation, step, report: *report }
            }
            Up::Part { generation, step, part } => Event::PartUploaded { session, generation, step, part },
            Up::Failure { generation, step, failure } => {
                self.say(actor, "failure", [generation, step], || format!("session {session}: {failure:?}"));
                match failure {
                    Failure::Collective(reason) => Event::GenerationFailed { session, generation, reason },
                    Failure::Job(reason) => Event::JobFailed { session, generation, step, reason },
                }
            }
            Up::Draining { reason } => Event::WorkerDraining { session, reason },
            Up::Prepared { job } => Event::WorkerPrepared { session, job },
            Up::Goodbye { reason } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.broken = true;
                }
                Event::WorkerLeft { session, reason, goodbye: true }
            }
        };
        self.feed(id, event);
    }

    /// A person asks whoever leads, as far as a person can tell.
    pub(crate) fn wish(&mut self, wish: &Wish, job: usize) {
        let name = format!("j{job}");
        let serving: Vec<Process> = self.coordinators.iter().filter(|(_, c)| c.serving).map(|(id, _)| *id).collect();
        let Some(id) = serving.last().copied().filter(|_| self.coordinators_stopped(&serving)) else {
            // A person tries again.
            return self.after(500 * MS, Happening::Wish { wish: wish.clone(), job });
        };
        self.say(Actor::World, "a person asks", [job as u64, 0], || format!("{wish:?} {name}"));
        self.count("wishes");
        let event = match wish {
            Wish::Submit => return self.store(Op::Admit { coordinator: id, job }),
            Wish::Pause => Event::PauseRequested { job: name, reason: "a person's".to_owned() },
            Wish::Resume => Event::ResumeRequested { job: name },
            Wish::Requeue => Event::RequeueRequested { job: name },
            Wish::Cancel => Event::CancelRequested { job: name, reason: "a person's".to_owned() },
            Wish::Checkpoint => {
                let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
                coordinator.last_number += 1;
                let request = coordinator.last_number;
                coordinator.requests.insert(request, name.clone());
                Event::CheckpointRequested { job: name, request }
            }
        };
        self.feed(id, event);
    }

    fn coordinators_stopped(&self, serving: &[Process]) -> bool {
        serving.last().and_then(|id| self.coordinators.get(id)).is_some_and(|c| c.stopped_until <= self.now)
    }

    /// The process ends; whatever it was about to do is not done.
    pub(crate) fn end_coordinator(&mut self, id: Process, why: &str) {
        let Some(coordinator) = self.coordinators.remove(&id) else { return };
        self.say(Actor::Coordinator(id), "ends", [0, 0], || why.to_owned());
        self.drop_streams_of_coordinator(id);
        self.fail_rooms(id, None);
        if let Some(seat) = self.seats.get_mut(coordinator.seat) {
            seat.process = None;
            if seat.wanted {
                let soon = self.dice.between(300 * MS, 2_000 * MS);
                self.after(soon, Happening::StartCoordinator { seat: coordinator.seat });
            }
        }
    }

    /// Whether the shell must hold back what follows from records.
    fn is_gated(&self) -> bool {
        !self.plants(Plant::OpenGate)
    }
}
