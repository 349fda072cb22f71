//! What anybody may read without waiting for the actor: jobs, their progress, events and logs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use r2o_coordinator_core::{CommittedStep, JobView, Millis, Reason};
use r2o_proto::v1 as wire;
use r2o_storage::Store;
use r2o_storage::history::{self, StepRecord};
use r2o_storage::run::{self, EventRecord};

use crate::clock::Clock;
use crate::feed::Feed;
use crate::metrics::{JobMetrics, Metrics};
use crate::wire as to_wire;

const PROGRESS_KEPT: usize = 4_096;
const EVENTS_KEPT: usize = 10_000;
const LOGS_KEPT: usize = 5_000;

/// Weight of the newest step in the smoothed duration of a step.
const NEWEST: f64 = 0.2;

/// One job. A job that is submitted again gets a new entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) progress: Arc<Feed<wire::Progress>>,
    pub(crate) events: Arc<Feed<EventRecord>>,
    pub(crate) logs: Arc<Feed<wire::JobLog>>,
    /// Where checkpoints, history and report lie.
    pub(crate) store: Store,
    /// Held by whoever writes manifests or removes objects: what is about to be named must not be taken for an orphan.
    pub(crate) keeping: tokio::sync::Mutex<()>,
    pub(crate) epochs: u64,
    pub(crate) metrics: JobMetrics,
    clock: Clock,
    facts: Mutex<Facts>,
}

#[derive(Debug)]
struct Facts {
    view: JobView,
    last: Option<LastStep>,
    report: String,
    /// The word of the wait that its events tell of; empty: it waits for nothing.
    waits_for: &'static str,
    /// Why its next state is not shown yet: the journal cannot be written.
    held_up: Option<String>,
}

impl Facts {
    fn reason(&self) -> Reason {
        match &self.held_up {
            Some(reason) => Reason::JournalNotWritten { reason: reason.clone() },
            None => self.view.reason.clone(),
        }
    }
}

#[derive(Debug, Clone)]
struct LastStep {
    k: u32,
    tau: f64,
    learning_rate: f64,
    loss: f64,
    gradient_norm: f64,
    valid_regions: f64,
    images: u64,
    /// Smoothed.
    seconds: f64,
}

impl From<StepRecord> for LastStep {
    fn from(step: StepRecord) -> Self {
        Self {
            k: step.k,
            tau: step.tau,
            learning_rate: step.learning_rate,
            loss: step.loss,
            gradient_norm: step.gradient_norm,
            valid_regions: step.valid_regions,
            images: step.images,
            seconds: step.seconds,
        }
    }
}

/// What an earlier coordinator, or an earlier run of the job, left to look at.
#[derive(Debug, Default)]
pub(crate) struct Past {
    events: Vec<EventRecord>,
    last: Option<StepRecord>,
}

impl Past {
    /// Of a job with so many committed steps. It is only for people: what cannot be read stops nothing.
    pub(crate) async fn read(store: &Store, committed: u64) -> Self {
        let events = run::read_events(store).await.unwrap_or_default();
        let last = match committed.checked_sub(1) {
            Some(step) => history::read_step(store, step).await.unwrap_or_default(),
            None => None,
        };
        Self { events, last }
    }
}

