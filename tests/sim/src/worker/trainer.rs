//! The computing thread: one task after another; only an abort reaches into it.

use std::collections::VecDeque;

use r2o_coordinator_core::StepReport;
use r2o_worker_core::{Assignment, Event, Failure, Ticket};

use crate::group::{Brings, Group, Outcome};
use crate::happening::{Happening, Process, StreamId};
use crate::options::Promise;
use crate::trace::Actor;
use crate::world::{MS, SECOND, World};

/// A job on this worker: what outlives generations.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) job: String,
    /// The state is still that of the seed.
    pub(crate) fresh: bool,
    /// The last generation in which the state was complete.
    pub(crate) since: Option<u64>,
    pub(crate) step: u64,
    pub(crate) state: u64,
    /// The last steps that it applied, each with all lanes.
    pub(crate) reports: Vec<(u64, StepReport)>,
}

/// A formed generation.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) assignment: Assignment,
    pub(crate) base: Base,
    /// The stream at the time of forming: reports go there.
    pub(crate) outbox: StreamId,
    pub(crate) coordinator: Process,
}

#[derive(Debug)]
pub(crate) enum Task {
    Form { assignment: Box<Assignment>, outbox: StreamId },
    Compute { generation: u64, ticket: Ticket },
    CopyOut { generation: u64, step: u64 },
    Prepare { job: String },
    Park { generation: u64 },
    Discard { generation: u64 },
}

impl Task {
    /// The generation whose end makes the task void.
    fn generation(&self) -> Option<u64> {
        match self {
            Self::Form { assignment, .. } => Some(assignment.generation),
            Self::Compute { generation, .. } | Self::CopyOut { generation, .. } => Some(*generation),
            Self::Prepare { .. } | Self::Park { .. } | Self::Discard { .. } => None,
        }
    }
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// Builds the engine.
    Building,
    /// Waits for the others, or for the way to and from them.
    Meeting,
    /// Reads a checkpoint.
    Loading,
    /// Reads samples and computes, before the first word of peers is needed.
    Computing,
    /// Copies the state.
    Copying,
}

#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) number: u64,
    pub(crate) task: Task,
    pub(crate) stage: Stage,
    /// Of a task that forms or prepares.
    pub(crate) base: Option<Base>,
    /// Its group, by coordinator and generation, once it met.
    pub(crate) coordinator: Process,
    /// No abort wakes it.
    pub(crate) stuck: bool,
    pub(crate) entered: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Trainer {
    pub(crate) queue: VecDeque<Task>,
    pub(crate) current: Option<Current>,
    /// The newest aborted generation.
    pub(crate) aborted: u64,
    pub(crate) running: Option<Running>,
    pub(crate) parked: Option<Base>,
}

impl Trainer {
    /// The state that it really keeps of a job.
    pub(crate) fn base_of(&self, job: &str) -> Option<&Base> {
        let running = self.running.as_ref().map(|r| &r.base);
        let forming = self.current.as_ref().and_then(|c| c.base.as_ref());
        running.or(forming).or(self.parked.as_ref()).filter(|base| base.job == job)
    }
}

