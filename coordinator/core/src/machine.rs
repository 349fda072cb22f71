//! The core: takes events apart and hands them to the modules that know.

use std::collections::{BTreeMap, BTreeSet};

use r2o_types::Schedule;

use crate::reason::list;
use crate::state::{Blame, Failures, Job, Phase, Saving, Wait, Worker};
use crate::{Command, Event, Held, Millis, NewJob, Notice, Outcome, Resume, Session, WorkerInfo};

/// Spans of time, all in milliseconds, and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A worker that is not heard of for so long is lost; in a fleet of thousands it is a millisecond for each of them,
    /// so that heartbeats never come faster than they can be heard.
    pub lease_ms: Millis,
    /// How long a job that has enough workers waits for more.
    pub join_window_ms: Millis,
    /// How long a job that trains waits for more workers once one could join.
    pub grow_window_ms: Millis,
    /// How long a generation may take to form.
    pub form_timeout_ms: Millis,
    /// Steps that are granted ahead of the committed ones, at most.
    pub window: u64,
    /// How much work is granted ahead: enough to hide the way to the workers and back, little enough to be finished soon
    /// when somebody joins or leaves.
    pub ahead_ms: Millis,
    /// A generation in which no step is committed for so long has stalled.
    pub stall_ms: Millis,
    /// After every so many steps all ranks report hashes of their state; 0: never.
    pub parity_steps: u64,
    /// How long a worker whose state differed is kept out.
    pub quarantine_ms: Millis,
    /// How often a job may be set back without a new step before it fails.
    pub budgets: Budgets,
    /// The first pause after failures; it doubles with each further one, up to a minute.
    pub pause_ms: Millis,
    /// Look at all jobs and workers with every event, also where nothing can have changed: what tests compare with.
    pub eager: bool,
}

/// How often in a row, without a step that was never committed before, a job's generations may end early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budgets {
    /// Because workers were asked to leave, or were given to other jobs.
    pub preemption: u32,
    /// Because workers were lost, or networks or machines failed.
    pub infrastructure: u32,
    /// Because the job itself failed.
    pub code: u32,
    /// In the same way at the same step, even with progress in between: trying again is useless then.
    pub same_failure: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { preemption: 100, infrastructure: 20, code: 10, same_failure: 3 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 2_000,
            join_window_ms: 2_000,
            grow_window_ms: 300,
            form_timeout_ms: 600_000,
            window: 16,
            ahead_ms: 250,
            stall_ms: 300_000,
            parity_steps: 100,
            quarantine_ms: 10_000,
            budgets: Budgets::default(),
            pause_ms: 500,
            eager: false,
        }
    }
}

