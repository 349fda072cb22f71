//! What the coordinator must know of a data set: how many samples it has.

use r2o_storage::{StorageError, open};
use serde::Deserialize;

/// Key of a set's index.
const INDEX: &str = "index.json";

/// Why the number of samples is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatasetError {
    /// The index cannot be had.
    #[error("{0}")]
    Storage(#[source] StorageError),
    /// There is something else, or nothing.
    #[error("{url} holds no packed data set: there is no {INDEX}; give what `r2octl data pack` wrote")]
    NoIndex { url: String },
    /// The index is not what was packed.
    #[error("the index {url} of the data set is damaged: {reason}; pack the set again")]
    Damaged { url: String, reason: String },
    /// There is nothing to train on.
    #[error("the data set {url} has no samples")]
    Empty { url: String },
}

/// The part of the index that concerns the coordinator.
#[derive(Deserialize)]
struct Index {
    samples: u64,
}

/// Number of samples of the set at `url`.
pub(crate) async fn samples(url: &str) -> Result<u64, DatasetError> {
    let store = open(url).map_err(DatasetError::Storage)?;
    let Some(bytes) = store.get_if_exists(INDEX).await.map_err(DatasetError::Storage)? else {
        return Err(DatasetError::NoIndex { url: store.url().to_owned() });
    };
    let damaged = |e: serde_json::Error| DatasetError::Damaged { url: store.url_of(INDEX), reason: e.to_string() };
    let index: Index = serde_json::from_slice(&bytes).map_err(damaged)?;
    if index.samples == 0 {
        return Err(DatasetError::Empty { url: store.url().to_owned() });
    }
    Ok(index.samples)
}
