//! Chunks in memory: those that came and those that are on their way, within a budget that counts both.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::error::DataError;
use crate::stats::LoaderStats;

/// A read that was started.
pub(crate) type Coming = JoinHandle<Result<Bytes, DataError>>;

#[derive(Debug)]
enum State {
    Coming(Coming),
    Here(Bytes),
}

#[derive(Debug)]
struct Held {
    bytes: u64,
    /// Step that it was last used for.
    used: u64,
    state: State,
}

/// What the walk over the steps knows of a chunk that it is going to need.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlook {
    /// The steps ahead that need it, one after another.
    pub(crate) steps: VecDeque<u64>,
    /// The disk cache has it.
    pub(crate) on_disk: bool,
}

/// Chunks that will be needed.
pub(crate) type Horizon = HashMap<usize, Outlook>;

/// The next step that needs a chunk; that of what nothing ahead needs is beyond all.
fn next_step(horizon: &Horizon, chunk: usize) -> u64 {
    horizon.get(&chunk).and_then(|outlook| outlook.steps.front()).copied().unwrap_or(u64::MAX)
}

/// The chunks.
#[derive(Debug)]
pub(crate) struct Shelf {
    budget: u64,
    bytes: u64,
    chunks: HashMap<usize, Held>,
    stats: Arc<LoaderStats>,
}

impl Shelf {
    pub(crate) fn new(budget: u64, stats: Arc<LoaderStats>) -> Self {
        Self { budget, bytes: 0, chunks: HashMap::new(), stats }
    }

    pub(crate) fn has(&self, chunk: usize) -> bool {
        self.chunks.contains_key(&chunk)
    }

    /// A chunk that came.
    pub(crate) fn here(&mut self, chunk: usize, step: u64) -> Option<Bytes> {
        let held = self.chunks.get_mut(&chunk)?;
        held.used = step;
        match &held.state {
            State::Here(bytes) => Some(bytes.clone()),
            State::Coming(_) => None,
        }
    }

    /// The read of a chunk that is on its way. Its bytes stay counted; [`Shelf::came`] or [`Shelf::lost`] must follow.
    pub(crate) fn coming(&mut self, chunk: usize) -> Option<&mut Coming> {
        match &mut self.chunks.get_mut(&chunk)?.state {
            State::Coming(read) => Some(read),
            State::Here(_) => None,
        }
    }

    /// Any chunk that is on its way.
    pub(crate) fn any_coming(&self) -> Option<usize> {
        self.chunks.iter().find(|(_, held)| matches!(held.state, State::Coming(_))).map(|(&chunk, _)| chunk)
    }

    /// Counts a read that was just started.
    pub(crate) fn start(&mut self, chunk: usize, bytes: u64, step: u64, read: Coming) {
        self.bytes += bytes;
        self.stats.buffer(bytes);
        self.chunks.insert(chunk, Held { bytes, used: step, state: State::Coming(read) });
    }

    pub(crate) fn came(&mut self, chunk: usize, bytes: Bytes) {
        if let Some(held) = self.chunks.get_mut(&chunk) {
            held.state = State::Here(bytes);
        }
    }

    /// Forgets a chunk, or the read of it, which failed.
    pub(crate) fn lost(&mut self, chunk: usize) {
        if let Some(held) = self.chunks.remove(&chunk) {
            self.bytes -= held.bytes;
            self.stats.unbuffer(held.bytes);
        }
    }

    /// Whether `bytes` more fit for a chunk that `step` needs, once chunks that are needed later have made room.
    pub(crate) fn make_room(&mut self, bytes: u64, step: u64, horizon: &Horizon) -> bool {
        while self.bytes + bytes > self.budget {
            let Some(last) = self.needed_last(horizon).filter(|&chunk| next_step(horizon, chunk) > step) else {
                return false;
            };
            self.lost(last);
        }
        true
    }

    /// Gives up a chunk of those that came, for something that is needed now. `false`: nothing came yet.
    pub(crate) fn give_up_one(&mut self, horizon: &Horizon) -> bool {
        self.needed_last(horizon).inspect(|&chunk| self.lost(chunk)).is_some()
    }

    /// Of the chunks that came the one whose next use is the farthest, which is the best to do without (Belady, 1966); of those
    /// that nothing ahead needs the longest unused.
    fn needed_last(&self, horizon: &Horizon) -> Option<usize> {
        let last = self.arrived().max_by_key(|&(&chunk, held)| (next_step(horizon, chunk), Reverse(held.used)));
        last.map(|(&chunk, _)| chunk)
    }

    fn arrived(&self) -> impl Iterator<Item = (&usize, &Held)> {
        self.chunks.iter().filter(|(_, held)| matches!(held.state, State::Here(_)))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.stats.unbuffer(self.bytes);
    }
}
