//! Writing and reading the objects of a checkpoint.

use std::fmt;

use bytes::Bytes;

use super::{CheckpointError, Damage, OBJECTS, TensorEntry};
use crate::{StorageError, Store};

/// The name of an object: the BLAKE3 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    /// The name that these bytes have.
    pub fn of(bytes: &[u8]) -> Self {
        // Rayon pays from some hundred KiB on; below that one core is quicker.
        let mut hasher = blake3::Hasher::new();
        if bytes.len() >= 256 << 10 {
            hasher.update_rayon(bytes)
        } else {
            hasher.update(bytes)
        };
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of the object in a checkpoint's store.
    pub fn key(&self) -> String {
        object_key(&self.to_string())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

pub(super) fn object_key(blake3: &str) -> String {
    format!("{OBJECTS}/{blake3}")
}

/// Stores a tensor's bytes under their BLAKE3 and reads them back. An equal object that is there already is checked
/// instead of written; a damaged one is replaced.
///
/// # Errors
/// When the store fails, or [`CheckpointError::NotStored`] when what it holds afterwards is something else.
pub async fn write_object(store: &Store, bytes: impl Into<Bytes>) -> Result<ObjectId, CheckpointError> {
    let bytes = bytes.into();
    let id = ObjectId::of(&bytes);
    let key = id.key();
    if store.head(&key).await? == Some(bytes.len() as u64) && stored_equals(store, &key, &bytes).await?.is_none() {
        return Ok(id);
    }
    store.put(&key, bytes.clone()).await?;
    match stored_equals(store, &key, &bytes).await? {
        None => Ok(id),
        Some(damage) => Err(CheckpointError::NotStored { url: store.url_of(&key), damage }),
    }
}

async fn stored_equals(store: &Store, key: &str, bytes: &Bytes) -> Result<Option<Damage>, StorageError> {
    let Some(stored) = store.get_if_exists(key).await? else { return Ok(Some(Damage::Missing)) };
    if stored.len() != bytes.len() {
        return Ok(Some(Damage::Size { expected: bytes.len() as u64, found: stored.len() as u64 }));
    }
    Ok((stored != bytes).then_some(Damage::Content))
}

/// The bytes of a tensor: little-endian, contiguous, in the manifest's dtype and shape.
///
/// # Errors
/// [`CheckpointError::DamagedTensor`], with the tensor's name, when the object is missing or is not what was written.
pub async fn read_object(store: &Store, entry: &TensorEntry) -> Result<Bytes, CheckpointError> {
    let key = object_key(&entry.blake3);
    let damaged =
        |damage| CheckpointError::DamagedTensor { tensor: entry.name.clone(), url: store.url_of(&key), damage };
    let Some(bytes) = store.get_if_exists(&key).await? else { return Err(damaged(Damage::Missing)) };
    if bytes.len() as u64 != entry.bytes {
        return Err(damaged(Damage::Size { expected: entry.bytes, found: bytes.len() as u64 }));
    }
    if ObjectId::of(&bytes).to_string() != entry.blake3 {
        return Err(damaged(Damage::Content));
    }
    Ok(bytes)
}
