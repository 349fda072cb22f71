//! Leases of readers: a checkpoint that somebody reads is not removed by retention.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::CheckpointError;
use crate::{StorageError, Store};

/// Key prefix of the leases.
const LEASES: &str = "leases";
/// How long a lease holds, in milliseconds: longer than it takes to read a checkpoint, and than clocks differ.
const HOLDS_MS: i64 = 3_600_000;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    expires_unix_ms: i64,
}

/// A reader's claim on one checkpoint. Dropping it leaves it to run out.
#[derive(Debug)]
pub struct ReadLease {
    store: Store,
    key: String,
}

impl ReadLease {
    /// Gives the lease back.
    ///
    /// # Errors
    /// When the store fails; the lease runs out by itself then.
    pub async fn release(self) -> Result<(), StorageError> {
        self.store.delete(&self.key).await
    }
}

/// Keeps the checkpoint after `step` steps from being removed while it is read. It does not show that there is one: load its
/// manifest afterwards.
///
/// # Errors
/// When the store cannot be written. Reading without a lease is possible; what retention removes meanwhile is then reported
/// as missing.
pub async fn lease(store: &Store, step: u64, now_unix_ms: i64) -> Result<ReadLease, StorageError> {
    let key = format!("{LEASES}/{step:012}-{}.json", Uuid::new_v4().simple());
    let record = Record { expires_unix_ms: now_unix_ms + HOLDS_MS };
    store.put(&key, serde_json::to_vec(&record).unwrap_or_default()).await?;
    Ok(ReadLease { store: store.clone(), key })
}

/// Steps of the checkpoints that are being read. Leases that have run out, and what is no lease, are removed.
///
/// # Errors
/// When the store fails: it is unknown then what is being read.
pub async fn leased(store: &Store, now_unix_ms: i64) -> Result<BTreeSet<u64>, CheckpointError> {
    let mut steps = BTreeSet::new();
    for (key, _) in store.list(LEASES).await? {
        let step = key.rsplit('/').next().and_then(|name| name.split('-').next()?.parse().ok());
        let Some(bytes) = store.get_if_exists(&key).await? else { continue };
        let record: Option<Record> = serde_json::from_slice(&bytes).ok();
        match (step, record) {
            (Some(step), Some(record)) if record.expires_unix_ms > now_unix_ms => _ = steps.insert(step),
            _ => store.delete(&key).await?,
        }
    }
    Ok(steps)
}
