//! The core: takes events apart and hands them to the modules that know.

use std::collections::{BTreeMap, BTreeSet};

use r2o_types::Schedule;

use crate::state::{Failures, Job, Phase, Saving, Wait, Worker};
use crate::{Command, Event, Millis, NewJob, Notice, Outcome, Refusal, Resume, Session, WorkerInfo};

/// Spans of time, all in milliseconds, and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A worker that is not heard of for so long is lost.
    pub lease_ms: Millis,
    /// How long a job that has enough workers waits for more.
    pub join_window_ms: Millis,
    /// How long a generation may take to form.
    pub form_timeout_ms: Millis,
    /// Steps that are granted ahead of the committed ones.
    pub window: u64,
    /// Failures in a row without a new step after which a job fails.
    pub failures_max: u32,
    /// The first pause after a failure; it doubles with each further one, up to a minute.
    pub pause_ms: Millis,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 10_000,
            join_window_ms: 2_000,
            form_timeout_ms: 600_000,
            window: 4,
            failures_max: 5,
            pause_ms: 500,
        }
    }
}

/// The longest pause after a failure.
pub(crate) const PAUSE_MAX_MS: Millis = 60_000;

/// The coordinator's state. See the crate documentation.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) workers: BTreeMap<Session, Worker>,
    pub(crate) last_generation: u64,
    pub(crate) out: Vec<Command>,
    pub(crate) changed: BTreeSet<String>,
}

impl Core {
    /// A coordinator without jobs and workers. Generations are numbered from `last_generation + 1`: it must be the highest
    /// number in the journal.
    #[must_use]
    pub fn new(config: Config, last_generation: u64) -> Self {
        Self {
            config,
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            last_generation,
            out: Vec::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Takes one event and says what to do, in order.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Command> {
        match event {
            Event::Tick => {}
            Event::JobSubmitted(new) => self.on_submitted(*new),
            Event::CancelRequested { job, reason } => self.on_cancel(&job, reason),
            Event::CheckpointRequested { job, request } => self.on_checkpoint_requested(now, &job, request),
            Event::WorkerJoined { session, worker } => self.on_joined(now, session, worker),
            Event::WorkerHeard { session } => self.on_heard(now, session),
            Event::WorkerLeft { session, reason, goodbye } => self.lose(now, session, &reason, goodbye),
            Event::WorkerReady { session, generation, step } => self.on_ready(now, session, generation, step),
            Event::StepReported { session, generation, step, report } => {
                self.on_report(now, session, generation, step, report);
            }
            Event::PartUploaded { session, generation, step, part } => {
                self.on_part(now, session, generation, step, part);
            }
            Event::GenerationFailed { session, generation, reason } => {
                self.on_generation_failed(now, session, generation, &reason);
            }
            Event::JobFailed { session, generation, step, reason } => {
                self.on_job_failed(session, generation, step, &reason);
            }
            Event::CheckpointCommitted { job, generation, step } => self.on_committed(now, &job, generation, step),
            Event::CheckpointNotCommitted { job, generation, step, reason } => {
                self.on_not_committed(now, &job, generation, step, reason);
            }
            Event::CheckpointLocated { job, step } => self.on_located(&job, step),
            Event::CheckpointsUnreadable { job, reason } => {
                if matches!(self.jobs.get(&job).map(|j| &j.phase), Some(Phase::Locating)) {
                    self.begin_end(&job, Outcome::Failed { reason });
                }
            }
            Event::Finalized { job } => self.on_finalized(now, &job),
        }
        self.expire(now);
        self.place(now);
        let mut commands = std::mem::take(&mut self.out);
        commands.extend(std::mem::take(&mut self.changed).into_iter().map(|job| Command::JobChanged { job }));
        commands
    }

    /// When [`Event::Tick`] is due at the latest; `None`: nothing waits for time to pass.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let leases = self.workers.values().map(|w| w.last_heard + self.config.lease_ms);
        let jobs = self.jobs.values().filter_map(|job| match &job.phase {
            Phase::Queued { wait: Wait::Pause, .. } => Some(job.failures.not_before),
            Phase::Queued { enough_since: Some(since), .. } => Some(since + self.config.join_window_ms),
            Phase::Active(g) if g.training_since.is_none() => Some(g.opened_at + self.config.form_timeout_ms),
            Phase::Active(g) if g.pending.is_none() && job.saving.overdue => Some(job.saving.retry_at),
            _ => None,
        });
        leases.chain(jobs).min()
    }

    /// How long a worker may be silent.
    #[must_use]
    pub fn lease_ms(&self) -> Millis {
        self.config.lease_ms
    }

    fn on_submitted(&mut self, new: NewJob) {
        let name = new.job.metadata.name.clone();
        // The shell asks before it records; a name in use would mix two runs.
        if self.jobs.get(&name).is_some_and(|j| !matches!(j.phase, Phase::Ended { .. })) {
            return;
        }
        let schedule = Schedule::new(&new.job.spec, new.steps_per_epoch);
        self.last_generation = self.last_generation.max(new.last_generation);
        let generation = self.jobs.get(&name).map_or(0, |j| j.generation).max(new.last_generation);
        let job = Job {
            spec: new.job.to_json().into(),
            schedule,
            steps_per_epoch: new.steps_per_epoch,
            order: new.order,
            phase: Phase::Locating,
            checkpoint: None,
            committed: 0,
            high_water: 0,
            failures: Failures::default(),
            saving: Saving::default(),
            submitted_at: new.submitted_at,
            started_at: None,
            ended_at: None,
            generation,
            job: new.job,
        };
        self.jobs.insert(name.clone(), job);
        self.changed.insert(name.clone());
        match new.resume {
            Resume::Fresh => self.enqueue(&name, None),
            Resume::Checkpoint(step) => self.enqueue(&name, Some(step)),
            Resume::Locate => self.out.push(Command::LocateCheckpoint { job: name }),
            Resume::Ended { outcome, at, checkpoint } => self.list_ended(&name, outcome, at, checkpoint),
        }
    }

    fn list_ended(&mut self, name: &str, outcome: Outcome, at: Millis, checkpoint: Option<u64>) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.checkpoint = checkpoint;
        job.committed = checkpoint.unwrap_or(0);
        job.high_water = job.committed;
        job.ended_at = Some(at);
        job.phase = Phase::Ended { outcome };
    }