impl World {
    pub(super) fn submit(&mut self, id: Process, task: Task) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.trainer.queue.push_back(task);
            self.next_task(id);
        }
    }

    /// Begins the next task that is not void.
    pub(super) fn next_task(&mut self, id: Process) {
        loop {
            let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer) else { return };
            if trainer.current.is_some() {
                return;
            }
            let Some(task) = trainer.queue.pop_front() else { return };
            if task.generation().is_some_and(|generation| trainer.aborted >= generation) {
                continue;
            }
            match task {
                Task::Park { generation } => {
                    if trainer.running.as_ref().is_some_and(|r| r.assignment.generation <= generation) {
                        self.park(id);
                    }
                }
                Task::Discard { generation } => {
                    if trainer.running.as_ref().is_some_and(|r| r.assignment.generation <= generation) {
                        self.park(id);
                    }
                    let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer) else { return };
                    trainer.parked.take_if(|base| base.since.is_none_or(|since| since <= generation));
                }
                task => self.begin_task(id, task),
            }
        }
    }

    fn begin_task(&mut self, id: Process, task: Task) {
        let number = self.fresh_id();
        let slow = self.slowness(id);
        let (mut base, mut stage, mut delay, mut coordinator) = (None, Stage::Computing, self.compute_time(id), 0);
        match &task {
            Task::Form { assignment, outbox } => {
                self.park(id);
                coordinator = self.streams.get(outbox).map_or(0, |s| s.coordinator);
                let (kept, build) = self.base_for(id, &assignment.job);
                (base, stage, delay) = (Some(kept), Stage::Building, build + self.dice.between(0, 20 * MS));
            }
            Task::Prepare { job, .. } => {
                // A running engine is the job's own: only a free worker is asked.
                let (kept, build) = self.base_for(id, job);
                (base, stage, delay) = (Some(kept), Stage::Building, build);
            }
            Task::CopyOut { .. } => (stage, delay) = (Stage::Copying, self.dice.between(MS, 30 * MS) * slow),
            _ => {}
        }
        let current = Current { number, task, stage, base, coordinator, stuck: false, entered: false };
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.trainer.current = Some(current);
            self.after(delay, Happening::Stage { process: id, number });
        }
    }

    pub(super) fn slowness(&self, id: Process) -> u64 {
        self.workers.get(&id).map_or(1, |w| self.slots[w.slot].slowness)
    }

    fn compute_time(&mut self, id: Process) -> u64 {
        self.dice.between(10 * MS, 120 * MS) * self.slowness(id)
    }

    /// What is here of a job, or what it takes to begin, and how long that takes.
    pub(super) fn base_for(&mut self, id: Process, job: &str) -> (Base, u64) {
        let parked = self.workers.get_mut(&id).and_then(|w| w.trainer.parked.take());
        match parked.filter(|base| base.job == job) {
            Some(base) => (base, 0),
            None => {
                let state = self.course(job).states[0];
                let base = Base { job: job.to_owned(), fresh: true, since: None, step: 0, state, reports: Vec::new() };
                (base, self.dice.between(50 * MS, 800 * MS))
            }
        }
    }

    /// Ends the generation, and keeps its state.
    pub(super) fn park(&mut self, id: Process) {
        self.leave_groups(id, true);
        if let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer)
            && let Some(running) = trainer.running.take()
        {
            trainer.parked = Some(running.base);
        }
    }

    /// The current task is over; its core hears of it in a moment.
    pub(super) fn finish_task(&mut self, id: Process, event: Option<Event>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.trainer.current = None;
        }
        if let Some(event) = event {
            let soon = self.dice.between(0, MS);
            self.after(soon, Happening::Told { process: id, event: Box::new(event) });
        }
        self.next_task(id);
    }

    /// The current task failed: what it formed from stays here, as it is now.
    pub(super) fn fail_task(&mut self, id: Process, failure: Failure) {
        let actor = self.actor_of(id);
        let Some(current) = self.workers.get_mut(&id).and_then(|w| w.trainer.current.take()) else { return };
        self.say(actor, "task fails", [current.number, 0], || format!("{failure:?}"));
        self.leave_groups(id, true);
        let mut step = 0;
        if let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer) {
            step = trainer.running.as_ref().map_or(0, |r| r.base.step);
            if let Some(base) = current.base {
                trainer.parked = Some(base);
            }
        }
        let event = current.task.generation().map(|generation| Event::WorkFailed { generation, step, failure });
        self.finish_task(id, event);
    }

    /// Wakes the thread when it waits for peers of the generation, and makes it skip what is queued of it.
    pub(super) fn abort(&mut self, id: Process, generation: u64) {
        let stuck = self.dice.chance(self.scenario.stuck) && !self.healing;
        let Some(trainer) = self.workers.get_mut(&id).map(|w| &mut w.trainer) else { return };
        trainer.aborted = trainer.aborted.max(generation);
        let Some(current) = &mut trainer.current else { return };
        if current.task.generation().is_some_and(|g| g <= generation) && current.stage == Stage::Meeting {
            current.stuck |= stuck;
            if !current.stuck {
                let number = current.number;
                let outcome = Outcome::Failed("the group was aborted".to_owned());
                let soon = self.dice.between(0, 5 * MS);
                self.after(soon, Happening::Collective { process: id, number, outcome });
            }
        }
    }

    /// Enters a collective of a generation's group; the thread waits until all members have.
    pub(super) fn meet(&mut self, id: Process, assignment: &Assignment, brings: Brings) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let aborted = worker.trainer.aborted >= assignment.generation;
        let Some(current) = &mut worker.trainer.current else { return };
        (current.stage, current.entered) = (Stage::Meeting, true);
        let (number, coordinator, rank) = (current.number, current.coordinator, assignment.rank);
        let key = (coordinator, assignment.generation);
        let group = self.groups.entry(key).or_insert_with(|| Group::new(assignment.members.len()));
        if aborted || group.broken {
            let why = if aborted { "the group was aborted" } else { "a peer closed its connection" };
            let outcome = Outcome::Failed(why.to_owned());
            let soon = self.dice.between(0, 30 * MS);
            return self.after(soon, Happening::Collective { process: id, number, outcome });
        }
        match group.enter(rank, id, number, brings) {
            Err(mixed) => self.violate(Promise::OneWriter, mixed),
            Ok(None) => {}
            Ok(Some(all)) => {
                let members: Vec<(Process, u64)> = group.leaving.iter().map(|(p, n)| (*p, *n)).collect();
                // Over a network that is cut somewhere nothing comes through.
                let cut = members.iter().filter_map(|(p, _)| self.workers.get(p)).map(|w| self.slots[w.slot].cut_until);
                let from = cut.max().unwrap_or(0).max(self.now);
                for (process, number) in members {
                    let at = from + self.dice.between(100, 25 * MS);
                    self.at(at, Happening::Collective { process, number, outcome: Outcome::All(all.clone()) });
                }
            }
        }
    }

    /// A member leaves all groups: those that wait for it never get an answer. With `seen` they find its connection closed.
    pub(super) fn leave_groups(&mut self, id: Process, seen: bool) {
        let mine: Vec<(Process, u64)> =
            self.groups.iter().filter(|(_, g)| g.members.contains(&Some(id))).map(|(key, _)| *key).collect();
        for key in mine {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            group.broken = true;
            for member in group.members.iter_mut().filter(|m| **m == Some(id)) {
                *member = None;
            }
            group.entered.retain(|_, (process, ..)| *process != id);
            group.leaving.remove(&id);
            let waiting: Vec<(Process, u64)> = group.entered.values().map(|(p, n, _)| (*p, *n)).collect();
            // All have entered, but a connection may close before the last word of it came through.
            let leaving: Vec<(Process, u64)> = group.leaving.iter().map(|(p, n)| (*p, *n)).collect();
            if group.members.iter().all(Option::is_none) {
                self.groups.remove(&key);
            }
            for (process, number) in waiting {
                // Some libraries notice at once; with others only the coordinator's word or a timeout ends the wait.
                let noticed = seen && self.dice.chance(700);
                let delay = if noticed { self.dice.between(0, 100 * MS) } else { 30 * SECOND };
                let outcome = Outcome::Failed("a peer closed its connection".to_owned());
                self.after(delay, Happening::Collective { process, number, outcome });
            }
            for (process, number) in leaving {
                if self.dice.chance(400) {
                    let soon = self.dice.between(0, 10 * MS);
                    let outcome = Outcome::Failed("a peer closed its connection".to_owned());
                    self.after(soon, Happening::Collective { process, number, outcome });
                }
            }
        }
    }

    /// The rendezvous of a job is closed, or that of all jobs of a coordinator that is gone: whoever waits there is woken.
    pub(crate) fn fail_rooms(&mut self, coordinator: Process, job: Option<&str>) {
        let mut woken = Vec::new();
        for (process, worker) in &self.workers {
            let Some(current) = worker.trainer.current.as_ref().filter(|c| c.coordinator == coordinator) else {
                continue;
            };
            let Task::Form { assignment, .. } = &current.task else { continue };
            let waits = self.groups.get(&(coordinator, assignment.generation)).is_some_and(|group| {
                group.entered.values().any(|(p, _, brings)| p == process && *brings == Brings::Itself)
            });
            if waits && job.is_none_or(|job| job == assignment.job) {
                woken.push((*process, current.number));
            }
        }
        for (process, number) in woken {
            let soon = self.dice.between(0, 50 * MS);
            let outcome = Outcome::Failed("the rendezvous is closed".to_owned());
            self.after(soon, Happening::Collective { process, number, outcome });
        }
    }

    pub(crate) fn complain(&mut self, id: Process, what: &'static str, numbers: [u64; 2]) {
        let actor = self.actor_of(id);
        if actor != Actor::World {
            self.say(actor, what, numbers, String::new);
        }
    }
}
