//! What the simulated workers share: the all-reduce of each generation, and the figures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use r2o_telemetry::{TaskKind, spawn};
use r2o_test_kit::wait_until;
use tokio::sync::watch;

use crate::figures::Figures;

/// One generation's process group: a step is over, for all at once, some time after the last member began it.
#[derive(Debug)]
pub(crate) struct Group {
    world: usize,
    step: Duration,
    state: Mutex<State>,
    /// Steps that are over.
    pub(crate) over: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Members that have begun a step.
    begun: BTreeMap<u64, usize>,
    /// Members that have reported a step.
    reported: BTreeMap<u64, usize>,
    /// When the last member reported the newest whole step.
    whole_at: Option<Instant>,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member begins a step; with the last one the all-reduce begins.
    pub(crate) fn begin(self: &Arc<Self>, step: u64) {
        let mut state = self.lock();
        let begun = state.begun.entry(step).or_default();
        *begun += 1;
        if *begun == self.world {
            state.begun.remove(&step);
            let group = Arc::clone(self);
            let _runs_on = spawn("all-reduce", TaskKind::Work, async move {
                tokio::time::sleep(group.step).await;
                group.over.send_replace(step + 1);
            });
        }
    }

    /// A member has sent its report of a step.
    pub(crate) fn reported(&self, step: u64) {
        let mut state = self.lock();
        let reported = state.reported.entry(step).or_default();
        *reported += 1;
        if *reported == self.world {
            state.reported.remove(&step);
            state.whole_at = Some(Instant::now());
        }
    }

    /// When the newest step was whole.
    pub(crate) fn whole_at(&self) -> Option<Instant> {
        self.lock().whole_at
    }
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) figures: Figures,
    pub(crate) spread: Duration,
    step: Duration,
    groups: Mutex<BTreeMap<u64, Arc<Group>>>,
    counts: Mutex<BTreeMap<u64, Arc<Counts>>>,
}

/// Members of one generation that have come so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) assigned: AtomicUsize,
    pub(crate) train: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(step: Duration, spread: Duration) -> Self {
        Self { figures: Figures::default(), spread, step, groups: Mutex::default(), counts: Mutex::default() }
    }

    /// The group of a generation of `world` members that begins at `step`. Older ones are forgotten.
    pub(crate) fn group(&self, generation: u64, world: usize, step: u64) -> Arc<Group> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|number, _| *number + 1 >= generation);
        let new = || Group { world, step: self.step, state: Mutex::default(), over: watch::Sender::new(step) };
        Arc::clone(groups.entry(generation).or_insert_with(|| Arc::new(new())))
    }

    pub(crate) fn counts(&self, generation: u64) -> Arc<Counts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counts.entry(generation).or_default())
    }

    /// The newest generation.
    pub(crate) fn generation(&self) -> u64 {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.keys().next_back().copied().unwrap_or(0)
    }

    /// Whether `members` members of a generation (or a later one) have a ticket.
    pub(crate) fn trains(&self, generation: u64, members: usize) -> impl Fn() -> bool {
        move || self.newest(generation, |c| c.train.load(Ordering::Relaxed) >= members)
    }

    /// Whether `members` members of a generation (or a later one) have their assignment.
    pub(crate) fn assigned(&self, generation: u64, members: usize) -> impl Fn() -> bool {
        move || self.newest(generation, |c| c.assigned.load(Ordering::Relaxed) >= members)
    }

    fn newest(&self, generation: u64, holds: impl Fn(&Counts) -> bool) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.range(generation..).any(|(_, counts)| holds(counts))
    }

    /// Waits until `steps` more steps are over.
    pub(crate) async fn wait_steps(&self, steps: u64, deadline: Duration) -> Result<()> {
        let over = || {
            let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups.values().next_back().map_or(0, |group| *group.over.borrow())
        };
        let until = over() + steps;
        wait_until(&format!("{steps} steps are over"), deadline, || async { Ok((over() >= until).then_some(())) }).await
    }
}
