//! Streams between workers and coordinators. Each keeps its order, unless the scenario is unruly; streams among each other
//! do not. A stream that breaks is noticed at each end at another time, or only when a lease ends.

use r2o_coordinator_core::{Event, Session};

use crate::happening::{Down, Happening, Process, StreamId, Up};
use crate::trace::Actor;
use crate::world::{MS, World};

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) worker: Process,
    pub(crate) slot: usize,
    pub(crate) coordinator: Process,
    /// The coordinator's number for it, once it has read the hello.
    pub(crate) session: Option<Session>,
    /// Whether the worker still reads and writes it.
    pub(crate) worker_end: bool,
    /// Whether the coordinator does.
    pub(crate) coordinator_end: bool,
    /// Nothing that is sent from now on arrives.
    pub(crate) broken: bool,
    pub(crate) welcomed: bool,
    last_up: u64,
    last_down: u64,
}

impl World {
    pub(crate) fn open_stream(&mut self, worker: Process, slot: usize, coordinator: Process) -> StreamId {
        let id = self.fresh_id();
        let stream = Stream {
            worker,
            slot,
            coordinator,
            session: None,
            worker_end: true,
            coordinator_end: true,
            broken: false,
            welcomed: false,
            last_up: 0,
            last_down: 0,
        };
        self.streams.insert(id, stream);
        id
    }

    /// How long a message takes; now and then much longer.
    fn way(&mut self) -> u64 {
        let usual = self.dice.between(100, self.scenario.delay * MS);
        if !self.healing && self.dice.chance(self.scenario.late) {
            usual + self.dice.between(0, 900 * MS)
        } else {
            usual
        }
    }

    /// When something sent now from or to a slot arrives at the earliest, and whether the stream carries it.
    fn carried(&mut self, id: StreamId) -> Option<u64> {
        let way = self.way();
        let stream = self.streams.get(&id).filter(|s| !s.broken)?;
        Some(self.now.max(self.slots[stream.slot].cut_until) + way)
    }

    fn unruly(&mut self) -> bool {
        !self.healing && self.dice.chance(self.scenario.unruly)
    }

