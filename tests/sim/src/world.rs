//! Virtual time, and everything that exists in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::coordinator::Coordinator;
use crate::course::Course;
use crate::dice::Dice;
use crate::group::Group;
use crate::happening::{Happening, Process, StreamId};
use crate::network::Stream;
use crate::options::{Options, Plant, Promise, Report, Violation};
use crate::oracle::Oracle;
use crate::scenario::Scenario;
use crate::storage::Storage;
use crate::trace::{Actor, Trace};
use crate::worker::Worker;

/// A millisecond in virtual time, which counts microseconds.
pub(crate) const MS: u64 = 1_000;
/// A second.
pub(crate) const SECOND: u64 = 1_000 * MS;

/// Happenings after which a run counts as one that does not end.
const HAPPENINGS_MAX: u64 = 2_000_000;

/// Something at its moment; the number keeps those of one moment in order.
struct Due(u64, u64, Happening);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A place for one worker after another of the same name.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) process: Option<Process>,
    /// Whether a worker is to be here.
    pub(crate) wanted: bool,
    /// Until when its machine reaches nobody.
    pub(crate) cut_until: u64,
    /// How much slower than others it is.
    pub(crate) slowness: u64,
    pub(crate) version: &'static str,
}

/// A place for one coordinator after another.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    pub(crate) process: Option<Process>,
    pub(crate) wanted: bool,
    /// How far the next process's clock is ahead, in milliseconds.
    pub(crate) ahead_ms: u64,
}

