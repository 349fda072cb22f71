//! What goes wrong, when, and how all of it stops.

use crate::happening::{Happening, Process, Wish};
use crate::scenario::Profile;
use crate::trace::Actor;
use crate::world::{MS, SECOND, World};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    KillWorker,
    /// Only where another member of its generation lives.
    KillOfSeveral,
    /// Its machine is gone: nobody finds a closed connection.
    LoseWorker,
    StopWorker,
    SlowWorker,
    Drain,
    DrainTwice,
    /// Until the end of the faults.
    RemoveWorker,
    Partition,
    BreakStream,
    /// Only the worker finds out by itself.
    BreakSilently,
    KillCoordinator,
    StopCoordinator,
    /// A second one whose clock says that the first one's lease is over.
    RivalCoordinator,
    ClockJump,
    KillFleet,
    DamageCheckpoint,
    StorageAway,
    StorageSlow,
    FlipBit,
    /// SIGTERM, and a newer program in its place.
    Upgrade,
}

/// A fault, to whom, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) target: usize,
    pub(crate) ms: u64,
}

impl World {
    /// Puts everything into the queue that a seed decides beforehand.
    pub(crate) fn plan(&mut self) {
        for seat in 0..self.scenario.seats {
            self.at(seat as u64 * 2 * SECOND, Happening::StartCoordinator { seat });
        }
        for slot in 0..self.slots.len() {
            let at = self.dice.between(0, 3 * SECOND);
            self.at(at, Happening::StartWorker { slot });
        }
        for job in 0..self.courses.len() {
            let at = SECOND + self.dice.between(0, 5 * SECOND);
            self.at(at, Happening::Wish { wish: Wish::Submit, job });
        }
        let span = self.scenario.span * SECOND;
        let total: u64 = self.scenario.kinds.iter().map(|(_, weight)| weight).sum();
        let apart = self.scenario.is_strict();
        for number in 0..self.scenario.faults {
            let mut ticket = self.dice.between(0, total.max(1));
            let mut kind = None;
            for (one, weight) in self.scenario.kinds {
                if kind.is_none() && ticket < *weight {
                    kind = Some(*one);
                }
                ticket = ticket.saturating_sub(*weight);
            }
            let Some(kind) = kind else { continue };
            let target = self.dice.below(1_000);
            let ms = self.dice.between(50, 9_000);
            let at = match apart {
                // One has recovered from before the next comes.
                true => 5 * SECOND + number as u64 * 8 * SECOND + self.dice.between(0, SECOND),
                false => self.dice.between(3 * SECOND, span),
            };
            self.at(at, Happening::Fault { fault: Fault { kind, target, ms } });
        }
        for _ in 0..self.scenario.wishes {
            let at = self.dice.between(5 * SECOND, span);
            let job = self.dice.below(self.courses.len());
            let wishes = [Wish::Pause, Wish::Resume, Wish::Resume, Wish::Requeue, Wish::Checkpoint, Wish::Checkpoint];
            let wish = match self.dice.chance(50) {
                true => Wish::Cancel,
                false => self.dice.pick(&[0, 1, 2, 3, 4, 5]).map_or(Wish::Checkpoint, |at: usize| wishes[at].clone()),
            };
            self.at(at, Happening::Wish { wish, job });
        }
        let end = if apart { span.max(60 * SECOND) } else { span };
        (self.storage.flaky, self.storage.mute) = (self.scenario.flaky, self.scenario.mute);
        self.at(end, Happening::Heal);
        self.at(SECOND, Happening::Look);
    }

    fn living(&self) -> Vec<Process> {
        self.workers.keys().copied().collect()
    }

