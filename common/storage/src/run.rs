//! The small files beside a run's checkpoints: its spec, its events, its report.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{StorageError, Store};

/// Key of the job's resolved spec.
pub const JOB: &str = "job.json";
/// Key of the job's events.
pub const EVENTS: &str = "events.json";
/// Key of the report.
pub const REPORT: &str = "report.html";

/// Why a run's file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file is not what was written.
    #[error("{url} is damaged: {reason}")]
    Damaged {
        /// The file.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Something that happened to a job, as people read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventRecord {
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// CamelCase, one word per kind.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Whether a person should look at it.
    pub warning: bool,
}

/// Writes the job's resolved spec (the whole TrainJob).
///
/// # Errors
/// When the store fails.
pub async fn write_job(store: &Store, job: &Value) -> Result<(), StorageError> {
    store.put(JOB, format!("{job:#}\n")).await
}

/// Reads the job's spec; `None` when this is no run's folder.
///
/// # Errors
/// When it is damaged or the store fails.
pub async fn read_job(store: &Store) -> Result<Option<Value>, RunError> {
    read(store, JOB).await
}

/// Writes the job's events, all of them.
///
/// # Errors
/// When the store fails.
pub async fn write_events(store: &Store, events: &[EventRecord]) -> Result<(), StorageError> {
    // Structures of numbers and strings always have a JSON text.
    store.put(EVENTS, serde_json::to_vec_pretty(events).unwrap_or_default()).await
}

/// Reads the job's events; none when they were never written.
///
/// # Errors
/// When they are damaged or the store fails.
pub async fn read_events(store: &Store) -> Result<Vec<EventRecord>, RunError> {
    Ok(read(store, EVENTS).await?.unwrap_or_default())
}

async fn read<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> Result<Option<T>, RunError> {
    let Some(bytes) = store.get_if_exists(key).await? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|e| RunError::Damaged { url: store.url_of(key), reason: e.to_string() })
}
