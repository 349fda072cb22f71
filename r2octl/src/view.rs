//! What programs get: the same facts as the wire has, with readable states, times and specs. Field names are stable.

use r2o_proto::v1;
use r2o_storage::checkpoint::{Manifest, Verified};
use serde::Serialize;
use serde_json::Value;

use crate::format;

/// A job's state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum State {
    Unknown,
    Queued,
    Paused,
    Starting,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    pub(crate) fn of(state: i32) -> Self {
        use v1::JobState as S;
        match S::try_from(state).unwrap_or(S::Unspecified) {
            S::Unspecified => State::Unknown,
            S::Queued => State::Queued,
            S::Paused => State::Paused,
            S::Starting => State::Starting,
            S::Running => State::Running,
            S::Succeeded => State::Succeeded,
            S::Failed => State::Failed,
            S::Cancelled => State::Cancelled,
        }
    }

    pub(crate) fn is_final(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            State::Unknown => "Unknown",
            State::Queued => "Queued",
            State::Paused => "Paused",
            State::Starting => "Starting",
            State::Running => "Running",
            State::Succeeded => "Succeeded",
            State::Failed => "Failed",
            State::Cancelled => "Cancelled",
        })
    }
}

/// One job.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobView {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) why: WhyView,
    pub(crate) generation: u64,
    pub(crate) steps: u64,
    pub(crate) steps_per_epoch: u64,
    pub(crate) workers: Vec<String>,
    pub(crate) progress: ProgressView,
    pub(crate) submitted_at: Option<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    /// Committed steps of the newest checkpoint; null: there is none.
    pub(crate) checkpoint_step: Option<u64>,
    pub(crate) report: Option<String>,
    pub(crate) spec: Value,
    #[serde(skip)]
    pub(crate) submitted_unix_ms: i64,
}

impl From<v1::Job> for JobView {
    fn from(job: v1::Job) -> Self {
        let spec = serde_json::from_str(&job.spec).unwrap_or(Value::String(job.spec));
        Self {
            state: State::of(job.state),
            progress: ProgressView::from(job.progress.unwrap_or_default()).of(&job.name, job.state, job.steps),
            name: job.name,
            why: WhyView::of(job.why, &job.reason),
            reason: job.reason,
            generation: job.generation,
            steps: job.steps,
            steps_per_epoch: job.steps_per_epoch,
            workers: job.workers,
            submitted_at: at(job.submitted_unix_ms),
            started_at: at(job.started_unix_ms),
            ended_at: at(job.ended_unix_ms),
            checkpoint_step: (job.checkpoint_step > 0).then_some(job.checkpoint_step),
            report: (!job.report.is_empty()).then_some(job.report),
            spec,
            submitted_unix_ms: job.submitted_unix_ms,
        }
    }
}

/// Why a job is in its state.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhyView {
    /// CamelCase, one word per kind of reason.
    pub(crate) word: String,
    pub(crate) sentence: String,
    /// What a person can do; null: nothing need be done.
    pub(crate) hint: Option<String>,
}

impl WhyView {
    /// A coordinator of an earlier version sends only the sentence.
    fn of(why: Option<v1::Reason>, sentence: &str) -> Self {
        let unknown = || v1::Reason { word: "Unknown".into(), sentence: sentence.to_owned(), hint: String::new() };
        let why = why.unwrap_or_else(unknown);
        Self { word: why.word, sentence: why.sentence, hint: (!why.hint.is_empty()).then_some(why.hint) }
    }
}

fn at(unix_ms: i64) -> Option<String> {
    (unix_ms != 0).then(|| format::time(unix_ms))
}

/// How far a job is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProgressView {
    pub(crate) job: String,
    pub(crate) state: State,
    pub(crate) step: u64,
    pub(crate) steps: u64,
    pub(crate) epoch: u64,
    pub(crate) epochs: u64,
    pub(crate) k: u32,
    pub(crate) tau: f64,
    pub(crate) learning_rate: f64,
    pub(crate) loss: f64,
    pub(crate) images_per_second: f64,
    pub(crate) eta_seconds: f64,
    pub(crate) gradient_norm: f64,
    pub(crate) valid_regions: f64,
    pub(crate) generation: u64,
    pub(crate) reason: String,
}

impl ProgressView {
    /// Fills what a job that has not started leaves empty.
    fn of(mut self, job: &str, state: i32, steps: u64) -> Self {
        self.job = job.to_owned();
        self.state = State::of(state);
        self.steps = self.steps.max(steps);
        self
    }
}

