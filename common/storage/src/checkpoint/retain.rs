//! Retention: which checkpoints stay, and what may be deleted with those that go.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::manifest_key;
use super::object::object_key;
use super::{CheckpointError, Manifest, OBJECTS, list, load_manifest};
use crate::Store;

/// Which checkpoints stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many. The newest one always stays.
    pub last: u32,
    /// Besides, the first checkpoint of every so many epochs.
    pub every_epochs: Option<u64>,
    /// Besides, these steps: a reader is at work on them.
    pub leased: BTreeSet<u64>,
}

/// What [`retain`] or [`sweep`] deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Steps of the checkpoints that are gone, oldest first.
    pub steps: Vec<u64>,
    /// How many objects are gone.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Deletes the checkpoints that `keep` does not name: first the manifests, then the objects that only they used. Objects
/// that no manifest names (of a checkpoint that is being written) are left alone; [`sweep`] is for those.
///
/// Only the leader calls this, and not while workers upload a checkpoint: they may have skipped an object that is there.
/// ([`commit`](super::commit) refuses a manifest with missing objects, so even then nothing wrong comes to exist.)
/// While some manifest cannot be read no object is deleted at all: what it uses is unknown.
///
/// # Errors
/// When the store fails. What was deleted until then is gone; calling again goes on.
pub async fn retain(store: &Store, keep: &Keep) -> Result<Removed, CheckpointError> {
    let mut manifests = BTreeMap::new();
    let mut unreadable = BTreeSet::new();
    for info in list(store).await? {
        match load_manifest(store, info.step).await {
            Ok(manifest) => _ = manifests.insert(info.step, manifest),
            Err(CheckpointError::Storage(e)) => return Err(e.into()),
            // A damaged manifest is evidence, not garbage: a person decides about it.
            Err(_) => _ = unreadable.insert(info.step),
        }
    }
    let epochs: BTreeMap<u64, u64> = manifests.iter().map(|(step, m)| (*step, m.epoch)).collect();
    let stay = steps_to_keep(&epochs, keep);
    let (stay, go): (Vec<&Manifest>, Vec<&Manifest>) = manifests.values().partition(|m| stay.contains(&m.step));
    let mut removed = Removed::default();
    for manifest in &go {
        store.delete(&manifest_key(manifest.step)).await?;
        removed.steps.push(manifest.step);
    }
    if !unreadable.is_empty() {
        return Ok(removed);
    }
    let used: BTreeSet<&str> = stay.iter().flat_map(|m| &m.tensors).map(|t| t.blake3.as_str()).collect();
    let unused: BTreeMap<&str, u64> = go
        .iter()
        .flat_map(|m| &m.tensors)
        .filter(|t| !used.contains(t.blake3.as_str()))
        .map(|t| (t.blake3.as_str(), t.bytes))
        .collect();
    for (id, bytes) in unused {
        store.delete(&object_key(id)).await?;
        removed.objects += 1;
        removed.bytes += bytes;
    }
    Ok(removed)
}

/// The rule of [`retain`] as a pure function of the checkpoints' steps and epochs.
pub(super) fn steps_to_keep(epochs: &BTreeMap<u64, u64>, keep: &Keep) -> BTreeSet<u64> {
    let last = usize::try_from(keep.last.max(1)).unwrap_or(usize::MAX);
    let mut stay: BTreeSet<u64> = epochs.keys().rev().take(last).copied().collect();
    stay.extend(keep.leased.iter().filter(|step| epochs.contains_key(step)));
    if let Some(every) = keep.every_epochs.filter(|every| *every > 0) {
        let mut seen = BTreeSet::new();
        for (step, epoch) in epochs {
            if *epoch > 0 && epoch % every == 0 && seen.insert(epoch) {
                stay.insert(*step);
            }
        }
    }
    stay
}

/// Deletes the objects that no manifest names: what checkpoints left behind that never came to exist, or a retention that
/// was cut short. Call it only while nothing is being written, for instance when a job has ended.
///
/// # Errors
/// When any manifest is damaged (what it uses is unknown), or the store fails.
pub async fn sweep(store: &Store) -> Result<Removed, CheckpointError> {
    let mut used = BTreeSet::new();
    for info in list(store).await? {
        let manifest = load_manifest(store, info.step).await?;
        used.extend(manifest.tensors.into_iter().map(|t| object_key(&t.blake3)));
    }
    let mut removed = Removed::default();
    for (key, bytes) in store.list(OBJECTS).await? {
        if !used.contains(&key) {
            store.delete(&key).await?;
            removed.objects += 1;
            removed.bytes += bytes;
        }
    }
    Ok(removed)
}
