//! Checking every tensor of a checkpoint against its checksum.

use std::collections::BTreeMap;
use std::fmt;

use futures::{StreamExt, TryStreamExt, stream};

use super::{CheckpointError, IN_FLIGHT, Manifest, TensorEntry, load_manifest, read_object};
use crate::Store;

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It has another size: truncated, or overwritten.
    Size {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// Its bytes differ: a flipped bit, say.
    Content,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing => f.write_str("the object is missing"),
            Damage::Size { expected, found } if found < expected => {
                write!(f, "truncated to {found} of {expected} bytes")
            }
            Damage::Size { expected, found } => write!(f, "{found} bytes long instead of {expected}"),
            Damage::Content => f.write_str("its content does not match its BLAKE3"),
        }
    }
}

/// A tensor that cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTensor {
    /// Its name in the state.
    pub tensor: String,
    /// The name of its object.
    pub blake3: String,
    /// What is wrong.
    pub damage: Damage,
}

/// The result of [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The checkpoint's step.
    pub step: u64,
    /// How many tensors the manifest names.
    pub tensors: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Every tensor that is damaged, in the manifest's order; empty: all is well.
    pub bad: Vec<BadTensor>,
}

impl Verified {
    /// Whether every tensor passed.
    pub fn is_whole(&self) -> bool {
        self.bad.is_empty()
    }
}

/// Reads every tensor of the checkpoint of `step` and lists all that are damaged.
///
/// # Errors
/// When the manifest is absent or damaged, or the store fails.
pub async fn verify(store: &Store, step: u64) -> Result<Verified, CheckpointError> {
    verify_manifest(store, &load_manifest(store, step).await?).await
}

/// [`verify`] for a manifest that is loaded already.
///
/// # Errors
/// When the store fails.
pub async fn verify_manifest(store: &Store, manifest: &Manifest) -> Result<Verified, CheckpointError> {
    // An object that several tensors share is read once.
    let unique: BTreeMap<&str, &TensorEntry> = manifest.tensors.iter().map(|t| (t.blake3.as_str(), t)).collect();
    let checks = stream::iter(unique.into_values().cloned().map(|entry| check(store.clone(), entry)));
    let results: Vec<(String, u64, Option<Damage>)> = checks.buffer_unordered(IN_FLIGHT).try_collect().await?;
    let bytes = results.iter().map(|(_, bytes, _)| bytes).sum();
    let damaged: BTreeMap<&str, Damage> =
        results.iter().filter_map(|(id, _, damage)| Some((id.as_str(), (*damage)?))).collect();
    let bad = manifest.tensors.iter().filter_map(|t| {
        let damage = *damaged.get(t.blake3.as_str())?;
        Some(BadTensor { tensor: t.name.clone(), blake3: t.blake3.clone(), damage })
    });
    Ok(Verified { step: manifest.step, tensors: manifest.tensors.len(), bytes, bad: bad.collect() })
}

async fn check(store: Store, entry: TensorEntry) -> Result<(String, u64, Option<Damage>), CheckpointError> {
    match read_object(&store, &entry).await {
        Ok(bytes) => Ok((entry.blake3, bytes.len() as u64, None)),
        Err(CheckpointError::DamagedTensor { damage, .. }) => Ok((entry.blake3, 0, Some(damage))),
        Err(e) => Err(e),
    }
}
