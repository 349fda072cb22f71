//! What the coordinator measures: each number where its fact passes, and what is only worth a look when somebody asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use r2o_coordinator_core::{CommittedStep, JobState, JobView, Millis, Reason, WorkerState};
use r2o_telemetry::metrics::{CONTENT_TYPE, table};
use r2o_transport::ServerTls;
use tokio::sync::oneshot;

use crate::actor::{Mailbox, Message};
use crate::board::Board;
use crate::clock::Clock;

/// All metrics of a coordinator. Cheap to clone.
pub(crate) type Metrics = Arc<table::Coordinator>;

/// What was being done when storage failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Storage {
    Journal,
    Lease,
    History,
    Manifest,
    Locate,
    Retention,
    Report,
    Orphans,
}

impl Storage {
    fn word(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Lease => "lease",
            Self::History => "history",
            Self::Manifest => "manifest",
            Self::Locate => "locate",
            Self::Retention => "retention",
            Self::Report => "report",
            Self::Orphans => "orphans",
        }
    }

    /// Counts a failure of what is not tried again.
    pub(crate) fn failed(self, metrics: &Metrics) {
        metrics.storage_errors.inc(&[self.word()]);
    }

    /// Counts a failure of what is tried again.
    pub(crate) fn tried_again(self, metrics: &Metrics) {
        self.failed(metrics);
        metrics.storage_retries.inc(&[self.word()]);
    }
}

/// One job's numbers.
#[derive(Debug)]
pub(crate) struct JobMetrics {
    all: Metrics,
    job: String,
    clock: Clock,
    track: Mutex<Track>,
}

/// What numbers are made of that no single fact says.
#[derive(Debug, Default)]
struct Track {
    activity: Option<&'static str>,
    /// Until when the activity's time is counted.
    counted: Millis,
    /// Of what was counted: time of training, and all but that in which a person had paused the job.
    trained: Millis,
    lasted: Millis,
    committed: u64,
    granted: u64,
    /// When the last generation ended, while the next is not ready.
    broken: Option<Millis>,
    /// Why it ended.
    cause: Option<&'static str>,
}

impl Track {
    /// What was done until `now`, and for how long; it is `next` from now on.
    fn spend(&mut self, now: Millis, next: Option<&'static str>) -> Option<(&'static str, Millis)> {
        let spent = now.saturating_sub(std::mem::replace(&mut self.counted, now));
        let done = std::mem::replace(&mut self.activity, next)?;
        self.trained += if done == "training" { spent } else { 0 };
        self.lasted += if done == "paused" { 0 } else { spent };
        Some((done, spent))
    }

    fn goodput(&self) -> Option<f64> {
        (self.lasted > 0).then(|| self.trained as f64 / self.lasted as f64)
    }
}

impl JobMetrics {
    pub(crate) fn new(all: &Metrics, view: &JobView, clock: Clock) -> Self {
        let (all, job) = (Arc::clone(all), view.name.clone());
        if !view.state.has_ended() {
            all.registry().begin(&job);
            let labels = [job.as_str()];
            all.checkpoint_time.set(&labels, clock.unix_ms() as f64 / 1000.0);
            for counter in
                [&all.steps, &all.images, &all.replicas_differ, &all.replicas_healed, &all.checkpoint_failures]
            {
                counter.show(&labels);
            }
            [&all.step_seconds, &all.checkpoint_commit].iter().for_each(|histogram| histogram.show(&labels));
            table::ACTIVITIES.iter().for_each(|activity| all.activity.show(&[&job, activity]));
            table::OPENINGS.iter().for_each(|reason| all.generations.show(&[&job, reason]));
            table::REASONS.iter().for_each(|reason| all.recovery_seconds.show(&[&job, reason]));
        }
        let (committed, granted) = (view.committed, view.committed);
        let track = Track { counted: clock.now(), committed, granted, ..Track::default() };
        Self { all, job, clock, track: Mutex::new(track) }
    }

    /// The coordinator's numbers.
    pub(crate) fn all(&self) -> &Metrics {
        &self.all
    }

    fn lock(&self) -> MutexGuard<'_, Track> {
        self.track.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn labels(&self) -> [&str; 1] {
        [&self.job]
    }

