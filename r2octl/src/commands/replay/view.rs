//! What `replay` prints of the journal.

use r2o_coordinator_core::{End, Fold, JobFacts, Outcome, Record};
use serde::Serialize;
use serde_json::Value;

use crate::format::{count, time};
use crate::view::State;

/// One record.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordView {
    kind: &'static str,
    number: u64,
    time: String,
    unix_ms: u64,
    /// The record's own kind.
    what: String,
    record: Value,
    /// The jobs that it is about, as they stand after it; null while the records before it are gone.
    jobs: Option<Vec<JobState>>,
    #[serde(skip)]
    said: String,
}

/// What the journal says of a job so far.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobState {
    job: String,
    state: State,
    /// How it ended, or why it is paused.
    reason: Option<String>,
    /// The highest generation that worked for it; 0: none.
    generation: u64,
    /// The oldest generation of the current course; 0: none.
    lineage: u64,
    workers: Vec<String>,
    /// Committed steps in the newest checkpoint.
    checkpoint_step: Option<u64>,
}

impl JobState {
    fn of(job: &str, facts: &JobFacts, after: &Record) -> Self {
        let waits = matches!(after, Record::JobResumed { .. } | Record::JobRequeued { .. });
        let (state, reason) = match (&facts.ended, &facts.paused) {
            (Some((end, _)), _) => {
                let state = match end {
                    End::Succeeded => State::Succeeded,
                    End::Failed { .. } => State::Failed,
                    End::Cancelled { .. } => State::Cancelled,
                };
                (state, Some(Outcome::from(end.clone()).to_string()))
            }
            (None, Some(reason)) => (State::Paused, Some(reason.clone())),
            // A generation that ends leaves no record: whether the job waits for the next one is not in the journal.
            (None, None) if facts.lineage > 0 && !waits => (State::Running, None),
            (None, None) => (State::Queued, None),
        };
        Self {
            job: job.to_owned(),
            state,
            reason,
            generation: facts.last_generation,
            lineage: facts.lineage,
            workers: facts.last_workers.clone(),
            checkpoint_step: facts.checkpoint,
        }
    }

    fn text(&self) -> String {
        let reason = self.reason.as_ref().filter(|r| !r.is_empty()).map(|r| format!(" ({r})")).unwrap_or_default();
        let mut text = format!("{} {}{reason}", self.job, self.state);
        if self.generation > 0 {
            text += &format!(", generation {}", self.generation);
        }
        if self.lineage > 0 && self.lineage != self.generation {
            text += &format!(" of the course since {}", self.lineage);
        }
        match self.checkpoint_step {
            Some(step) => text + &format!(", checkpoint after step {step}"),
            None => text + ", no checkpoint",
        }
    }
}

impl RecordView {
    /// `fold` is what the journal amounts to after the record; only `job` is told of when one is given.
    pub(super) fn new(number: u64, record: &Record, fold: Option<&Fold>, job: Option<&str>) -> Self {
        let about = |name: &str| job.or(record.job()).is_none_or(|about| about == name);
        let jobs = fold.map(|fold| {
            let jobs = fold.facts().filter(|(name, _)| about(name));
            jobs.map(|(name, facts)| JobState::of(name, facts, record)).collect()
        });
        let unix_ms = record.unix_ms();
        let (what, said) = say(record);
        Self {
            kind: "record",
            number,
            time: time(i64::try_from(unix_ms).unwrap_or(i64::MAX)),
            unix_ms,
            what: what.to_owned(),
            // A record was read from JSON, so it has a JSON value.
            record: serde_json::to_value(record).unwrap_or_default(),
            jobs,
            said,
        }
    }

    /// The record, and below it what it amounts to.
    pub(super) fn line(&self) -> String {
        let mut text = format!("{:>8} {}   {:<20} {}", self.number, self.time, self.what, self.said);
        let indent = " ".repeat(9);
        match &self.jobs {
            None => text += &format!("\n{indent}-> not known: the records before it are gone"),
            Some(jobs) => jobs.iter().for_each(|job| text += &format!("\n{indent}-> {}", job.text())),
        }
        text
    }
}

/// The record's kind and what it says.
fn say(record: &Record) -> (&'static str, String) {
    match record {
        Record::JobSubmitted { job, steps_per_epoch, .. } => {
            let steps = steps_per_epoch.saturating_mul(job.spec.epochs);
            (
                "JobSubmitted",
                format!("job {}: {} of {steps_per_epoch} an epoch", job.metadata.name, count(steps, "step")),
            )
        }
        Record::GenerationOpened { job, generation, workers, .. } => {
            ("GenerationOpened", format!("job {job}: generation {generation} on {}", workers.join(", ")))
        }
        Record::CheckpointCommitted { job, generation, step, .. } => {
            ("CheckpointCommitted", format!("job {job}: after step {step}, by generation {generation}"))
        }
        Record::JobPaused { job, reason, .. } => ("JobPaused", with(job, reason)),
        Record::JobResumed { job, .. } => ("JobResumed", with(job, "")),
        Record::JobRequeued { job, .. } => ("JobRequeued", with(job, "behind all others of its priority")),
        Record::Snapshot { jobs, last_generation, .. } => {
            let jobs = count(jobs.len() as u64, "job");
            ("Snapshot", format!("{jobs}, generations up to {last_generation}; repeats what the records before said"))
        }
        Record::JobEnded { job, outcome, .. } => ("JobEnded", with(job, &Outcome::from(outcome.clone()).to_string())),
    }
}

fn with(job: &str, text: &str) -> String {
    if text.is_empty() { format!("job {job}") } else { format!("job {job}: {text}") }
}

/// A record that cannot be gone beyond.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DamageView {
    kind: &'static str,
    number: u64,
    url: String,
    problem: String,
}

impl DamageView {
    pub(super) fn new(number: u64, url: String, problem: String) -> Self {
        Self { kind: "damage", number, url, problem }
    }

    pub(super) fn line(&self) -> String {
        format!("{:>8} !! the record {}", self.number, self.problem)
    }

    pub(super) fn text(&self) -> String {
        format!("journal record {} ({}) {}", self.number, self.url, self.problem)
    }
}