    pub(crate) fn send_up(&mut self, id: StreamId, message: Up) {
        let Some(at) = self.carried(id) else { return };
        let unruly = self.unruly();
        let twice = unruly && self.dice.chance(500) && !matches!(message, Up::Hello { .. });
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.worker_end) else { return };
        let at = if unruly { at } else { at.max(stream.last_up) };
        stream.last_up = stream.last_up.max(at);
        if twice {
            let again = at + self.dice.between(0, 300 * MS);
            self.at(again, Happening::Up { stream: id, message: message.clone() });
        }
        self.at(at, Happening::Up { stream: id, message });
    }

    pub(crate) fn send_down(&mut self, id: StreamId, message: Down) {
        let Some(at) = self.carried(id) else { return };
        let unruly = self.unruly() && !matches!(message, Down::Welcome | Down::End);
        let twice = unruly && self.dice.chance(500);
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.coordinator_end) else { return };
        let at = if unruly { at } else { at.max(stream.last_down) };
        stream.last_down = stream.last_down.max(at);
        if twice {
            let again = at + self.dice.between(0, 300 * MS);
            self.at(again, Happening::Down { stream: id, message: message.clone() });
        }
        self.at(at, Happening::Down { stream: id, message });
    }

    pub(crate) fn heartbeat(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| s.worker_end) {
            self.send_up(id, Up::Heartbeat);
            let every = self.scenario.config.lease_ms / 5;
            self.after(every * MS, Happening::Heartbeat { stream: id });
        }
    }

    /// Breaks a stream. Each end notices at its own time, or, for the coordinator's, maybe not at all: the lease is for that.
    pub(crate) fn break_stream(&mut self, id: StreamId, silently: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.broken = true;
        let (worker, coordinator) = (self.dice.between(0, 3_000 * MS), self.dice.between(0, 1_500 * MS));
        self.after(worker, Happening::WorkerEndBreaks { stream: id });
        if !silently {
            self.after(coordinator, Happening::CoordinatorEndBreaks { stream: id });
        }
    }

    pub(crate) fn worker_end_breaks(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.worker_end) else { return };
        stream.worker_end = false;
        let (worker, welcomed) = (stream.worker, stream.welcomed);
        if !stream.broken && stream.coordinator_end {
            stream.broken = true;
            let soon = self.dice.between(0, 300 * MS);
            self.after(soon, Happening::CoordinatorEndBreaks { stream: id });
        }
        self.forget_if_closed(id);
        if welcomed {
            self.stream_lost(worker);
        } else {
            self.after(300 * MS, Happening::Connect { process: worker });
        }
    }

    pub(crate) fn coordinator_end_breaks(&mut self, id: StreamId, reason: &str) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.coordinator_end) else { return };
        stream.broken = true;
        stream.coordinator_end = false;
        let (coordinator, session) = (stream.coordinator, stream.session);
        self.forget_if_closed(id);
        if let Some(session) = session {
            let event = Event::WorkerLeft { session, reason: reason.to_owned(), goodbye: false };
            self.feed(coordinator, event);
        }
    }

    /// The coordinator closes its end: what it sent before still arrives.
    pub(crate) fn close_by_coordinator(&mut self, id: StreamId) {
        self.send_down(id, Down::End);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.coordinator_end = false;
        }
        self.forget_if_closed(id);
    }

    pub(crate) fn arrive_up(&mut self, id: StreamId, message: Up) {
        let Some(stream) = self.streams.get(&id).filter(|s| s.coordinator_end) else { return };
        if self.slots[stream.slot].cut_until > self.now {
            let at = self.slots[stream.slot].cut_until;
            return self.at(at, Happening::Up { stream: id, message });
        }
        let (coordinator, session) = (stream.coordinator, stream.session);
        match (message, session) {
            (Up::Hello { worker, held }, None) => self.join(coordinator, id, worker, held),
            (Up::Hello { .. }, Some(_)) | (_, None) => {}
            (message, Some(session)) => self.heard(coordinator, id, session, message),
        }
    }

    pub(crate) fn arrive_down(&mut self, id: StreamId, message: Down) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.worker_end) else { return };
        if self.slots[stream.slot].cut_until > self.now {
            let at = self.slots[stream.slot].cut_until;
            return self.at(at, Happening::Down { stream: id, message });
        }
        let worker = stream.worker;
        match message {
            Down::End => self.worker_end_breaks(id),
            Down::Welcome => {
                stream.welcomed = true;
                self.welcomed(worker, id);
            }
            // Whoever hears anything else first takes it for another program's word.
            _ if !stream.welcomed && !matches!(message, Down::Refused { .. }) => self.worker_end_breaks(id),
            message => self.told_by_coordinator(worker, message),
        }
    }

    /// A process is gone: its ends of streams are, too.
    pub(crate) fn drop_streams_of_worker(&mut self, process: Process, seen: bool) {
        let mine: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| s.worker == process && s.worker_end).map(|(id, _)| *id).collect();
        for id in mine {
            let soon = self.dice.between(0, 300 * MS);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.worker_end = false;
            stream.broken = true;
            if seen {
                self.after(soon, Happening::CoordinatorEndBreaks { stream: id });
            }
            self.forget_if_closed(id);
        }
    }

    pub(crate) fn drop_streams_of_coordinator(&mut self, process: Process) {
        let mine: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| s.coordinator == process).map(|(id, _)| *id).collect();
        for id in mine {
            let soon = self.dice.between(0, 1_000 * MS);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.coordinator_end = false;
            stream.broken = true;
            self.after(soon, Happening::WorkerEndBreaks { stream: id });
            self.forget_if_closed(id);
        }
    }

    fn forget_if_closed(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| !s.worker_end && !s.coordinator_end) {
            self.streams.remove(&id);
        }
    }

    pub(crate) fn actor_of(&self, process: Process) -> Actor {
        self.workers.get(&process).map_or(Actor::World, |w| Actor::Worker(w.slot))
    }
}
