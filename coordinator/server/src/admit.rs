//! Whether a job may enter the queue: its values, its data, its storage, and what an earlier run left there.

use r2o_coordinator_core::Resume;
use r2o_storage::checkpoint::{self, CheckpointError};
use r2o_storage::{Store, open};
use r2o_telemetry::chain;
use r2o_types::{TrainJob, steps_per_epoch};
use serde_json::Value;
use tonic::Status;
use uuid::Uuid;

use crate::board::Past;
use crate::{dataset, limits};

/// Fields that may change between two submissions of one run. Epochs may only grow.
const MAY_CHANGE: &[&str] = &["metadata.labels", "spec.epochs", "spec.fleet", "spec.checkpoint", "spec.priority"];

/// Why a job is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// A field is impossible, or names something that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The name is taken by a job that has not ended.
    #[error("job {name} exists already with another {field}; cancel it first, or choose another metadata.name")]
    Taken { name: String, field: String },
    /// The queue is full.
    #[error("{} jobs have not ended, which is the most that this coordinator takes: cancel some", limits::JOBS)]
    TooMany,
    /// An earlier run's results stand in the way.
    #[error("{0}")]
    InTheWay(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Invalid(_) => Self::invalid_argument(message),
            Refused::Taken { .. } => Self::already_exists(message),
            Refused::TooMany => Self::resource_exhausted(message),
            Refused::InTheWay(_) => Self::failed_precondition(message),
        }
    }
}

/// A job that may enter the queue.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) job: TrainJob,
    pub(crate) steps_per_epoch: u64,
    pub(crate) last_generation: u64,
    pub(crate) resume: Resume,
    pub(crate) store: Store,
    /// Of an earlier run of the same job.
    pub(crate) past: Past,
    /// Checkpoints that were passed over.
    pub(crate) warnings: Vec<String>,
}

/// Parses a job and fills in where its results go.
pub(crate) fn parse(text: &str, state: &Store) -> Result<(TrainJob, Store), Refused> {
    let mut job = TrainJob::parse(text).map_err(|e| Refused::Invalid(e.to_string()))?;
    let store = match &job.spec.checkpoint.url {
        None => state.child(&format!("jobs/{}", job.metadata.name)),
        Some(url) => open(url).map_err(|e| Refused::Invalid(format!("spec.checkpoint.url: {}", chain(&e))))?,
    };
    job.spec.checkpoint.url = Some(store.url().to_owned());
    Ok((job, store))
}

/// Checks all that needs the network: the data set, the storage, and what lies there.
pub(crate) async fn admit(job: TrainJob, store: Store) -> Result<Admitted, Refused> {
    let url = &job.spec.data.url;
    let invalid = |path: &str, reason: String| Refused::Invalid(format!("{path}: {reason}"));
    let samples = dataset::samples(url).await.map_err(|e| invalid("spec.data.url", chain(&e).to_string()))?;
    let batch = &job.spec.batch;
    let steps_per_epoch = steps_per_epoch(samples, batch.lanes, batch.samples_per_lane);
    if steps_per_epoch == 0 {
        let needed = u64::from(batch.lanes) * u64::from(batch.samples_per_lane);
        let reason = format!(
            "one step takes {needed} samples ({} lanes of {}), but {url} has {samples}: use fewer lanes, fewer samples \
             per lane, or more data",
            batch.lanes, batch.samples_per_lane
        );
        return Err(invalid("spec.batch", reason));
    }
    probe(&store).await.map_err(|reason| invalid("spec.checkpoint.url", reason))?;
    let (resume, generation, warnings) = newest(&job, &store, steps_per_epoch).await?;
    let last_generation = generation.max(history_generation(&store).await?);
    let past = Past::read(&store, resume.committed()).await;
    Ok(Admitted { job, steps_per_epoch, last_generation, resume, store, past, warnings })
}

/// Whether objects can be written there, read back and deleted.
async fn probe(store: &Store) -> Result<(), String> {
    let key = format!("probe-{}", Uuid::new_v4().simple());
    let text = "written by r2o-coordinator to see whether it can";
    store.put(&key, text).await.map_err(|e| chain(&e).to_string())?;
    let read = store.get(&key).await.map_err(|e| chain(&e).to_string())?;
    store.delete(&key).await.map_err(|e| chain(&e).to_string())?;
    if read != text.as_bytes() {
        return Err(format!("{} gave back something else than was written there", store.url()));
    }
    Ok(())
}