    pub(crate) fn suffer(&mut self, fault: Fault) {
        if self.healing {
            if let (Kind::Upgrade, Some(id)) = (fault.kind, self.slots[fault.target].process)
                && self.workers.get(&id).is_some_and(|w| w.info.version == "1")
            {
                self.drain(id, "a newer program is rolled out");
            }
            return;
        }
        let living = self.living();
        let worker = (!living.is_empty()).then(|| living[fault.target % living.len()]);
        let leader = {
            let serving: Vec<Process> = self.coordinators.keys().copied().collect();
            (!serving.is_empty()).then(|| serving[fault.target % serving.len()])
        };
        let Fault { kind, ms, .. } = fault;
        self.say(Actor::World, "fault", [fault.target as u64, ms], || {
            format!("{kind:?} for {ms} ms, worker {worker:?}")
        });
        self.count("faults");
        match (kind, worker, leader) {
            (Kind::KillWorker, Some(id), _) => self.end_worker(id, "is killed", true, 4),
            (Kind::KillOfSeveral, Some(id), _) if self.others_hold_what(id) => {
                self.end_worker(id, "is killed", true, 4);
            }
            (Kind::LoseWorker, Some(id), _) => self.end_worker(id, "is lost with its machine", false, 8),
            (Kind::StopWorker, Some(id), _) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.stopped_until = worker.stopped_until.max(self.now + ms * MS);
                }
            }
            (Kind::SlowWorker, Some(id), _) => {
                if let Some(slot) = self.workers.get(&id).map(|w| w.slot) {
                    self.slots[slot].slowness = 10;
                }
            }
            (Kind::Drain, Some(id), _) => self.drain(id, "SIGTERM"),
            (Kind::DrainTwice, Some(id), _) => {
                self.drain(id, "SIGTERM");
                self.after(ms / 20 * MS, Happening::DrainDeadline { process: id });
            }
            (Kind::RemoveWorker, Some(id), _) => {
                if let Some(slot) = self.workers.get(&id).map(|w| w.slot) {
                    self.slots[slot].wanted = false;
                    self.end_worker(id, "is removed", true, 1);
                }
            }
            (Kind::Partition, Some(id), _) => {
                if let Some(slot) = self.workers.get(&id).map(|w| w.slot) {
                    self.slots[slot].cut_until = self.slots[slot].cut_until.max(self.now + ms * MS);
                }
            }
            (Kind::BreakStream | Kind::BreakSilently, Some(id), _) => {
                if let Some(stream) = self.workers.get(&id).and_then(|w| w.outbox) {
                    self.break_stream(stream, kind == Kind::BreakSilently);
                }
            }
            (Kind::KillCoordinator, _, Some(id)) => self.end_coordinator(id, "is killed"),
            (Kind::StopCoordinator, _, Some(id)) => {
                if let Some(coordinator) = self.coordinators.get_mut(&id) {
                    coordinator.stopped_until = coordinator.stopped_until.max(self.now + ms * MS);
                    coordinator.away_since.get_or_insert(self.now);
                }
            }
            (Kind::RivalCoordinator, _, _) => {
                for (seat, at) in self.seats.iter_mut().enumerate() {
                    if at.process.is_none() {
                        at.ahead_ms += self.scenario.leader_lease + ms;
                        self.scheduled_start(seat);
                        break;
                    }
                }
            }
            (Kind::ClockJump, _, _) => {
                let seats = self.seats.len();
                let seat = &mut self.seats[fault.target % seats];
                // The wall clock, forwards or back: a process takes it when it starts.
                seat.ahead_ms =
                    if fault.target.is_multiple_of(2) { seat.ahead_ms + ms } else { seat.ahead_ms.saturating_sub(ms) };
            }
            (Kind::KillFleet, _, _) => {
                for id in living {
                    self.end_worker(id, "is killed with all others", true, 4);
                }
            }
            (Kind::DamageCheckpoint, _, _) => self.damage(fault.target),
            (Kind::StorageAway, _, _) => self.storage.away_until = self.now + ms * MS,
            (Kind::StorageSlow, _, _) => self.storage.slow = 30,
            (Kind::FlipBit, Some(id), _) => self.flip_bit(id),
            _ => {}
        }
    }

    fn scheduled_start(&mut self, seat: usize) {
        self.at(self.now, Happening::StartCoordinator { seat });
    }

    /// Whether another living, connected member holds as much of the job for which this one works.
    fn others_hold_what(&self, id: Process) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        let Some(running) = &worker.trainer.running else { return true };
        let base = &running.base;
        // A job whose generation trains on several.
        let others = self.workers.iter().filter(|(other, w)| {
            let theirs = w.trainer.running.as_ref();
            **other != id
                && w.outbox.is_some()
                && theirs.is_some_and(|r| r.assignment.generation == running.assignment.generation)
        });
        others.filter(|(_, w)| w.trainer.base_of(&base.job).is_some_and(|b| b.step + 1 >= base.step)).count() > 0
    }

    /// A flipped bit in an object of the newest checkpoint, where there is an older one.
    fn damage(&mut self, target: usize) {
        let jobs: Vec<String> = self.storage.places.keys().cloned().collect();
        let Some(job) = jobs.get(target % jobs.len().max(1)) else { return };
        let place = self.storage.place(job);
        let whole: Vec<u64> =
            place.manifests.keys().copied().filter(|step| place.whole(*step, false).is_some()).collect();
        let [.., older, newest] = whole[..] else { return };
        let older: Vec<String> = place.manifests[&older].tensors.iter().map(|t| t.blake3.clone()).collect();
        let newer = &place.manifests[&newest].tensors;
        let Some(object) = newer.iter().map(|t| t.blake3.clone()).find(|id| !older.contains(id)) else { return };
        if let Some(object) = place.objects.get_mut(&object) {
            object.damaged = true;
            place.damaged_steps.push(newest);
            self.count("damaged");
        }
    }

    fn flip_bit(&mut self, id: Process) {
        let Some(base) = self.workers.get_mut(&id).and_then(|w| w.trainer.running.as_mut()).map(|r| &mut r.base) else {
            return;
        };
        base.state ^= 1 << 17;
        let state = base.state;
        self.oracle.wrong.insert(state);
        self.count("flipped");
    }

    /// From here on nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.healing = true;
        self.oracle.healed_at = Some(self.now);
        self.say(Actor::World, "all faults stop", [0, 0], String::new);
        (self.storage.away_until, self.storage.flaky, self.storage.mute, self.storage.slow) = (0, 0, 0, 0);
        // Who is stopped or cut off is so for its time: what waits for it keeps its order.
        for slot in 0..self.slots.len() {
            let place = &mut self.slots[slot];
            (place.wanted, place.slowness) = (true, place.slowness.min(3));
            self.after(SECOND, Happening::StartWorker { slot });
        }
        // What an unruly stream has lost for good only a new one brings.
        if self.scenario.unruly > 0 {
            let streams: Vec<u64> = self.streams.keys().copied().collect();
            streams.into_iter().for_each(|stream| self.break_stream(stream, false));
        }
        // The roll-out of a newer program comes to its end.
        if self.scenario.upgrades {
            for (at, id) in self.living().into_iter().enumerate() {
                let Some(old) = self.workers.get(&id).filter(|w| w.info.version == "1").map(|w| w.slot) else {
                    continue;
                };
                self.slots[old].version = "2";
                self.after(
                    (10 + at as u64) * SECOND,
                    Happening::Fault { fault: Fault { kind: Kind::Upgrade, target: old, ms: 0 } },
                );
            }
            self.slots.iter_mut().for_each(|slot| slot.version = "2");
        }
        // One seat is enough, and whoever leads keeps it.
        let leads = self.coordinators.values().find(|c| c.serving).map(|c| c.seat);
        for (seat, at) in self.seats.iter_mut().enumerate() {
            at.wanted = seat == leads.unwrap_or(0);
            at.ahead_ms += 10_000_000;
        }
        self.after(SECOND, Happening::StartCoordinator { seat: leads.unwrap_or(0) });
        for job in 0..self.courses.len() {
            self.after(3 * SECOND, Happening::Wish { wish: Wish::Resume, job });
        }
        if self.scenario.profile == Profile::Calm {
            self.count("calm");
        }
    }
}
