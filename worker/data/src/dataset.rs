//! A packed set: its index, and reads of its chunks that are checked against their hashes.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use r2o_storage::Store;
use r2o_storage::shard::{self, PackedPrior, SampleEntry, SetIndex, ShardIndex};
use r2o_types::ChunkRef;

use crate::error::DataError;
use crate::labels::Binding;

/// Shard indexes that are read at a time.
const CONCURRENT_READS: usize = 16;

/// A packed data set, opened for reading.
#[derive(Debug)]
pub struct Dataset {
    store: Store,
    url: String,
    set: SetIndex,
    shards: Vec<ShardIndex>,
    chunks: Vec<ChunkRef>,
    /// Number of each chunk in its shard.
    numbers: Vec<usize>,
    /// Ordinal of each shard's first sample.
    firsts: Vec<u64>,
}

impl Dataset {
    /// Reads the indexes of the set at `url`.
    ///
    /// # Errors
    /// When there is no set, an index is damaged, or the store fails.
    pub async fn open(url: &str) -> Result<Self, DataError> {
        let store = r2o_storage::open(url)?;
        let set = shard::read_set(&store).await?;
        let shards: Vec<ShardIndex> = stream::iter(&set.shards)
            .map(|s| shard::read_shard(&store, s))
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        let chunks = set.chunks();
        let numbers = set.shards.iter().flat_map(|s| 0..s.chunks.len()).collect();
        let mut next = 0;
        let firsts = set
            .shards
            .iter()
            .map(|s| {
                let first = next;
                next += s.samples();
                first
            })
            .collect();
        Ok(Self { url: store.url().to_owned(), store, shards, chunks, numbers, firsts, set })
    }

    /// Where the set lies.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.set.samples()
    }

    /// Runs of samples, in the set's order.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// How the stored label maps were made.
    #[must_use]
    pub fn prior(&self) -> &PackedPrior {
        &self.set.prior
    }

    /// What ties the stored label maps to their images.
    pub(crate) fn binding(&self) -> Binding {
        binding(&self.set)
    }

    /// Names of the labels.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.set.classes
    }

    /// Key of a sample; empty when there is no such sample.
    #[must_use]
    pub fn key(&self, sample: u64) -> String {
        self.locate(sample).map(|place| place.entry.key.clone()).unwrap_or_default()
    }

    /// Index into [`Dataset::classes`], when the source had labels.
    #[must_use]
    pub fn label(&self, sample: u64) -> Option<u32> {
        self.locate(sample).ok().and_then(|place| place.entry.label)
    }

    /// Where a sample lies.
    pub(crate) fn locate(&self, sample: u64) -> Result<Place<'_>, DataError> {
        let samples = self.samples();
        if sample >= samples {
            return Err(DataError::NoSample { url: self.url.clone(), sample, samples });
        }
        let chunk = self.chunks.partition_point(|c| c.first <= sample) - 1;
        let shard = self.chunks[chunk].shard as usize;
        let entry = &self.shards[shard].samples[(sample - self.firsts[shard]) as usize];
        let start = self.set.shards[shard].chunks[self.numbers[chunk]].offset;
        Ok(Place { chunk, shard, entry, start })
    }

    /// URL of a shard's tar, for messages.
    pub(crate) fn shard_url(&self, shard: usize) -> String {
        self.store.url_of(&self.set.shards[shard].file)
    }

    /// Reads one chunk and checks it.
    pub(crate) async fn read_chunk(&self, chunk: usize) -> Result<Bytes, DataError> {
        let shard = self.chunks[chunk].shard as usize;
        let entry = &self.set.shards[shard];
        let place = &entry.chunks[self.numbers[chunk]];
        let truncated = |found: u64| DataError::Truncated {
            url: self.url.clone(),
            shard: self.shard_url(shard),
            offset: place.offset,
            wanted: place.bytes,
            found,
        };
        let bytes = match self.store.get_range(&entry.file, place.offset..place.offset + place.bytes).await {
            Ok(bytes) => bytes,
            // A range beyond the end is an error of the store; a shard that is too short deserves its own name.
            Err(error) => match self.store.head(&entry.file).await {
                Ok(Some(size)) if size < place.offset + place.bytes => {
                    return Err(truncated(size.saturating_sub(place.offset)));
                }
                _ => return Err(error.into()),
            },
        };
        if (bytes.len() as u64) < place.bytes {
            return Err(truncated(bytes.len() as u64));
        }
        if blake3::hash(&bytes).to_hex().as_str() != place.blake3 {
            let first = self.key(self.chunks[chunk].first);
            let number = self.numbers[chunk];
            return Err(DataError::Checksum {
                url: self.url.clone(),
                shard: self.shard_url(shard),
                chunk: number,
                first,
            });
        }
        Ok(bytes)
    }
}

/// What ties a set's label maps to their images.
pub(crate) fn binding(set: &SetIndex) -> Binding {
    let PackedPrior { segments, size, definition } = &set.prior;
    // After the `#` stands the pack, which says nothing of the maps.
    let definition = definition.split('#').next().unwrap_or_default().to_owned();
    Binding { definition, segments: *segments, size: *size, format: set.format }
}

/// Where a sample lies.
pub(crate) struct Place<'a> {
    /// Chunk of the set.
    pub(crate) chunk: usize,
    /// Shard of the set.
    pub(crate) shard: usize,
    /// Its members.
    pub(crate) entry: &'a SampleEntry,
    /// First byte of the chunk in the tar.
    pub(crate) start: u64,
}

impl Place<'_> {
    /// A member's bytes inside the chunk's.
    pub(crate) fn member(&self, chunk: &Bytes, member: shard::Member) -> Option<Bytes> {
        let from = usize::try_from(member.offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(usize::try_from(member.bytes).ok()?)?;
        (to <= chunk.len()).then(|| chunk.slice(from..to))
    }
}
