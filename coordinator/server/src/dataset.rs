//! What the coordinator must know of a data set: how many samples it has, and that its shards are there.

use std::collections::HashMap;

use r2o_storage::shard::{SetError, read_set};
use r2o_storage::{StorageError, open};

/// Why a data set cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatasetError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] StorageError),
    /// The index cannot be had, or is damaged.
    #[error(transparent)]
    Set(#[from] SetError),
    /// A shard is missing or cut.
    #[error("shard {url} has {found} bytes, its index says {expected}; pack the set again")]
    Shard { url: String, found: u64, expected: u64 },
    /// There is nothing to train on.
    #[error("the data set {url} has no samples; pack one by `r2octl data pack`")]
    Empty { url: String },
}

/// Number of samples of the set at `url`.
pub(crate) async fn samples(url: &str) -> Result<u64, DatasetError> {
    let store = open(url)?;
    let set = read_set(&store).await?;
    let samples = set.samples();
    if samples == 0 {
        return Err(DatasetError::Empty { url: store.url().to_owned() });
    }
    // Plain HTTP cannot list; its shards are looked at when they are read.
    if let Ok(listed) = store.list("").await {
        let sizes: HashMap<String, u64> = listed.into_iter().collect();
        for shard in &set.shards {
            let found = sizes.get(&shard.file).copied().unwrap_or(0);
            if found != shard.bytes {
                return Err(DatasetError::Shard { url: store.url_of(&shard.file), found, expected: shard.bytes });
            }
        }
    }
    Ok(samples)
}