pub(crate) struct World {
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Due>>,
    scheduled: u64,
    pub(crate) dice: Dice,
    pub(crate) options: Options,
    pub(crate) scenario: Scenario,
    pub(crate) courses: Vec<Course>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) workers: BTreeMap<Process, Worker>,
    pub(crate) coordinators: BTreeMap<Process, Coordinator>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) groups: BTreeMap<(Process, u64), Group>,
    pub(crate) storage: Storage,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) last_id: u64,
    pub(crate) healing: bool,
    pub(crate) done: bool,
    pub(crate) violation: Option<Violation>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let mut dice = Dice::new("simulation", seed);
        let scenario = Scenario::draw(seed, &mut dice);
        let courses = scenario.courses(seed, &mut dice);
        let slot = |slowness| Slot { process: None, wanted: true, cut_until: 0, slowness, version: "1" };
        let slots = (0..scenario.workers).map(|_| slot(dice.between(1, 4))).collect();
        let seats = (0..scenario.seats).map(|_| Seat { wanted: true, ..Seat::default() }).collect();
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            dice,
            options,
            oracle: Oracle::new(&courses),
            scenario,
            courses,
            slots,
            seats,
            workers: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            streams: BTreeMap::new(),
            groups: BTreeMap::new(),
            storage: Storage::default(),
            trace: Trace::new(options.readable),
            last_id: 0,
            healing: false,
            done: false,
            violation: None,
            counts: BTreeMap::new(),
        };
        world.plan();
        world
    }

    pub(crate) fn run(mut self, seed: u64) -> Report {
        let mut happened = 0_u64;
        while !self.done && self.violation.is_none() {
            let Some(Reverse(Due(at, _, happening))) = self.queue.pop() else { break };
            self.now = at;
            happened += 1;
            if happened > HAPPENINGS_MAX {
                self.violate(Promise::Heals, format!("after {HAPPENINGS_MAX} happenings there is still no end"));
                break;
            }
            self.happen(happening);
        }
        if !self.done && self.violation.is_none() {
            self.violate(Promise::Heals, "nothing is left to happen, and the jobs have not ended".to_owned());
        }
        *self.counts.entry("happenings").or_default() = happened;
        Report {
            seed,
            hash: self.trace.hash(),
            violation: self.violation,
            lasted: self.now,
            counts: self.counts,
            lines: self.trace.into_lines(),
        }
    }

    /// Lets something happen after so many microseconds.
    pub(crate) fn after(&mut self, delay: u64, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.scheduled += 1;
        self.queue.push(Reverse(Due(at.max(self.now), self.scheduled, happening)));
    }

    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn plants(&self, plant: Plant) -> bool {
        self.options.plant == Some(plant)
    }

    pub(crate) fn violate(&mut self, promise: Promise, what: String) {
        self.say(Actor::World, "VIOLATION", [0, 0], || format!("of {promise}: {what}"));
        self.violation.get_or_insert(Violation { promise, at: self.now, what });
    }

    pub(crate) fn say(&mut self, actor: Actor, what: &'static str, numbers: [u64; 2], text: impl FnOnce() -> String) {
        self.trace.say(self.now, actor, what, numbers, text);
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The course of a job.
    pub(crate) fn course(&self, job: &str) -> &Course {
        let at = job.get(1..).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        &self.courses[at.min(self.courses.len() - 1)]
    }

    fn happen(&mut self, happening: Happening) {
        let Some(happening) = self.put_off(happening) else { return };
        match happening {
            Happening::Up { stream, message } => self.arrive_up(stream, message),
            Happening::Down { stream, message } => self.arrive_down(stream, message),
            Happening::WorkerEndBreaks { stream } => self.worker_end_breaks(stream),
            Happening::CoordinatorEndBreaks { stream } => self.coordinator_end_breaks(stream, "its stream broke"),
            Happening::Connect { process } => self.connect(process),
            Happening::Heartbeat { stream } => self.heartbeat(stream),
            Happening::Stage { process, number } => self.stage_over(process, number),
            Happening::Collective { process, number, outcome } => self.collective_over(process, number, outcome),
            Happening::Told { process, event } => self.worker_event(process, *event),
            Happening::AbortDeadline { process, number } => self.abort_deadline(process, number),
            Happening::DrainDeadline { process } => self.drain(process, "the drain deadline has passed"),
            Happening::StartWorker { slot } => self.start_worker(slot),
            Happening::StartCoordinator { seat } => self.start_coordinator(seat),
            Happening::Tick { coordinator } => self.tick(coordinator),
            Happening::RenewLease { coordinator } => self.renew_lease(coordinator),
            Happening::Scribe { coordinator } => self.write_again(coordinator),
            Happening::Effect { op } => self.effect(*op),
            Happening::Answered { op, answer } => self.answered(*op, answer),
            Happening::Fault { fault } => self.suffer(fault),
            Happening::Wish { wish, job } => self.wish(&wish, job),
            Happening::Heal => self.heal(),
            Happening::Look => self.look(),
        }
    }

    /// A process that is stopped does nothing now; what waits for it keeps its order.
    fn put_off(&mut self, happening: Happening) -> Option<Happening> {
        let worker_until = |process: &Process| self.workers.get(process).map(|w| w.stopped_until);
        let until = match &happening {
            Happening::Up { stream, .. } | Happening::CoordinatorEndBreaks { stream } => {
                let stream = self.streams.get(stream);
                stream.and_then(|s| self.coordinators.get(&s.coordinator)).map(|c| c.stopped_until)
            }
            Happening::Down { stream, .. }
            | Happening::WorkerEndBreaks { stream }
            | Happening::Heartbeat { stream } => self.streams.get(stream).and_then(|s| worker_until(&s.worker)),
            Happening::Connect { process }
            | Happening::Stage { process, .. }
            | Happening::Collective { process, .. }
            | Happening::Told { process, .. }
            | Happening::AbortDeadline { process, .. }
            | Happening::DrainDeadline { process } => worker_until(process),
            Happening::Tick { coordinator }
            | Happening::RenewLease { coordinator }
            | Happening::Scribe { coordinator } => self.coordinators.get(coordinator).map(|c| c.stopped_until),
            Happening::Answered { op, .. } => match op.coordinator() {
                Some(coordinator) => self.coordinators.get(&coordinator).map(|c| c.stopped_until),
                None => op.process().and_then(|process| worker_until(&process)),
            },
            _ => None,
        };
        match until.filter(|until| *until > self.now) {
            Some(until) => {
                self.at(until, happening);
                None
            }
            None => Some(happening),
        }
    }
}