    /// A step that all lanes have reported.
    pub(crate) fn step(&self, step: &CommittedStep) {
        let (all, labels) = (&self.all, &self.labels());
        all.steps.inc(labels);
        all.images.add(labels, step.images as f64);
        all.step_seconds.observe(labels, step.seconds);
        for (phase, seconds) in &step.timings {
            all.phase_seconds.observe(&[&self.job, phase], *seconds);
        }
        all.loss.set(labels, step.loss);
        all.k.set(labels, f64::from(step.ticket.k));
        all.tau.set(labels, step.ticket.tau);
        all.learning_rate.set(labels, step.ticket.learning_rate);
        all.gradient_norm.set(labels, step.gradient_norm);
        all.valid_regions.set(labels, step.valid_regions);
        let signals = [
            ("similarity", &all.similarity),
            ("embedding_std", &all.embedding_std),
            ("effective_rank", &all.effective_rank),
            ("kmeans_iterations", &all.kmeans_iterations),
            ("masks_per_image", &all.masks_per_image),
            ("largest_mask_ratio", &all.largest_mask),
            ("average_best_overlap", &all.average_best_overlap),
            ("prior_average_best_overlap", &all.prior_average_best_overlap),
        ];
        for (name, gauge) in signals {
            if let Some(value) = step.signals.get(name) {
                gauge.set(labels, *value);
            }
        }
    }

    /// The job's new state, after what led to it.
    pub(crate) fn update(&self, view: &JobView, epoch: u64, images_per_second: f64) {
        self.count_time(activity(&view.reason));
        if view.state.has_ended() {
            self.all.registry().retire(&self.job);
            return;
        }
        let (all, labels) = (&self.all, &self.labels());
        all.committed_steps.set(labels, view.committed as f64);
        all.total_steps.set(labels, view.steps as f64);
        all.epoch.set(labels, epoch as f64);
        all.members.set(labels, view.members.len() as f64);
        all.generation.set(labels, view.generation as f64);
        all.images_per_second.set(labels, images_per_second);
        all.checkpoint_step.set(labels, view.checkpoint.unwrap_or(0) as f64);
        let mut track = self.lock();
        track.committed = view.committed;
        // Tickets end with their generation.
        if view.members.is_empty() {
            track.granted = view.committed;
        }
        self.show_tickets(&track);
    }

    /// Leave was given to compute steps up to this number of committed ones.
    pub(crate) fn granted(&self, until: u64) {
        let mut track = self.lock();
        track.granted = until;
        self.show_tickets(&track);
    }

    fn show_tickets(&self, track: &Track) {
        self.all.tickets.set(&self.labels(), track.granted.saturating_sub(track.committed) as f64);
    }

    /// Counts the time until now for what the job does, which is this from now on.
    fn count_time(&self, next: Option<&'static str>) {
        if let Some((activity, spent)) = self.lock().spend(self.clock.now(), next) {
            self.all.activity.add(&[&self.job, activity], spent as f64 / 1000.0);
        }
    }

    /// Counts what goes on until now.
    pub(crate) fn look(&self) {
        let activity = self.lock().activity;
        self.count_time(activity);
    }

    /// Share of its time that the job has trained under this coordinator, pauses left out; none before there is any.
    pub(crate) fn goodput(&self) -> Option<f64> {
        self.look();
        self.lock().goodput()
    }

    /// An event of the job: its word is what says why generations end.
    pub(crate) fn event(&self, word: &str, warning: bool) {
        self.all.events.inc(&[word]);
        let mut track = self.lock();
        match word {
            "WorkerLost" => cause(&mut track, "worker_lost"),
            "WorkerLeft" => cause(&mut track, "worker_left"),
            "WorkerDraining" => cause(&mut track, "worker_drained"),
            "Preempted" | "Requeued" => cause(&mut track, "preempted"),
            "Paused" => cause(&mut track, "paused"),
            "ReplicaDiffers" | "ReplicasDiffer" => {
                self.all.replicas_differ.inc(&self.labels());
                cause(&mut track, "replica_differs");
            }
            "GenerationEnded" => {
                cause(&mut track, if warning { "failed" } else { "resized" });
                track.broken = track.broken.or(Some(self.clock.now()));
            }
            "GenerationOpened" => {
                self.all.generations.inc(&[&self.job, opening(&track)]);
            }
            "Training" => self.recovered(&mut track),
            "CheckpointFailed" => self.all.checkpoint_failures.inc(&self.labels()),
            _ => {}
        }
    }

