//! Jobs, generations and workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use r2o_types::{Device, Schedule, TrainJob};

use crate::{Member, Millis, Outcome, Session, StepReport, Tensor, WorkerInfo};

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) info: WorkerInfo,
    pub(crate) last_heard: Millis,
    /// The job of whose current generation it is a member.
    pub(crate) job: Option<String>,
}

impl Worker {
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
    pub(crate) order: u64,
    pub(crate) phase: Phase,
    /// The newest committed checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// Committed steps of the current state; falls back to the checkpoint with every new generation.
    pub(crate) committed: u64,
    /// The most steps that were ever committed: beyond it there is progress.
    pub(crate) high_water: u64,
    pub(crate) failures: Failures,
    pub(crate) saving: Saving,
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

/// Generations that failed in a row without a step that was never committed before.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) in_a_row: u32,
    pub(crate) high_water: u64,
    pub(crate) last: String,
    pub(crate) not_before: Millis,
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
    /// Waits for workers; since when there are enough of them.
    Queued { enough_since: Option<Millis>, wait: Wait },
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
    Joining { free: usize },
    Pause,
}

#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) members: Arc<Vec<Member>>,
    pub(crate) opened_at: Millis,
    /// Which ranks are ready; training starts when all are.
    pub(crate) ready: Vec<bool>,
    /// Since when steps are granted.
    pub(crate) training_since: Option<Millis>,
    /// The next step that was not granted yet.
    pub(crate) granted: u64,
    /// Reports by step and rank of granted steps that are not committed.
    pub(crate) reports: BTreeMap<u64, Vec<Option<StepReport>>>,
    pub(crate) last_commit_at: Millis,
    pub(crate) pending: Option<Pending>,
}

impl Generation {
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.members.iter().map(|m| m.session).collect()
    }

    pub(crate) fn rank_of(&self, session: Session) -> Option<usize> {
        self.members.iter().position(|m| m.session == session)
    }

    pub(crate) fn missing(&self) -> Vec<String> {
        self.members.iter().zip(&self.ready).filter(|(_, ready)| !**ready).map(|(m, _)| m.worker.clone()).collect()
    }
}

/// A checkpoint that workers are uploading, or whose manifest is being written.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) step: u64,
    pub(crate) parts: Vec<Option<Vec<Tensor>>>,
    pub(crate) requests: Vec<u64>,
    pub(crate) committing: bool,
}