/// How many workers make a moment of a millisecond, in which others may come or go before they are looked at.
const WORKERS_PER_MS: Millis = 100;

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
    /// Workers whose generation ended with this event, and why: they are released unless they are placed anew.
    pub(crate) leaving: Vec<(Session, String, u64, String)>,
    /// How often the states of workers, by name, differed from their peers'.
    pub(crate) suspects: BTreeMap<String, u32>,
    /// Free workers that a queued job waits with, and that job.
    pub(crate) reserved: BTreeMap<Session, String>,
    /// When the next generation ends to let workers in.
    pub(crate) grows_at: Option<Millis>,
    /// The stream of each worker, by name.
    pub(crate) sessions: BTreeMap<String, Session>,
    /// Something changed that decides who trains what: see [`Core::settle`].
    pub(crate) unsettled: bool,
    /// When workers that came or left are looked at: those of a large fleet together.
    pub(crate) settle_at: Option<Millis>,
    /// Counts of workers changed, which the reasons of waiting jobs name.
    pub(crate) counts_changed: bool,
    /// No lease, quarantine or window of a worker ends before this.
    pub(crate) workers_due: Option<Millis>,
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
            leaving: Vec::new(),
            suspects: BTreeMap::new(),
            reserved: BTreeMap::new(),
            grows_at: None,
            sessions: BTreeMap::new(),
            unsettled: false,
            settle_at: None,
            counts_changed: false,
            workers_due: None,
        }
    }

    /// Takes one event and says what to do, in order.
    ///
    /// Heartbeats and reports, of which a large fleet sends thousands a second, change neither who could train what nor any
    /// deadline for the worse: those of a fleet that is at work cost no look at all of its workers.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Command> {
        match &event {
            Event::Tick
            | Event::WorkerHeard { .. }
            | Event::WorkerReady { .. }
            | Event::StepReported { .. }
            | Event::StepsRecovered { .. }
            | Event::PartUploaded { .. } => {}
            // A member that is lost ends its generation, which unsettles by itself.
            Event::WorkerJoined { .. }
            | Event::WorkerLeft { .. }
            | Event::WorkerPrepared { .. }
            | Event::WorkerDraining { .. } => self.settle_soon(now),
            _ => self.unsettled = true,
        }
        self.dispatch(now, event);
        self.grant_due(now);
        if self.unsettled || self.config.eager || self.next_deadline().is_some_and(|at| at <= now) {
            self.settle(now);
        }
        let mut commands = std::mem::take(&mut self.out);
        commands.extend(std::mem::take(&mut self.changed).into_iter().map(|job| Command::JobChanged { job }));
        commands
    }

    /// Workers of a large fleet that come or go within a moment are looked at together: each look is at all of them.
    fn settle_soon(&mut self, now: Millis) {
        let moment = self.workers.len() as Millis / WORKERS_PER_MS;
        self.settle_at.get_or_insert(now + moment);
    }

    /// Looks at what time has ended, and at all workers and jobs: who trains what.
    fn settle(&mut self, now: Millis) {
        (self.unsettled, self.settle_at) = (false, None);
        self.expire(now);
        self.place(now);
        self.claim(now);
        self.grow(now);
        self.release_leaving();
        self.show_counts();
        self.workers_due = self.workers_due_at();
    }

    fn dispatch(&mut self, now: Millis, event: Event) {
        match event {
            Event::Tick => {}
            Event::WasAway => self.on_was_away(now),
            Event::JobSubmitted(new) => self.on_submitted(*new),
            Event::CancelRequested { job, reason } => self.on_cancel(&job, reason),
            Event::PauseRequested { job, reason } => self.on_pause(now, &job, reason),
            Event::ResumeRequested { job } => self.on_resume(&job),
            Event::RequeueRequested { job } => self.on_requeue(now, &job),
            Event::CheckpointRequested { job, request } => self.on_checkpoint_requested(now, &job, request),
            Event::WorkerJoined { session, worker, held } => self.on_joined(now, session, worker, held),
            Event::WorkerDraining { session, reason } => self.on_draining(now, session, reason),
            Event::WorkerPrepared { session, job } => self.on_prepared(now, session, &job),
            Event::StepsRecovered { session, generation, reports } => self.on_recovered(session, generation, reports),
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
                self.on_job_failed(now, session, generation, step, &reason);
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
    }

    /// When [`Event::Tick`] is due at the latest; `None`: nothing waits for time to pass.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let jobs = self.jobs.values().filter_map(|job| match &job.phase {
            Phase::Queued { wait: Wait::Pause, .. } => Some(job.failures.not_before),
            Phase::Queued { enough_since: Some(since), .. } => Some(since + self.config.join_window_ms),
            Phase::Active(g) if g.training_since.is_none() => Some(g.opened_at + self.config.form_timeout_ms),
            // A generation that is to end commits what is granted first: no time is waited for.
            Phase::Active(g) if g.closing.is_some() && job.committed < g.granted => None,
            Phase::Active(g) if g.pending.is_none() && job.saving.overdue => Some(job.saving.retry_at),
            _ => None,
        });
        let stalls = self.jobs.values().filter_map(|job| self.stalls_at(job));
        let grants = self.jobs.values().filter_map(|job| job.active()?.grants_at);
        jobs.chain(stalls).chain(grants).chain(self.workers_due).chain(self.settle_at).min()
    }

    /// When the next lease, quarantine or window of a worker ends. Heartbeats only move that later, so it is looked at again
    /// no sooner than it is due.
    fn workers_due_at(&self) -> Option<Millis> {
        let leases = self.workers.values().map(|w| self.lease_ends(w)).min();
        let quarantines = self.workers.values().filter_map(|w| w.quarantine);
        quarantines.chain(leases).chain(self.grows_at).min()
    }

    /// How long a worker that joins now may be silent.
    #[must_use]
    pub fn lease_ms(&self) -> Millis {
        self.config.lease_ms.max(self.workers.len() as Millis)
    }

    /// When a worker's lease ends: never before what it was told when it joined.
    fn lease_ends(&self, worker: &Worker) -> Millis {
        worker.last_heard + worker.lease_ms.max(self.lease_ms())
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
            paused: new.paused,
            phase: Phase::Locating,
            checkpoint: None,
            committed: 0,
            lineage: new.lineage,
            located: false,
            last_workers: new.last_workers,
            high_water: 0,
            step_ms: None,
            failures: Failures::default(),
            forming_failures: 0,
            saving: Saving::default(),
            mixed_versions: false,
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
        job.located = true;
        job.checkpoint = checkpoint;
        job.committed = checkpoint.unwrap_or(0);
        job.high_water = job.high_water.max(job.committed);
        job.phase = Phase::Queued { enough_since: None, wait: Wait::Workers, at_once: false };
        if job.committed >= job.steps() {
            self.announce(name, "Resumed", "the newest checkpoint has all steps already".to_owned(), false);
            self.begin_end(name, Outcome::Succeeded);
        } else if let Some(step) = checkpoint {
            self.announce(name, "Resumed", format!("goes on from the checkpoint after step {step}"), false);
        }
    }

    fn on_joined(&mut self, now: Millis, session: Session, info: WorkerInfo, held: Option<Held>) {
        let old = self.sessions.get(&info.name).copied();
        let old = old.and_then(|old| Some((old, self.workers.get(&old)?.info.incarnation == info.incarnation)));
        if let Some((old, same_process)) = old {
            let reason = format!("another stream says that it is worker {}", info.name);
            self.out.push(Command::Disconnect { session: old, reason: reason.clone(), refuse: !same_process });
            self.lose(now, old, &reason, false);
        }
        let held = held.filter(|held| {
            let useful = |job: &Job| !job.has_ended() && job.lineage > 0 && held.generation >= job.lineage;
            let useful = self.jobs.get(&held.job).is_some_and(useful);
            if !useful {
                let reason = "the job has ended, or goes on from elsewhere".to_owned();
                let (job, generation) = (held.job.clone(), held.generation);
                self.out.push(Command::Release { session, job, generation, reason, keep: false });
            }
            useful
        });
        self.sessions.insert(info.name.clone(), session);
        let (told, lease) = (self.lease_ms(), now + self.lease_ms());
        self.workers_due = Some(self.workers_due.map_or(lease, |due| due.min(lease)));
        self.workers.insert(
            session,
            Worker {
                info,
                last_heard: now,
                lease_ms: told,
                job: None,
                held,
                draining: None,
                prepared: None,
                claimed: None,
                quarantine: None,
            },
        );
        self.waiting_jobs_change();
    }

    fn on_was_away(&mut self, now: Millis) {
        self.workers.values_mut().for_each(|worker| worker.last_heard = now);
        self.workers_due = None;
        for job in self.jobs.values_mut() {
            if let Phase::Active(generation) = &mut job.phase {
                generation.last_commit_at = now;
                generation.opened_at = now;
            }
        }
    }

    fn on_heard(&mut self, now: Millis, session: Session) {
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.last_heard = now;
        }
    }

    /// Whatever time has ended: leases, the forming of generations.
    fn expire(&mut self, now: Millis) {
        self.end_quarantines(now);
        let silent: Vec<(Session, Millis)> = self
            .workers
            .iter()
            .filter(|(_, w)| self.lease_ends(w) <= now)
            .map(|(session, w)| (*session, self.lease_ends(w) - w.last_heard))
            .collect();
        for (session, lease) in silent {
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
                let (missing, more) = g.missing();
                let missing = list(&missing, more);
                Some((name.clone(), format!("generation {} was not ready after {limit} ms: {missing}", g.number)))
            })
            .collect();
        for (name, reason) in late {
            self.end_generation(now, &name, &reason, Blame::Infrastructure);
        }
        self.expire_stalled(now);
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

    /// When a generation counts as stalled: it has granted steps, and none is committed.
    fn stalls_at(&self, job: &Job) -> Option<Millis> {
        let generation = job.active().filter(|g| g.training_since.is_some() && g.granted > job.committed)?;
        Some(generation.last_commit_at + self.config.stall_ms)
    }

    /// Workers that are alive but keep their peers waiting for a step are sent away; they may come back.
    fn expire_stalled(&mut self, now: Millis) {
        let limit = self.config.stall_ms;
        let stalled: Vec<(String, Vec<Session>)> = self
            .jobs
            .iter()
            .filter(|(_, job)| self.stalls_at(job).is_some_and(|at| at <= now))
            .filter_map(|(name, job)| {
                let generation = job.active()?;
                let reports = generation.reports.get(&job.committed)?;
                let silent = generation.members.iter().enumerate().filter(|(rank, _)| !reports.has(*rank));
                Some((name.clone(), silent.map(|(_, member)| member.session).collect()))
            })
            .collect();
        for (name, silent) in stalled {
            let members = self.jobs.get(&name).and_then(Job::active).map_or(0, |g| g.members.len());
            // When nobody has reported, nobody can be told from the others.
            if silent.len() < members {
                for session in silent {
                    let reason = format!("no step in {limit} ms, though its peers have reported theirs");
                    self.out.push(Command::Disconnect { session, reason: reason.clone(), refuse: false });
                    self.lose(now, session, &reason, false);
                }
            }
            self.end_generation(now, &name, &format!("no step was committed in {limit} ms"), Blame::Infrastructure);
        }
    }

    pub(crate) fn announce(&mut self, job: &str, reason: &'static str, message: String, warning: bool) {
        self.out.push(Command::Announce { job: job.to_owned(), notice: Notice { reason, message, warning } });
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