impl Entry {
    pub(crate) fn new(
        view: JobView,
        epochs: u64,
        store: Store,
        past: Past,
        clock: Clock,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let metrics = JobMetrics::new(metrics, &view, clock);
        let events = Feed::new(EVENTS_KEPT);
        past.events.into_iter().for_each(|event| events.push(event));
        let last = past.last.map(LastStep::from);
        let facts = Mutex::new(Facts { view, last, report: String::new(), waits_for: "", held_up: None });
        let (progress, logs) = (Feed::new(PROGRESS_KEPT), Feed::new(LOGS_KEPT));
        let keeping = tokio::sync::Mutex::default();
        Arc::new(Self { progress, events, logs, store, keeping, epochs, metrics, clock, facts })
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> JobView {
        self.lock().view.clone()
    }

    pub(crate) fn spec(&self) -> Arc<str> {
        Arc::clone(&self.lock().view.spec)
    }

    /// Milliseconds since 1970.
    pub(crate) fn unix_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    pub(crate) fn set_report(&self, url: String) {
        self.lock().report = url;
    }

    /// Says that what comes next waits for the journal, and when it waits no more.
    pub(crate) fn set_held_up(&self, reason: Option<String>) {
        let before = std::mem::replace(&mut self.lock().held_up, reason.clone());
        match (before, reason) {
            (None, Some(reason)) => {
                let reason = Reason::JournalNotWritten { reason };
                self.announce(reason.word(), reason.to_string(), true);
            }
            (Some(_), None) => {
                self.announce("JournalWritten", "the coordinator's journal is written again".to_owned(), false)
            }
            _ => return,
        }
        let progress = self.progress_of(&self.lock());
        self.progress.push(progress);
    }

    /// Adds to the event log, and to the process's own log.
    pub(crate) fn announce(&self, reason: &str, message: String, warning: bool) {
        let job = self.lock().view.name.clone();
        if warning {
            tracing::warn!(job, "{reason}: {message}");
        } else {
            tracing::info!(job, "{reason}: {message}");
        }
        self.metrics.event(reason, warning);
        let event = EventRecord { unix_ms: self.clock.unix_ms(), reason: reason.to_owned(), message, warning };
        self.events.push(event);
    }

    /// Takes a committed step into the numbers of the progress that the next [`Entry::update`] shows.
    pub(crate) fn step(&self, step: &CommittedStep) {
        self.metrics.step(step);
        let mut facts = self.lock();
        let before = facts.last.as_ref().map_or(step.seconds, |l| l.seconds);
        facts.last = Some(LastStep {
            k: step.ticket.k,
            tau: step.ticket.tau,
            learning_rate: step.ticket.learning_rate,
            loss: step.loss,
            gradient_norm: step.gradient_norm,
            valid_regions: step.valid_regions,
            images: step.images,
            seconds: before + NEWEST * (step.seconds - before),
        });
    }

    /// Takes the job's new state and shows it to those who watch.
    pub(crate) fn update(&self, view: JobView) {
        // The first state is shown before there is any event; its events begin with how the job came here.
        let first = self.progress.last().is_none();
        let mut facts = self.lock();
        let same = facts.view == view && !facts.view.state.has_ended();
        let why = view.reason.clone();
        let waits_for = if why.is_wait() && !first { why.word() } else { "" };
        let begins_to_wait = !waits_for.is_empty() && waits_for != facts.waits_for;
        facts.waits_for = waits_for;
        facts.view = view;
        let progress = self.progress_of(&facts);
        let ended = facts.view.state.has_ended();
        self.metrics.update(&facts.view, progress.epoch, progress.images_per_second);
        drop(facts);
        if begins_to_wait {
            self.announce(why.word(), why.to_string(), false);
        }
        if same && !first {
            return;
        }
        self.progress.push(progress);
        if ended {
            self.progress.close();
            self.events.close();
            self.logs.close();
        }
    }

    fn progress_of(&self, facts: &Facts) -> wire::Progress {
        let view = &facts.view;
        let mut progress = wire::Progress {
            job: view.name.clone(),
            state: to_wire::job_state(view.state).into(),
            step: view.committed,
            steps: view.steps,
            epoch: epoch(view, self.epochs),
            epochs: self.epochs,
            generation: view.generation,
            reason: facts.reason().to_string(),
            ..wire::Progress::default()
        };
        if let Some(last) = &facts.last {
            progress.k = last.k;
            progress.tau = last.tau;
            progress.learning_rate = last.learning_rate;
            progress.loss = last.loss;
            progress.gradient_norm = last.gradient_norm;
            progress.valid_regions = last.valid_regions;
            if last.seconds > 0.0 {
                progress.images_per_second = last.images as f64 / last.seconds;
            }
            progress.eta_seconds = last.seconds * (view.steps - view.committed.min(view.steps)) as f64;
        }
        progress
    }

    /// The job in the API's words.
    pub(crate) fn job(&self) -> wire::Job {
        let facts = self.lock();
        let view = &facts.view;
        let why = to_wire::reason(&facts.reason(), &view.name);
        let ms = |at: Option<Millis>| at.and_then(|at| i64::try_from(at).ok()).unwrap_or(0);
        wire::Job {
            name: view.name.clone(),
            state: to_wire::job_state(view.state).into(),
            reason: why.sentence.clone(),
            spec: view.spec.to_string(),
            generation: view.generation,
            steps: view.steps,
            steps_per_epoch: view.steps_per_epoch,
            workers: view.members.iter().map(|m| m.worker.clone()).collect(),
            progress: Some(self.progress_of(&facts)),
            submitted_unix_ms: ms(Some(view.submitted_at)),
            started_unix_ms: ms(view.started_at),
            ended_unix_ms: ms(view.ended_at),
            checkpoint_step: view.checkpoint.unwrap_or(0),
            report: facts.report.clone(),
            why: Some(why),
        }
    }
}

/// The epoch of the last committed step, counted from 1.
fn epoch(view: &JobView, epochs: u64) -> u64 {
    (view.committed.saturating_sub(1) / view.steps_per_epoch.max(1) + 1).min(epochs)
}

/// All jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    jobs: Arc<RwLock<BTreeMap<String, Arc<Entry>>>>,
}

impl Board {
    pub(crate) fn insert(&self, name: &str, entry: Arc<Entry>) {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), entry);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Entry>> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
