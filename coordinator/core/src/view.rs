//! What others may see of the core.

use std::sync::Arc;

use crate::state::{Generation, Job, Phase, Wait, Worker};
use crate::{Core, Member, Millis, Outcome, Reason};

/// The state of a job, in the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Waits for workers.
    Queued,
    /// Waits for a person to resume it.
    Paused,
    /// A generation is being formed.
    Starting,
    /// Steps are computed, or the end is being written.
    Running,
    /// All steps are saved.
    Succeeded,
    /// Cannot go on.
    Failed,
    /// Stopped by a person.
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A job as others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Its name.
    pub name: String,
    /// The resolved job as JSON.
    pub spec: Arc<str>,
    /// Its state.
    pub state: JobState,
    /// Why it is in that state.
    pub reason: Reason,
    /// Whether a person paused it, though it may still finish its granted steps.
    pub paused: bool,
    /// The newest generation; 0: none yet.
    pub generation: u64,
    /// Steps of the whole job.
    pub steps: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
    /// Committed steps of the current state.
    pub committed: u64,
    /// Steps in the newest checkpoint; `None`: there is none.
    pub checkpoint: Option<u64>,
    /// The members of the current generation, in rank order.
    pub members: Arc<Vec<Member>>,
    /// When it was submitted.
    pub submitted_at: Millis,
    /// When its first generation opened.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Nothing.
    Idle,
    /// Forms a generation.
    Joining,
    /// Computes steps.
    Training,
}

/// A worker as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// What it says of itself.
    pub info: crate::WorkerInfo,
    /// What it does.
    pub state: WorkerState,
    /// For which job.
    pub job: Option<String>,
    /// Which lanes it computes.
    pub lanes: Vec<u32>,
}

impl Core {
    /// One job.
    #[must_use]
    pub fn job(&self, name: &str) -> Option<JobView> {
        let job = self.jobs.get(name)?;
        Some(JobView {
            name: name.to_owned(),
            spec: Arc::clone(&job.spec),
            state: state(job),
            reason: self.reason(job),
            paused: job.paused.is_some(),
            generation: job.generation,
            steps: job.steps(),
            steps_per_epoch: job.steps_per_epoch,
            committed: job.committed,
            checkpoint: job.checkpoint,
            members: job.active().map(|g| Arc::clone(&g.members)).unwrap_or_default(),
            submitted_at: job.submitted_at,
            started_at: job.started_at,
            ended_at: job.ended_at,
        })
    }

    /// Names of all jobs.
    pub fn job_names(&self) -> impl Iterator<Item = &str> {
        self.jobs.keys().map(String::as_str)
    }

    /// The job that a worker's stream trains.
    #[must_use]
    pub fn job_of(&self, session: crate::Session) -> Option<&str> {
        self.workers.get(&session)?.job.as_deref()
    }

    /// All connected workers, by name.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        let mut views: Vec<WorkerView> = self
            .workers
            .iter()
            .map(|(session, worker)| {
                let generation = worker.job.as_ref().and_then(|job| self.jobs.get(job)).and_then(Job::active);
                let lanes = generation.and_then(|g| Some(g.members[g.rank_of(*session)?].lanes.clone()));
                let state = match generation {
                    None => WorkerState::Idle,
                    Some(g) if g.training_since.is_some() => WorkerState::Training,
                    Some(_) => WorkerState::Joining,
                };
                WorkerView {
                    info: worker.info.clone(),
                    state,
                    job: worker.job.clone(),
                    lanes: lanes.unwrap_or_default(),
                }
            })
            .collect();
        views.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        views
    }

    pub(crate) fn reason(&self, job: &Job) -> Reason {
        match &job.phase {
            Phase::Locating => Reason::Locating,
            Phase::Queued { wait, .. } => self.waiting(job, wait),
            Phase::Active(generation) => training(job, generation),
            Phase::Ending { outcome } => Reason::Finalizing { outcome: outcome.clone() },
            Phase::Ended { outcome } => Reason::Ended { outcome: outcome.clone() },
        }
    }

    fn waiting(&self, job: &Job, wait: &Wait) -> Reason {
        let fleet = &job.job.spec.fleet;
        match wait {
            Wait::Joining { free } => Reason::Joining { free: *free, most: job.most_workers() },
            Wait::Behind(ahead) => Reason::Behind { job: ahead.clone() },
            Wait::Paused => Reason::Paused { reason: job.paused.clone().unwrap_or_default() },
            Wait::Claimed(workers) => Reason::Claiming { workers: *workers },
            Wait::Pause => {
                let failures = job.failures.in_a_row.values().copied().max().unwrap_or(0);
                Reason::BackingOff { failures, last: job.failures.last.clone() }
            }
            Wait::Workers | Wait::Version(_) if self.workers.is_empty() => {
                Reason::NoWorkers { needed: fleet.min_workers }
            }
            Wait::Workers | Wait::Version(_) => {
                let fitting: Vec<_> = self.workers.values().filter(|w| w.has_device(fleet.device)).collect();
                if fitting.is_empty() {
                    return Reason::NoSuchDevice { device: fleet.device, connected: self.workers.len() };
                }
                let busy = fitting.iter().filter(|w| w.job.is_some()).count();
                let free = fitting.iter().filter(|w| w.is_free()).count();
                let needed = fleet.min_workers as usize;
                let same = |w: &&&Worker| match wait {
                    Wait::Version(version) => w.is_free() && w.info.version == *version,
                    _ => w.is_free(),
                };
                let same = fitting.iter().filter(same).count();
                match wait {
                    // What became free by the last event is given out by the next.
                    _ if same >= needed => return Reason::Joining { free: same, most: job.most_workers() },
                    Wait::Version(version) if free >= needed => {
                        let (needed, version, others) = (fleet.min_workers, version.clone(), free - same);
                        return Reason::OtherVersions { needed, version, free: same, others };
                    }
                    _ => {}
                }
                Reason::TooFewWorkers { needed: fleet.min_workers, free, busy }
            }
        }
    }
}

fn training(job: &Job, generation: &Generation) -> Reason {
    if generation.training_since.is_none() {
        let (missing, more) = generation.missing();
        return Reason::Forming { generation: generation.number, missing, more };
    }
    match &job.saving.last_failure {
        Some(last) => Reason::CheckpointsFail { last: last.clone() },
        None if job.committed == job.steps() => Reason::LastCheckpoint,
        None => match &generation.closing {
            Some(closing) => Reason::HandingOver { reason: closing.reason.clone() },
            None => Reason::Training { workers: generation.members.len() },
        },
    }
}

fn state(job: &Job) -> JobState {
    match &job.phase {
        Phase::Queued { .. } if job.paused.is_some() => JobState::Paused,
        Phase::Locating | Phase::Queued { .. } => JobState::Queued,
        Phase::Active(g) if g.training_since.is_none() => JobState::Starting,
        Phase::Active(_) | Phase::Ending { .. } => JobState::Running,
        Phase::Ended { outcome: Outcome::Succeeded } => JobState::Succeeded,
        Phase::Ended { outcome: Outcome::Failed { .. } } => JobState::Failed,
        Phase::Ended { outcome: Outcome::Cancelled { .. } } => JobState::Cancelled,
    }
}
