//! The start of a coordinator: the lease, the journal, then service.

use std::collections::{BTreeMap, VecDeque};

use r2o_coordinator_core::{Core, Event, Fold, Gate};

use crate::coordinator::Coordinator;
use crate::happening::{Happening, Op, Process};
use crate::options::{Plant, Promise};
use crate::trace::Actor;
use crate::world::{MS, World};

impl World {
    pub(crate) fn start_coordinator(&mut self, seat: usize) {
        let id = self.fresh_id();
        let Some(at) = self.seats.get_mut(seat).filter(|s| s.process.is_none() && s.wanted) else { return };
        at.process = Some(id);
        // Its clock is what the machine's was when it started; it never goes back while it runs.
        let ahead_ms = at.ahead_ms;
        let coordinator = Coordinator {
            seat,
            ahead_ms,
            core: Core::new(self.scenario.config.clone(), 0),
            gate: Gate::default(),
            records: VecDeque::new(),
            writing: false,
            pause_ms: 500,
            next_record: 0,
            fold: Fold::default(),
            submissions: VecDeque::new(),
            lines: BTreeMap::new(),
            rooms: BTreeMap::new(),
            locating: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_number: 0,
            lease: None,
            serving: false,
            stopped_until: 0,
            away_since: None,
            tick_at: None,
        };
        self.coordinators.insert(id, coordinator);
        self.say(Actor::Coordinator(id), "starts", [seat as u64, ahead_ms], || format!("clock {ahead_ms} ms ahead"));
        self.count("coordinators");
        self.store(Op::Acquire { coordinator: id });
    }

    pub(crate) fn leads(&mut self, id: Process, lease: u64) {
        if let Some(coordinator) = self.coordinators.get_mut(&id) {
            coordinator.lease = Some(lease);
            self.store(Op::Replay { coordinator: id });
            self.after(self.scenario.leader_lease / 4 * MS, Happening::RenewLease { coordinator: id });
        }
    }

    pub(crate) fn renew_lease(&mut self, id: Process) {
        if self.coordinators.contains_key(&id) {
            self.store(Op::Renew { coordinator: id });
            self.after(self.scenario.leader_lease / 4 * MS, Happening::RenewLease { coordinator: id });
        }
    }

    /// Takes over what the journal says, and serves.
    pub(crate) fn replayed(&mut self, id: Process, records: &[(u64, Vec<u8>)]) {
        let mut fold = match Fold::of(records) {
            Ok(fold) => fold,
            Err(error) => {
                self.violate(Promise::NeverSilentlyWrong, format!("the journal cannot be read: {error}"));
                return;
            }
        };
        if self.plants(Plant::ForgetGenerations) {
            fold.last_generation = 0;
        }
        let jobs = fold.jobs();
        let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
        coordinator.core = Core::new(self.scenario.config.clone(), fold.last_generation);
        coordinator.next_record = records.last().map_or(0, |(number, _)| number + 1);
        coordinator.fold = fold;
        coordinator.serving = true;
        self.say(Actor::Coordinator(id), "serves", [records.len() as u64, 0], || {
            format!("after {} journal records", records.len())
        });
        for mut job in jobs {
            if self.plants(Plant::ForgetGenerations) {
                job.last_generation = 0;
            }
            self.feed(id, Event::JobSubmitted(Box::new(job)));
        }
    }
}