    /// Why a generation that is opened now is opened.
    pub(crate) fn opening(&self) -> &'static str {
        opening(&self.lock())
    }

    /// A generation is ready. Time that a person took is nobody's recovery.
    fn recovered(&self, track: &mut Track) {
        let (broken, cause) = (track.broken.take(), track.cause.take());
        if let (Some(since), Some(cause)) = (broken, cause.filter(|cause| *cause != "paused")) {
            let seconds = self.clock.now().saturating_sub(since) as f64 / 1000.0;
            self.all.recovery_seconds.observe(&[&self.job, cause], seconds);
        }
        if cause == Some("replica_differs") {
            self.all.replicas_healed.inc(&self.labels());
        }
    }

    /// A checkpoint exists.
    pub(crate) fn checkpoint(&self, bytes: u64, seconds: f64) {
        let (all, labels) = (&self.all, &self.labels());
        all.checkpoint_time.set(labels, self.clock.unix_ms() as f64 / 1000.0);
        all.checkpoint_bytes.set(labels, bytes as f64);
        all.checkpoint_commit.observe(labels, seconds);
    }
}

fn opening(track: &Track) -> &'static str {
    track.cause.filter(|_| track.broken.is_some()).unwrap_or("first")
}

/// What came first is what broke the generation; the rest follows from it.
fn cause(track: &mut Track, cause: &'static str) {
    track.cause = track.cause.or(Some(cause));
}

/// What a job does with its time; nothing once it has ended.
fn activity(reason: &Reason) -> Option<&'static str> {
    match reason {
        Reason::Training { .. }
        | Reason::HandingOver { .. }
        | Reason::LastCheckpoint
        | Reason::CheckpointsFail { .. } => Some("training"),
        Reason::Forming { .. } => Some("forming"),
        Reason::Paused { .. } => Some("paused"),
        Reason::Finalizing { .. } => Some("finishing"),
        Reason::Ended { .. } => None,
        Reason::Locating
        | Reason::NoWorkers { .. }
        | Reason::NoSuchDevice { .. }
        | Reason::TooFewWorkers { .. }
        | Reason::OtherVersions { .. }
        | Reason::Behind { .. }
        | Reason::Joining { .. }
        | Reason::Claiming { .. }
        | Reason::BackingOff { .. }
        | Reason::JournalNotWritten { .. } => Some("waiting"),
    }
}

/// Where numbers are shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) metrics: Metrics,
    pub(crate) board: Board,
    pub(crate) mailbox: Mailbox,
    pub(crate) tls: Option<ServerTls>,
}

impl Shown {
    /// `/metrics`.
    pub(crate) fn page(self) -> Router {
        Router::new().route("/metrics", get(move || self.clone().show()))
    }

    async fn show(self) -> Response {
        if self.look().await.is_none() {
            return (StatusCode::SERVICE_UNAVAILABLE, "the coordinator is stopping\n").into_response();
        }
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.metrics.registry().text()).into_response()
    }

    /// Brings up to date what nobody counts; nothing, when the coordinator is stopping.
    pub(crate) async fn look(&self) -> Option<()> {
        let (reply, workers) = oneshot::channel();
        self.mailbox.send(Message::Workers { reply });
        let workers = workers.await.ok()?;
        for (state, word) in
            [(WorkerState::Idle, "idle"), (WorkerState::Joining, "joining"), (WorkerState::Training, "training")]
        {
            let count = workers.iter().filter(|worker| worker.state == state).count();
            self.metrics.workers.set(&[word], count as f64);
        }
        let mut jobs = [0_usize; table::JOB_STATES.len()];
        for entry in self.board.entries() {
            entry.metrics.look();
            jobs[state_index(entry.view().state)] += 1;
        }
        for (word, count) in table::JOB_STATES.iter().zip(jobs) {
            self.metrics.jobs.set(&[word], count as f64);
        }
        self.metrics.look(self.tls.as_ref().map(ServerTls::expires));
        Some(())
    }
}

/// In the order of [`table::JOB_STATES`].
fn state_index(state: JobState) -> usize {
    match state {
        JobState::Queued => 0,
        JobState::Paused => 1,
        JobState::Starting => 2,
        JobState::Running => 3,
        JobState::Succeeded => 4,
        JobState::Failed => 5,
        JobState::Cancelled => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodput_is_the_share_of_training_in_what_nobody_paused() {
        let mut track = Track { counted: 1_000, ..Track::default() };
        assert_eq!((track.spend(2_000, Some("forming")), track.goodput()), (None, None));
        assert_eq!(track.spend(4_000, Some("training")), Some(("forming", 2_000)));
        assert_eq!(track.spend(7_000, Some("paused")), Some(("training", 3_000)));
        assert_eq!(track.spend(90_000, Some("training")), Some(("paused", 83_000)));
        track.spend(93_000, None);
        assert_eq!(track.goodput(), Some(6.0 / 8.0));
        assert_eq!((track.spend(99_000, None), track.goodput()), (None, Some(6.0 / 8.0)));
    }
}
