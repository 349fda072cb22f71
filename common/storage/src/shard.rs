//! The index of a packed data set: what `r2octl data pack` writes and every reader starts from.
//!
//! ```text
//! index.json              the set: prior, classes, shards with their chunks
//! shard-000000.tar        samples in WebDataset's layout: KEY.json, KEY.jpg, KEY.slic, optional KEY.mask.png
//! shard-000000.json       where each sample's members lie in the tar
//! ```
//!
//! `index.json` is written last: a set without it is not finished. It names the BLAKE3 of every other file, and of every
//! chunk, so that nothing is read unchecked.

use std::collections::BTreeMap;

use r2o_types::ChunkRef;
use serde::{Deserialize, Serialize};

use crate::{StorageError, Store};

/// Key of the set's index.
pub const INDEX: &str = "index.json";
/// Version of the format that is written.
pub const FORMAT: u32 = 2;
/// The oldest version that is read. Its label maps are PNGs, `KEY.slic.png`, which nothing ties to their images.
pub const FORMAT_OLDEST: u32 = 1;

/// Bytes of an index at most: far more than a hundred million samples in shards of the usual size need.
const INDEX_MAX: u64 = 256 << 20;
/// Bytes of a chunk at most: an ordinary one and the longest image file that is packed.
const CHUNK_MAX: u64 = 192 << 20;
/// Side of a label map at most, in pixels.
const SIDE_MAX: u32 = 4096;

/// Why an index could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no index.
    #[error(
        "no data set at {url}: `{INDEX}` is missing; pack one by `r2octl data pack SRC --out {url}`, or finish it by the same command"
    )]
    Missing {
        /// Where it was looked for.
        url: String,
    },
    /// The index is not what was written.
    #[error("{url} is damaged: {reason}; `r2octl data inspect` lists what is, and packing again mends it")]
    Damaged {
        /// The file.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The index is of a later version.
    #[error(
        "{url} is of format {found}, this version reads {FORMAT_OLDEST} to {FORMAT}: use a newer r2o, or pack the set again"
    )]
    Format {
        /// The file.
        url: String,
        /// Its version.
        found: u32,
    },
}

/// A packed data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetIndex {
    /// From [`FORMAT_OLDEST`] to [`FORMAT`].
    pub format: u32,
    /// How the stored label maps were made.
    pub prior: PackedPrior,
    /// Names of the labels, in order: a sample's label is an index into them.
    pub classes: Vec<String>,
    /// The shards; sample ordinals run through them in this order.
    pub shards: Vec<ShardEntry>,
}

/// How the stored label maps were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackedPrior {
    /// Segments asked of SLIC.
    pub segments: u32,
    /// Side of a label map in pixels.
    pub size: u32,
    /// Names the algorithm, its parameters and the resize: maps of another definition are not the same regions.
    pub definition: String,
}

/// One tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardEntry {
    /// Key of the tar.
    pub file: String,
    /// Size of the tar.
    pub bytes: u64,
    /// BLAKE3 of the tar, hex.
    pub blake3: String,
    /// Key of the samples' index.
    pub index: String,
    /// BLAKE3 of the samples' index, hex.
    pub index_blake3: String,
    /// Its chunks, in order.
    pub chunks: Vec<ChunkEntry>,
}

impl ShardEntry {
    /// Samples of the shard.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.samples)).sum()
    }
}

/// A run of consecutive samples: the unit of ranged reads and of global shuffling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChunkEntry {
    /// First byte in the tar.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
    /// Samples, at least 1.
    pub samples: u32,
    /// BLAKE3 of these bytes, hex.
    pub blake3: String,
}

/// The samples of one shard, in the tar's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardIndex {
    /// One entry per sample.
    pub samples: Vec<SampleEntry>,
}

/// Where a sample's members lie in its tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SampleEntry {
    /// The sample's key: unique in the set.
    pub key: String,
    /// Index into the set's classes, when the source had labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<u32>,
    /// Width of the image in pixels.
    pub width: u32,
    /// Height of the image in pixels.
    pub height: u32,
    /// The image as it was.
    pub image: Member,
    /// The label map; a packed set always has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<Member>,
    /// The ground-truth mask, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Member>,
}

/// Bytes of one member in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    /// First byte.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

impl SetIndex {
    /// Samples of the whole set.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.shards.iter().map(ShardEntry::samples).sum()
    }

    /// The chunks as the epoch plan wants them.
    #[must_use]
    pub fn chunks(&self) -> Vec<ChunkRef> {
        let mut first = 0;
        let mut chunks = Vec::new();
        for (shard, entry) in self.shards.iter().enumerate() {
            for chunk in &entry.chunks {
                chunks.push(ChunkRef { shard: shard as u32, first, samples: chunk.samples });
                first += u64::from(chunk.samples);
            }
        }
        chunks
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=SIDE_MAX).contains(&self.prior.size) {
            return Err(format!("label maps of {} pixels a side, at most {SIDE_MAX} are read", self.prior.size));
        }
        let mut files = BTreeMap::new();
        for shard in &self.shards {
            if files.insert(shard.file.as_str(), ()).is_some() {
                return Err(format!("shard {} is listed twice", shard.file));
            }
            let mut end = 0;
            for (number, chunk) in shard.chunks.iter().enumerate() {
                let wrong = |what: &str| Err(format!("chunk {number} of shard {} {what}", shard.file));
                if chunk.samples == 0 {
                    return wrong("has no samples");
                }
                if chunk.bytes > CHUNK_MAX {
                    return wrong(&format!("has {} bytes, at most {CHUNK_MAX} are read", chunk.bytes));
                }
                if chunk.offset < end {
                    return wrong("overlaps the one before");
                }
                end = match chunk.offset.checked_add(chunk.bytes) {
                    Some(end) if end <= shard.bytes => end,
                    _ => return wrong("ends beyond the shard"),
                };
            }
        }
        Ok(())
    }
}

