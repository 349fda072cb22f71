//! Reading a run's facts from its store. The only module of this crate that does IO.

use r2o_storage::checkpoint::{self, CheckpointError};
use r2o_storage::gallery::{self, GalleryError};
use r2o_storage::history::{self, HistoryError};
use r2o_storage::run::{self, RunError};
use r2o_storage::{StorageError, Store};
use serde_json::Value;

use crate::{Checkpoint, ReportInput};

/// Why a run's facts could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// There is nothing of a run at this URL.
    #[error("{url} holds no run: neither job.json nor history, gallery or manifests; give the job's checkpoint URL")]
    NoRun {
        /// The URL.
        url: String,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The spec or the events are damaged.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The history is damaged.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The gallery is damaged.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// The list of checkpoints cannot be had.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Reads all that a run left in its store. Parts that are not there (yet) stay empty; a damaged manifest is listed as such.
///
/// # Errors
/// [`CollectError::NoRun`] when nothing at all is there, and when a part is damaged or the store fails.
pub async fn collect(store: &Store) -> Result<ReportInput, CollectError> {
    let mut input = ReportInput {
        url: store.url().to_owned(),
        job: run::read_job(store).await?.unwrap_or(Value::Null),
        records: history::read_all(store).await?,
        pages: gallery::read_all(store).await?,
        events: run::read_events(store).await?,
        ..ReportInput::default()
    };
    for info in checkpoint::list(store).await? {
        let listed = match checkpoint::load_manifest(store, info.step).await {
            Ok(m) => {
                input.versions.extend(m.versions.clone());
                if input.job.is_null() {
                    input.job = m.spec.clone();
                }
                Checkpoint { step: m.step, epoch: m.epoch, tensors: m.tensors.len(), bytes: m.bytes(), damage: None }
            }
            Err(CheckpointError::Storage(e)) => return Err(e.into()),
            Err(e) => Checkpoint { step: info.step, damage: Some(e.to_string()), ..Checkpoint::default() },
        };
        input.checkpoints.push(listed);
    }
    let empty = input.job.is_null() && input.records.is_empty() && input.pages.is_empty();
    if empty && input.checkpoints.is_empty() {
        return Err(CollectError::NoRun { url: input.url });
    }
    Ok(input)
}
