//! A worker's shell, as worker/agent is one: the core, its stream, its supervisor.

mod compute;
mod form;
mod trainer;

use r2o_coordinator_core as coordinator;
use r2o_worker_core::{Assignment, Command, Core, Event, ExitReason, Held, Member, Start, Ticket};

use crate::happening::{Down, Happening, Process, StreamId, Up};
use crate::options::Promise;
use crate::trace::Actor;
use crate::world::{MS, SECOND, World};

pub(crate) use trainer::{Base, Trainer};

/// How long after an abort a computing thread may still be at work.
const ABORT_DEADLINE: u64 = 10 * SECOND;

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) slot: usize,
    pub(crate) core: Core,
    pub(crate) info: coordinator::WorkerInfo,
    /// The stream on which it was welcomed.
    pub(crate) outbox: Option<StreamId>,
    /// What its hello says, since it began to connect.
    pub(crate) says: Option<Held>,
    pub(crate) trainer: Trainer,
    pub(crate) stopped_until: u64,
    pub(crate) drains: bool,
}

impl World {
    pub(crate) fn start_worker(&mut self, slot: usize) {
        let id = self.fresh_id();
        let Some(place) = self.slots.get_mut(slot).filter(|s| s.process.is_none() && s.wanted) else { return };
        place.process = Some(id);
        let info = coordinator::WorkerInfo {
            name: format!("w{slot}"),
            incarnation: id.to_string(),
            version: place.version.to_owned(),
            device: "cpu".to_owned(),
            address: format!("10.0.0.{slot}"),
            threads: 1,
        };
        let worker = Worker {
            slot,
            core: Core::new(),
            info,
            outbox: None,
            says: None,
            trainer: Trainer::default(),
            stopped_until: 0,
            drains: false,
        };
        self.workers.insert(id, worker);
        self.say(Actor::Worker(slot), "starts", [id, 0], || format!("process {id}"));
        let soon = self.dice.between(0, 300 * MS);
        self.after(soon, Happening::Connect { process: id });
    }

    /// Tries to open a stream, and again in a moment.
    pub(crate) fn connect(&mut self, id: Process) {
        let Some(worker) = self.workers.get(&id).filter(|w| w.outbox.is_none()) else { return };
        let slot = worker.slot;
        let serving: Vec<Process> = self.coordinators.iter().filter(|(_, c)| c.serving).map(|(id, _)| *id).collect();
        // The name under which the coordinator is found may still lead to an older one.
        let newest = serving.last().copied();
        let chosen = if self.dice.chance(850) { newest } else { self.dice.pick(&serving) };
        let reachable = self.slots[slot].cut_until <= self.now;
        let Some(coordinator) = chosen.filter(|_| reachable) else {
            return self.after(300 * MS, Happening::Connect { process: id });
        };
        let Some(worker) = self.workers.get(&id) else { return };
        let hello = Up::Hello { worker: worker.info.clone(), held: worker.says.clone() };
        let stream = self.open_stream(id, slot, coordinator);
        self.send_up(stream, hello);
    }

    pub(crate) fn welcomed(&mut self, id: Process, stream: StreamId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.outbox = Some(stream);
        self.heartbeat(stream);
        self.worker_event(id, Event::Connected);
    }

    /// A welcomed stream broke.
    pub(crate) fn stream_lost(&mut self, id: Process) {
        self.worker_event(id, Event::Disconnected);
    }

    pub(crate) fn told_by_coordinator(&mut self, id: Process, message: Down) {
        let actor = self.actor_of(id);
        let event = match message {
            Down::Welcome | Down::End => return,
            Down::Assignment(a) => {
                self.say(actor, "assigned", [a.generation, u64::from(a.rank)], || {
                    format!("rank {} of generation {} of {}", a.rank, a.generation, a.job)
                });
                Event::Assigned(assignment(*a))
            }
            Down::Ticket(ticket) => {
                let generation = ticket.generation;
                Event::Granted { generation, ticket: self.ticket(&ticket) }
            }
            Down::TakeCheckpoint { generation, step } => Event::CheckpointAsked { generation, step, trace: None },
            Down::Release { job, generation, keep } => Event::Released { job, generation, keep },
            Down::Prepare { job, spec } => Event::PrepareAsked { job, spec: spec.to_string() },
            Down::Refused { reason } => Event::Refused(reason),
        };
        self.worker_event(id, event);
    }

    fn ticket(&self, t: &coordinator::Ticket) -> Ticket {
        Ticket {
            step: t.step,
            epoch: t.epoch,
            k: t.k,
            tau: t.tau,
            learning_rate: t.learning_rate,
            hash_state: t.hash_state,
            trace: None,
        }
    }