/// Reads a set's index: enough to know its samples and chunks, in one small request.
///
/// # Errors
/// When there is none, it is damaged or of a later format, or the store fails.
pub async fn read_set(store: &Store) -> Result<SetIndex, SetError> {
    let url = store.url_of(INDEX);
    let damaged = |reason: String| SetError::Damaged { url: url.clone(), reason };
    let missing = || SetError::Missing { url: store.url().to_owned() };
    let length = store.head(INDEX).await?.ok_or_else(missing)?;
    within(length).map_err(damaged)?;
    let bytes = store.get_if_exists(INDEX).await?.ok_or_else(missing)?;
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if !(FORMAT_OLDEST..=FORMAT).contains(&version.format) {
        return Err(SetError::Format { url, found: version.format });
    }
    let set: SetIndex = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    set.check().map_err(damaged)?;
    Ok(set)
}

/// Before an index is read into memory.
fn within(length: u64) -> Result<(), String> {
    if length > INDEX_MAX { Err(format!("{length} bytes, at most {INDEX_MAX} are read")) } else { Ok(()) }
}

/// Writes a set's index, which finishes the set.
///
/// # Errors
/// When the store fails.
pub async fn write_set(store: &Store, set: &SetIndex) -> Result<(), StorageError> {
    store.put(INDEX, pretty(set)).await
}

/// Reads the samples of one shard, checked against the set's index.
///
/// # Errors
/// When it is missing or damaged, or the store fails.
pub async fn read_shard(store: &Store, entry: &ShardEntry) -> Result<ShardIndex, SetError> {
    let damaged = |reason: String| SetError::Damaged { url: store.url_of(&entry.index), reason };
    within(store.head(&entry.index).await?.unwrap_or(0)).map_err(damaged)?;
    let bytes = store.get(&entry.index).await?;
    if blake3::hash(&bytes).to_hex().as_str() != entry.index_blake3 {
        return Err(damaged(format!("its BLAKE3 is not the one that {INDEX} names")));
    }
    let index: ShardIndex = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if index.samples.len() as u64 != entry.samples() {
        return Err(damaged(format!("it lists {} samples, {INDEX} says {}", index.samples.len(), entry.samples())));
    }
    let inside = |m: &Member| m.offset.checked_add(m.bytes).is_some_and(|end| end <= entry.bytes);
    let outside = index.samples.iter().find(|s| ![Some(s.image), s.prior, s.mask].iter().flatten().all(inside));
    match outside {
        Some(sample) => Err(damaged(format!("a member of sample {} lies beyond the shard", sample.key))),
        None => Ok(index),
    }
}

/// The JSON text of an index: stable, so that equal sets have equal bytes.
#[must_use]
pub fn pretty<T: Serialize>(index: &T) -> Vec<u8> {
    // Structures of numbers, strings and lists always have a JSON text.
    let mut text = serde_json::to_vec_pretty(index).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> SetIndex {
        let chunk = |offset, samples| ChunkEntry { offset, bytes: 100, samples, blake3: "00".to_owned() };
        let shard = |n: u32| ShardEntry {
            file: format!("shard-{n:06}.tar"),
            bytes: 1_000,
            blake3: "11".to_owned(),
            index: format!("shard-{n:06}.json"),
            index_blake3: "22".to_owned(),
            chunks: vec![chunk(0, 3), chunk(100, 2)],
        };
        SetIndex {
            format: FORMAT,
            prior: PackedPrior { segments: 100, size: 224, definition: "slic".to_owned() },
            classes: vec!["cat".to_owned()],
            shards: vec![shard(0), shard(1)],
        }
    }

    #[tokio::test]
    async fn a_set_comes_back_and_counts_its_samples() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::open(&folder.path().display().to_string()).unwrap();
        write_set(&store, &set()).await.unwrap();
        let read = read_set(&store).await.unwrap();
        assert_eq!(read, set());
        assert_eq!(read.samples(), 10);
        let chunks: Vec<_> = read.chunks().iter().map(|c| (c.shard, c.first, c.samples)).collect();
        assert_eq!(chunks, [(0, 0, 3), (0, 3, 2), (1, 5, 3), (1, 8, 2)]);
    }

    #[tokio::test]
    async fn no_set_a_later_format_and_damage_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::open(&folder.path().display().to_string()).unwrap();
        let missing = read_set(&store).await.unwrap_err().to_string();
        assert!(missing.contains("no data set at") && missing.contains("r2octl data pack"), "{missing}");
        store.put(INDEX, r#"{"format": 9}"#).await.unwrap();
        assert!(matches!(read_set(&store).await, Err(SetError::Format { found: 9, .. })));
        store.put(INDEX, "{").await.unwrap();
        assert!(matches!(read_set(&store).await, Err(SetError::Damaged { .. })));
        let mut wild = set();
        wild.shards[1].chunks[1].bytes = u64::MAX;
        write_set(&store, &wild).await.unwrap();
        let damaged = read_set(&store).await.unwrap_err().to_string();
        assert!(damaged.contains("shard-000001.tar"), "{damaged}");
    }
}
