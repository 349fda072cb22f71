//! Checkpoints: content-addressed tensors plus a manifest.
//!
//! ```text
//! objects/<blake3, hex>          the raw little-endian bytes of one tensor
//! manifests/<step, 12 digits>.json
//! leases/<step, 12 digits>-<uuid>.json   of readers
//! ```
//!
//! A checkpoint exists when, and only when, its manifest does. Workers write objects first and read them back; the
//! coordinator then puts the manifest, unless one of that step is there. Equal tensors of two checkpoints are one object.

mod lease;
mod manifest;
mod object;
mod retain;
mod verify;

use crate::StorageError;

pub use lease::{ReadLease, lease, leased};
pub use manifest::{
    Committed, Manifest, ManifestInfo, Newest, Refused, TensorEntry, commit, list, load_manifest, newest,
};
pub use object::{ObjectId, read_object, write_object};
pub use retain::{Keep, Removed, retain, sweep};
pub use verify::{BadTensor, Damage, Verified, verify, verify_manifest};

/// Key prefix of the objects.
pub(crate) const OBJECTS: &str = "objects";
/// Key prefix of the manifests.
pub(crate) const MANIFESTS: &str = "manifests";
/// Requests of one checkpoint operation that may be on their way at once.
pub(crate) const IN_FLIGHT: usize = 8;

/// Why a checkpoint could not be written, read or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no checkpoint of this step.
    #[error("there is no checkpoint of step {step} under {url}; `r2octl checkpoints ls {url}` lists those there are")]
    NoSuchStep {
        /// Where it was looked for.
        url: String,
        /// The asked step.
        step: u64,
    },
    /// A manifest's bytes are not what was written.
    #[error("checkpoint manifest {url} is damaged: {reason}; it is refused, use an earlier checkpoint")]
    DamagedManifest {
        /// The manifest.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest of a format that this program does not read.
    #[error("checkpoint manifest {url} has format {found}, this program reads format {known}; use a matching version")]
    UnknownFormat {
        /// The manifest.
        url: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A tensor's object is missing, truncated or altered.
    #[error(
        "tensor `{tensor}` of the checkpoint is damaged: {url}: {damage}; it is refused, use an earlier checkpoint"
    )]
    DamagedTensor {
        /// The tensor's name in the state.
        tensor: String,
        /// Its object.
        url: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// What was just written did not read back equal.
    #[error(
        "{url} did not read back as it was written: {damage}; the storage cannot be trusted, nothing was committed"
    )]
    NotStored {
        /// The object.
        url: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Some objects that a manifest names are not there, so the checkpoint must not come to exist.
    #[error("checkpoint of step {step} is incomplete: {} of its tensors are not stored under {url} ({}); it is not committed", missing.len(), missing.join(", "))]
    Incomplete {
        /// Where.
        url: String,
        /// The step.
        step: u64,
        /// The tensors' names.
        missing: Vec<String>,
    },
    /// Checkpoints exist, but none is whole. A job must not start from scratch then.
    #[error("none of the {} checkpoints under {url} can be read; repair or remove them, the job does not start over by itself:\n{}", refused.len(), refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    NoneReadable {
        /// Where.
        url: String,
        /// Each of them, newest first, and what is wrong with it.
        refused: Vec<Refused>,
    },
}

#[cfg(test)]
mod tests;
