//! Jobs, generations and workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use r2o_types::{Device, Schedule, TrainJob};

use crate::reason::NAMED;
use crate::{Held, Member, Millis, Outcome, Session, Start, StepReport, Tensor, WorkerInfo};

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) info: WorkerInfo,
    pub(crate) last_heard: Millis,
    /// How long it may be silent, as it was told.
    pub(crate) lease_ms: Millis,
    /// The job of whose current generation it is a member.
    pub(crate) job: Option<String>,
    /// The state that it keeps, in or out of a generation.
    pub(crate) held: Option<Held>,
    /// Why it is about to leave: it gets nothing new.
    pub(crate) draining: Option<String>,
    /// The job for which it was told to prepare, and since when it is prepared.
    pub(crate) prepared: Option<(String, Option<Millis>)>,
    /// The queued job that gets it when its generation ends.
    pub(crate) claimed: Option<String>,
    /// Until when it gets nothing, because its state differed from its peers'.
    pub(crate) quarantine: Option<Millis>,
}

impl Worker {
    /// Whether it could be placed in a generation.
    pub(crate) fn is_free(&self) -> bool {
        self.job.is_none() && self.draining.is_none() && self.quarantine.is_none()
    }

    /// Whether it was told to prepare for this job, and has not answered yet.
    pub(crate) fn prepares_for(&self, name: &str) -> bool {
        matches!(&self.prepared, Some((job, None)) if job == name)
    }

    /// Whether it stays in its generation when that is formed anew.
    pub(crate) fn stays(&self) -> bool {
        self.draining.is_none() && self.claimed.is_none()
    }

    pub(crate) fn has_device(&self, wanted: Device) -> bool {
        match wanted {
            Device::Auto => true,
            Device::Cpu => self.info.device.starts_with("cpu"),
            Device::Cuda => self.info.device.starts_with("cuda"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) job: TrainJob,
    pub(crate) spec: Arc<str>,
    pub(crate) schedule: Schedule,
    pub(crate) steps_per_epoch: u64,
    /// Place in the queue among equal priorities.
    pub(crate) order: u64,
    /// Why a person paused it; `None`: it is not paused.
    pub(crate) paused: Option<String>,
    pub(crate) phase: Phase,
    /// The newest committed checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// Committed steps of the current state; falls back to the checkpoint when nobody holds the state any more.
    pub(crate) committed: u64,
    /// The oldest generation whose state is of the current course.
    pub(crate) lineage: u64,
    /// Whether `checkpoint` is what the storage has: it is asked again before a generation starts from it.
    pub(crate) located: bool,
    /// Workers of the newest generation.
    pub(crate) last_workers: Vec<String>,
    /// The most steps that were ever committed: beyond it there is progress.
    pub(crate) high_water: u64,
    /// Milliseconds of a recent step.
    pub(crate) step_ms: Option<f64>,
    pub(crate) failures: Failures,
    /// Generations in a row that did not form from the state of their members.
    pub(crate) forming_failures: u32,
    pub(crate) saving: Saving,
    /// Whether it was said that its workers are of several versions.
    pub(crate) mixed_versions: bool,
    pub(crate) submitted_at: Millis,
    pub(crate) started_at: Option<Millis>,
    pub(crate) ended_at: Option<Millis>,
    /// The newest generation; 0: none yet.
    pub(crate) generation: u64,
}

impl Job {
    pub(crate) fn steps(&self) -> u64 {
        self.schedule.steps()
    }

    /// Workers that the job can use: every one computes at least one lane.
    pub(crate) fn most_workers(&self) -> usize {
        self.job.spec.fleet.max_workers.min(self.job.spec.batch.lanes) as usize
    }

    /// Whether a worker holds a state that this job can go on with.
    pub(crate) fn is_held_by(&self, worker: &Worker) -> bool {
        worker.held.as_ref().is_some_and(|held| {
            held.job == self.job.metadata.name
                && self.lineage > 0
                && held.generation >= self.lineage
                && held.step >= self.committed
        })
    }

    pub(crate) fn active(&self) -> Option<&Generation> {
        match &self.phase {
            Phase::Active(generation) => Some(generation),
            _ => None,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Ended { .. })
    }
}

/// Generations that ended early in a row without a step that was never committed before.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// By what they are blamed on: each has a budget of its own.
    pub(crate) in_a_row: BTreeMap<Blame, u32>,
    pub(crate) high_water: u64,
    /// The newest failure of the job itself: its step, what went wrong, how often the same in a row.
    pub(crate) same: Option<(u64, String, u32)>,
    pub(crate) last: String,
    pub(crate) not_before: Millis,
}

impl Failures {
    /// One more failure of the job itself; how often it has failed the same way at the same step.
    pub(crate) fn again(&mut self, step: u64, reason: &str) -> u32 {
        let times = match &self.same {
            Some((s, r, times)) if *s == step && r == reason => times + 1,
            _ => 1,
        };
        self.same = Some((step, reason.to_owned(), times));
        times
    }
}

/// When the next checkpoint is due.
#[derive(Debug, Default)]
pub(crate) struct Saving {
    /// When the last one was taken, or training began.
    pub(crate) last_at: Millis,
    /// One was due while another was being written, or failed.
    pub(crate) overdue: bool,
    /// Not before, after a failure.
    pub(crate) retry_at: Millis,
    pub(crate) failures: u32,
    /// Why the last one was not written; cleared by success.
    pub(crate) last_failure: Option<String>,
    /// Requests that no checkpoint has been taken for yet.
    pub(crate) requests: Vec<u64>,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// The storage is asked for the newest checkpoint.
    Locating,
    /// Waits for workers; since when there are enough of them. `at_once`: workers that held the state a moment ago go on
    /// without waiting for more.
    Queued { enough_since: Option<Millis>, wait: Wait, at_once: bool },
    /// Has a generation.
    Active(Box<Generation>),
    /// History and report are being written.
    Ending { outcome: Outcome },
    /// Has ended.
    Ended { outcome: Outcome },
}

/// What a queued job waits for, as the last placing saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    Workers,
    Behind(String),
    Joining {
        free: usize,
    },
    /// Enough are free, but not of this version.
    Version(String),
    Pause,
    /// Paused by a person.
    Paused,
    /// So many workers of other jobs finish their step for it.
    Claimed(usize),
}