impl From<v1::Progress> for ProgressView {
    fn from(p: v1::Progress) -> Self {
        Self {
            job: p.job,
            state: State::of(p.state),
            step: p.step,
            steps: p.steps,
            epoch: p.epoch,
            epochs: p.epochs,
            k: p.k,
            tau: p.tau,
            learning_rate: p.learning_rate,
            loss: p.loss,
            images_per_second: p.images_per_second,
            eta_seconds: p.eta_seconds,
            gradient_norm: p.gradient_norm,
            valid_regions: p.valid_regions,
            generation: p.generation,
            reason: p.reason,
        }
    }
}

/// Something that happened to a job.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    pub(crate) time: String,
    pub(crate) unix_ms: i64,
    pub(crate) warning: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl From<v1::Event> for EventView {
    fn from(e: v1::Event) -> Self {
        let time = format::time(e.unix_ms);
        Self { time, unix_ms: e.unix_ms, warning: e.warning, reason: e.reason, message: e.message }
    }
}

/// A line that a worker logged.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogView {
    pub(crate) time: String,
    pub(crate) unix_ms: i64,
    pub(crate) worker: String,
    pub(crate) level: String,
    pub(crate) target: String,
    pub(crate) message: String,
}

impl From<v1::JobLog> for LogView {
    fn from(l: v1::JobLog) -> Self {
        let time = format::time(l.unix_ms);
        let (worker, level, target) = (l.worker, l.level, l.target);
        Self { time, unix_ms: l.unix_ms, worker, level, target, message: l.message }
    }
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkerView {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) job: Option<String>,
    pub(crate) lanes: Vec<u32>,
    pub(crate) device: String,
    pub(crate) threads: u32,
    pub(crate) address: String,
    pub(crate) version: String,
}

impl From<v1::Worker> for WorkerView {
    fn from(w: v1::Worker) -> Self {
        let job = (!w.job.is_empty()).then_some(w.job);
        let (device, threads, address, version) = (w.device, w.threads, w.address, w.version);
        Self { name: w.name, state: w.state, job, lanes: w.lanes, device, threads, address, version }
    }
}

/// One checkpoint of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckpointView {
    pub(crate) step: u64,
    /// Null when the manifest cannot be read.
    pub(crate) epoch: Option<u64>,
    pub(crate) generation: Option<u64>,
    pub(crate) tensors: Option<usize>,
    pub(crate) bytes: Option<u64>,
    pub(crate) created_at: Option<String>,
    /// What is wrong with the manifest; null: nothing.
    pub(crate) damage: Option<String>,
    #[serde(skip)]
    pub(crate) created_unix_ms: i64,
}

impl CheckpointView {
    pub(crate) fn whole(m: &Manifest) -> Self {
        Self {
            step: m.step,
            epoch: Some(m.epoch),
            generation: Some(m.generation),
            tensors: Some(m.tensors.len()),
            bytes: Some(m.bytes()),
            created_at: at(m.created_unix_ms),
            damage: None,
            created_unix_ms: m.created_unix_ms,
        }
    }

    pub(crate) fn damaged(step: u64, damage: String) -> Self {
        let damage = Some(damage);
        Self {
            step,
            epoch: None,
            generation: None,
            tensors: None,
            bytes: None,
            created_at: None,
            damage,
            created_unix_ms: 0,
        }
    }
}

/// What verifying one checkpoint found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifyView {
    pub(crate) step: u64,
    pub(crate) ok: bool,
    pub(crate) tensors: usize,
    pub(crate) bytes: u64,
    pub(crate) bad: Vec<BadTensorView>,
    /// What is wrong with the manifest itself; null: nothing.
    pub(crate) damage: Option<String>,
}

/// One damaged tensor.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BadTensorView {
    pub(crate) tensor: String,
    pub(crate) object: String,
    pub(crate) damage: String,
}

impl From<Verified> for VerifyView {
    fn from(v: Verified) -> Self {
        let ok = v.is_whole();
        let bad = v.bad.into_iter().map(|b| BadTensorView {
            tensor: b.tensor,
            object: format!("objects/{}", b.blake3),
            damage: b.damage.to_string(),
        });
        Self { step: v.step, ok, tensors: v.tensors, bytes: v.bytes, bad: bad.collect(), damage: None }
    }
}