    /// Feeds a worker's core and carries out what it decides.
    pub(crate) fn worker_event(&mut self, id: Process, event: Event) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let commands = worker.core.handle(event);
        if let Err(broken) = worker.core.check_invariants() {
            let name = worker.info.name.clone();
            self.violate(Promise::Core, format!("worker {name}: {broken}"));
        }
        for command in commands {
            self.worker_does(id, command);
        }
    }

    fn worker_does(&mut self, id: Process, command: Command) {
        match command {
            Command::Form(assignment) => {
                if let Some(outbox) = self.workers.get(&id).and_then(|w| w.outbox) {
                    self.submit(id, trainer::Task::Form { assignment: Box::new(assignment), outbox });
                }
            }
            Command::Compute { generation, ticket } => self.submit(id, trainer::Task::Compute { generation, ticket }),
            Command::CopyOut { generation, step, .. } => self.submit(id, trainer::Task::CopyOut { generation, step }),
            Command::Prepare { job, .. } => self.submit(id, trainer::Task::Prepare { job }),
            Command::Park { generation } => self.submit(id, trainer::Task::Park { generation }),
            Command::Discard { generation } => self.submit(id, trainer::Task::Discard { generation }),
            Command::Abort { generation } => {
                self.abort(id, generation);
                let number = self.workers.get(&id).and_then(|w| w.trainer.current.as_ref()).map(|c| c.number);
                if let Some(number) = number {
                    self.after(ABORT_DEADLINE, Happening::AbortDeadline { process: id, number });
                }
            }
            Command::SendReady { generation, step, .. } => self.send_from(id, Up::Ready { generation, step }),
            Command::SendFailure { generation, step, failure, .. } => {
                self.send_from(id, Up::Failure { generation, step, failure });
            }
            Command::SendPrepared { job } => self.send_from(id, Up::Prepared { job }),
            Command::SendDraining { reason } => self.send_from(id, Up::Draining { reason }),
            Command::Reconnect => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.outbox = None;
                    worker.says = worker.core.held().cloned();
                }
                let soon = self.dice.between(0, 50 * MS);
                self.after(soon, Happening::Connect { process: id });
            }
            Command::Exit(reason) => {
                self.send_from(id, Up::Goodbye { reason: format!("{reason:?}") });
                let refused = matches!(reason, ExitReason::Refused(_));
                self.end_worker(id, &format!("exits: {reason:?}"), true, if refused { 5 } else { 2 });
            }
        }
    }

    pub(crate) fn send_from(&mut self, id: Process, message: Up) {
        if let Some(outbox) = self.workers.get(&id).and_then(|w| w.outbox) {
            self.send_up(outbox, message);
        }
    }

    /// The process is gone; whatever supervises it starts it again after a while. `seen`: its sockets are closed, so that
    /// others notice.
    pub(crate) fn end_worker(&mut self, id: Process, why: &str, seen: bool, seconds: u64) {
        let actor = self.actor_of(id);
        self.leave_groups(id, seen);
        self.drop_streams_of_worker(id, seen);
        // Here and there the next process is of a newer program.
        let upgrades = self.scenario.upgrades && (self.healing || self.dice.chance(300));
        let Some(worker) = self.workers.remove(&id) else { return };
        self.say(actor, "ends", [id, 0], || why.to_owned());
        if let Some(slot) = self.slots.get_mut(worker.slot) {
            slot.process = None;
            if upgrades {
                slot.version = "2";
            }
        }
        let pause = self.dice.between(SECOND / 2, (1 + seconds) * SECOND);
        self.after(pause, Happening::StartWorker { slot: worker.slot });
    }

    /// SIGTERM, and what follows when it takes too long.
    pub(crate) fn drain(&mut self, id: Process, reason: &str) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !std::mem::replace(&mut worker.drains, true) {
            self.after(25 * SECOND, Happening::DrainDeadline { process: id });
        }
        self.worker_event(id, Event::Drain { reason: reason.to_owned() });
    }

    /// A computing thread that abort did not wake: only the end of the process frees what it holds.
    pub(crate) fn abort_deadline(&mut self, id: Process, number: u64) {
        let stuck = |w: &Worker| w.trainer.current.as_ref().is_some_and(|c| c.number == number);
        if self.workers.get(&id).is_some_and(stuck) {
            self.count("stuck");
            self.end_worker(id, "was not left after its abort", true, 2);
        }
    }
}

fn assignment(a: coordinator::Assignment) -> Assignment {
    let member = |m: &coordinator::Member| Member {
        worker: m.worker.clone(),
        address: m.address.clone(),
        lanes: m.lanes.clone(),
    };
    Assignment {
        members: a.members.iter().map(member).collect(),
        job: a.job,
        generation: a.generation,
        spec: a.spec.to_string(),
        rank: a.rank as usize,
        step: a.step,
        trace: None,
        start: match a.start {
            coordinator::Start::Seed => Start::Seed,
            coordinator::Start::Checkpoint => Start::Checkpoint { manifest: format!("manifests/{:012}.json", a.step) },
            coordinator::Start::Peers { since } => Start::Peers { since },
        },
    }
}