#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) members: Arc<Vec<Member>>,
    pub(crate) start: Start,
    pub(crate) opened_at: Millis,
    /// The rank of each member's stream.
    pub(crate) ranks: BTreeMap<Session, usize>,
    /// Which ranks are ready; training starts when all are.
    pub(crate) ready: Gathering<()>,
    /// The steps that those who are ready hold.
    pub(crate) ready_with: Option<u64>,
    /// Steps that members applied in earlier generations and that are not committed yet.
    pub(crate) recovered: BTreeMap<u64, StepReport>,
    /// No more steps are granted, because the generation ends when those that are granted are committed.
    pub(crate) closing: Option<Closing>,
    /// Since when steps are granted.
    pub(crate) training_since: Option<Millis>,
    /// The next step that was not granted yet.
    pub(crate) granted: u64,
    /// When that is due to be granted; none: with the next commit.
    pub(crate) grants_at: Option<Millis>,
    /// Reports by rank of granted steps that are not committed.
    pub(crate) reports: BTreeMap<u64, Gathering<StepReport>>,
    pub(crate) last_commit_at: Millis,
    pub(crate) pending: Option<Pending>,
}

impl Generation {
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.members.iter().map(|m| m.session).collect()
    }

    pub(crate) fn rank_of(&self, session: Session) -> Option<usize> {
        self.ranks.get(&session).copied()
    }

    /// The members that are not ready: the first few by name, and how many more there are.
    pub(crate) fn missing(&self) -> (Vec<String>, usize) {
        let waits = |(rank, member): (usize, &Member)| (!self.ready.has(rank)).then(|| member.worker.clone());
        let first: Vec<String> = self.members.iter().enumerate().filter_map(waits).take(NAMED).collect();
        let more = self.ready.missing() - first.len();
        (first, more)
    }
}

/// One thing from each rank.
#[derive(Debug)]
pub(crate) struct Gathering<T> {
    parts: Vec<Option<T>>,
    missing: usize,
}

impl<T> Gathering<T> {
    pub(crate) fn new(ranks: usize) -> Self {
        Self { parts: (0..ranks).map(|_| None).collect(), missing: ranks }
    }

    /// Takes a rank's part. False, and nothing changes, when that is there already.
    pub(crate) fn add(&mut self, rank: usize, part: T) -> bool {
        let Some(place @ None) = self.parts.get_mut(rank) else { return false };
        *place = Some(part);
        self.missing -= 1;
        true
    }

    pub(crate) fn has(&self, rank: usize) -> bool {
        self.parts.get(rank).is_some_and(Option::is_some)
    }

    /// How many ranks' parts are not there.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// The parts that are there, in rank order.
    pub(crate) fn into_parts(self) -> Vec<T> {
        self.parts.into_iter().flatten().collect()
    }
}

/// A checkpoint that was begun so short a time ago may be given up for one with more workers.
const YOUNG_MS: Millis = 2_000;

/// A checkpoint that workers are uploading, or whose manifest is being written.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) step: u64,
    /// When it was asked for.
    pub(crate) since: Millis,
    pub(crate) parts: Gathering<Vec<Tensor>>,
    pub(crate) requests: Vec<u64>,
    pub(crate) committing: bool,
}

/// Why a generation ends between two steps, without a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    /// In a sentence.
    pub(crate) reason: String,
    /// Nobody who stays could go on: the state must be saved before.
    pub(crate) save_first: bool,
    /// What the end says against the job.
    pub(crate) blame: Blame,
    /// Its workers are not the first to go on with it: a person sent it back to the queue.
    pub(crate) to_queue: bool,
}

impl Pending {
    /// Whether it is no loss to begin again in the next generation, with those who would otherwise wait for it.
    pub(crate) fn yields(&self, now: Millis, closing: &Closing) -> bool {
        let grows = closing.blame == Blame::Nobody && !closing.save_first && !closing.to_queue;
        grows && !self.committing && self.requests.is_empty() && now < self.since + YOUNG_MS
    }
}

impl Closing {
    pub(crate) fn new(reason: String, blame: Blame) -> Self {
        Self { reason, save_first: false, blame, to_queue: false }
    }

    /// The same, for two reasons.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            reason: format!("{}; {}", self.reason, other.reason),
            save_first: self.save_first || other.save_first,
            blame: self.blame.max(other.blame),
            to_queue: self.to_queue || other.to_queue,
        }
    }
}

/// What the end of a generation says against its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blame {
    /// Nothing: it was planned.
    Nobody,
    /// A worker was asked to leave, or another job took it.
    Preemption,
    /// A worker was lost, or a network or a machine failed.
    Infrastructure,
    /// The job itself: its code, its data, a number that is none.
    Code,
}