/// Where the run goes on, and the generation that took that checkpoint.
async fn newest(job: &TrainJob, store: &Store, per_epoch: u64) -> Result<(Resume, u64, Vec<String>), Refused> {
    let newest = checkpoint::newest(store).await.map_err(|error| match error {
        CheckpointError::Storage(e) => Refused::Invalid(format!("spec.checkpoint.url: {}", chain(&e))),
        other => Refused::InTheWay(format!("spec.checkpoint.url: {}", chain(&other))),
    })?;
    let Some(newest) = newest else { return Ok((Resume::Fresh, 0, Vec::new())) };
    let warnings = newest.refused.iter().map(|r| format!("passed over a damaged checkpoint: {r}")).collect();
    let manifest = newest.manifest;
    if manifest.job != job.metadata.name {
        return Err(Refused::InTheWay(format!(
            "spec.checkpoint.url: {} holds checkpoints of job {}: give this job a folder of its own",
            store.url(),
            manifest.job
        )));
    }
    let new = serde_json::to_value(job).unwrap_or_default();
    if let Some((field, old, new)) = difference(&manifest.spec, &new) {
        return Err(Refused::InTheWay(format!(
            "{field}: is {new}, but the checkpoints under {} were made with {old}; set it back, or choose another \
             metadata.name and spec.checkpoint.url to start anew",
            store.url()
        )));
    }
    let steps = per_epoch * job.spec.epochs;
    if manifest.step > steps {
        return Err(Refused::InTheWay(format!(
            "spec.epochs: {} epochs have {steps} steps, but the newest checkpoint under {} is after step {}; raise it",
            job.spec.epochs,
            store.url(),
            manifest.step
        )));
    }
    Ok((Resume::Checkpoint(manifest.step), manifest.generation, warnings))
}

/// The highest generation that wrote history there.
async fn history_generation(store: &Store) -> Result<u64, Refused> {
    let listed = store.list("history").await;
    let listed = listed.map_err(|e| Refused::Invalid(format!("spec.checkpoint.url: {}", chain(&e))))?;
    let generation = |key: &str| key.strip_suffix(".jsonl")?.rsplit_once('-')?.1.parse().ok();
    Ok(listed.iter().filter_map(|(key, _)| generation(key)).max().unwrap_or(0))
}

/// The first field that differs and may not: its path, the old and the new value.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<(String, String, String)> {
    walk("", old, new).filter(|(path, _, _)| !path.is_empty())
}

fn walk(path: &str, old: &Value, new: &Value) -> Option<(String, String, String)> {
    if MAY_CHANGE.contains(&path) || old == new {
        return None;
    }
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        return names
            .filter_map(|n| walk(&join(n), a.get(n).unwrap_or(&Value::Null), b.get(n).unwrap_or(&Value::Null)))
            .next();
    }
    Some((path.to_owned(), old.to_string(), new.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_the_run_is_named_and_the_rest_may_change() {
        let old = json!({"spec": {"seed": 1, "epochs": 3, "fleet": {"minWorkers": 1}, "method": {"prior": {"kind": "slic"}}}});
        let mut new = old.clone();
        new["spec"]["epochs"] = json!(9);
        new["spec"]["fleet"]["minWorkers"] = json!(2);
        assert_eq!(difference(&old, &new), None);
        new["spec"]["method"]["prior"] = json!({"kind": "grid", "cells": 3});
        let (path, old_value, new_value) = difference(&old, &new).unwrap();
        assert!(path.starts_with("spec.method.prior."), "{path}");
        assert_ne!(old_value, new_value);
    }

    #[tokio::test]
    async fn storage_that_cannot_be_written_is_named() {
        // sysfs takes no new files from anybody, root included.
        let reason = probe(&open("/sys/r2o").unwrap()).await.unwrap_err();
        assert!(reason.contains("/sys/r2o"), "{reason}");
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(probe(&open(&folder.path().display().to_string()).unwrap()).await, Ok(()));
    }
}