    fn on_located(&mut self, name: &str, step: Option<u64>) {
        if matches!(self.jobs.get(name).map(|j| &j.phase), Some(Phase::Locating)) {
            self.enqueue(name, step);
        }
    }

    /// Puts a job whose newest checkpoint is known into the queue.
    fn enqueue(&mut self, name: &str, checkpoint: Option<u64>) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        self.changed.insert(name.to_owned());
        job.checkpoint = checkpoint;
        job.committed = checkpoint.unwrap_or(0);
        job.high_water = job.high_water.max(job.committed);
        job.phase = Phase::Queued { enough_since: None, wait: Wait::Workers };
        if job.committed >= job.steps() {
            self.announce(name, "Resumed", "the newest checkpoint has all steps already".to_owned(), false);
            self.begin_end(name, Outcome::Succeeded);
        } else if let Some(step) = checkpoint {
            self.announce(name, "Resumed", format!("goes on from the checkpoint after step {step}"), false);
        }
    }

    fn on_cancel(&mut self, name: &str, reason: String) {
        if self.jobs.get(name).is_some_and(|j| !j.has_ended()) {
            self.begin_end(name, Outcome::Cancelled { reason });
        }
    }

    fn on_joined(&mut self, now: Millis, session: Session, info: WorkerInfo) {
        let old: Vec<(Session, bool)> = self
            .workers
            .iter()
            .filter(|(_, w)| w.info.name == info.name)
            .map(|(s, w)| (*s, w.info.incarnation == info.incarnation))
            .collect();
        for (old, same_process) in old {
            let reason = format!("another stream says that it is worker {}", info.name);
            self.out.push(Command::Disconnect { session: old, reason: reason.clone(), refuse: !same_process });
            self.lose(now, old, &reason, false);
        }
        self.workers.insert(session, Worker { info, last_heard: now, job: None });
    }

    fn on_heard(&mut self, now: Millis, session: Session) {
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.last_heard = now;
        }
    }

    /// Whatever time has ended: leases, the forming of generations.
    fn expire(&mut self, now: Millis) {
        let lease = self.config.lease_ms;
        let silent: Vec<Session> =
            self.workers.iter().filter(|(_, w)| w.last_heard + lease <= now).map(|(s, _)| *s).collect();
        for session in silent {
            let reason = format!("not heard of for {lease} ms");
            self.out.push(Command::Disconnect { session, reason: reason.clone(), refuse: false });
            self.lose(now, session, &reason, false);
        }
        let limit = self.config.form_timeout_ms;
        let late: Vec<(String, String)> = self
            .jobs
            .iter()
            .filter_map(|(name, job)| {
                let g = job.active().filter(|g| g.training_since.is_none() && g.opened_at + limit <= now)?;
                let missing = g.missing().join(", ");
                Some((name.clone(), format!("generation {} was not ready after {limit} ms: {missing}", g.number)))
            })
            .collect();
        for (name, reason) in late {
            self.end_generation(now, &name, &reason, true);
        }
        let waiting: Vec<String> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.saving.overdue && j.active().is_some_and(|g| g.training_since.is_some()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            self.grant(now, &name);
        }
    }

    pub(crate) fn announce(&mut self, job: &str, reason: &'static str, message: String, warning: bool) {
        self.out.push(Command::Announce { job: job.to_owned(), notice: Notice { reason, message, warning } });
    }

    fn on_checkpoint_requested(&mut self, now: Millis, name: &str, request: u64) {
        let refusal = match self.jobs.get_mut(name) {
            None => Refusal::NoSuchJob,
            Some(job) if matches!(job.phase, Phase::Active(_)) => {
                job.saving.requests.push(request);
                self.grant(now, name);
                return;
            }
            Some(_) => {
                let reason = self.jobs.get(name).map(|j| self.reason(j).to_string()).unwrap_or_default();
                Refusal::NotTraining { reason }
            }
        };
        self.out.push(Command::AnswerCheckpoint { request, answer: Err(refusal) });
    }

    /// The job of whose generation `number` this stream is a member, and its rank. Everything of another generation is
    /// late and changes nothing (one writer).
    pub(crate) fn membership(&self, session: Session, number: u64) -> Option<(String, usize)> {
        let name = self.workers.get(&session)?.job.clone()?;
        let generation = self.jobs.get(&name)?.active().filter(|g| g.number == number)?;
        let rank = generation.rank_of(session)?;
        Some((name, rank))
    }
}
