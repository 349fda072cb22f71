//! A packed set: its index, and reads of its chunks that are checked against their hashes.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use r2o_storage::shard::{self, ChunkEntry, PackedPrior, SampleEntry, SetIndex, ShardEntry, ShardIndex};
use r2o_storage::{Pace, ReadOptions, Reader};
use r2o_types::ChunkRef;

use crate::disk::{CacheOptions, DiskCache, Entry};
use crate::error::{CacheError, DataError};
use crate::labels::Binding;
use crate::stats::{LoaderStats, Put};
use crate::step::Need;

/// Shard indexes that are read at a time.
const CONCURRENT_READS: usize = 16;

/// Where chunks are kept on their way, and how they are read.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamOptions {
    /// Most bytes of chunks in memory, those that are being read included (and at least one chunk). A lane needs the chunks of
    /// its window at a time: the usual 16 of some 8 MiB.
    pub memory_bytes: u64,
    /// How the store is read.
    pub reads: ReadOptions,
    /// Keep chunks on a local disk.
    pub cache: Option<CacheOptions>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, reads: ReadOptions::default(), cache: None }
    }
}

/// A packed data set, opened for reading.
#[derive(Debug)]
pub struct Dataset {
    reader: Reader,
    cache: Option<DiskCache>,
    memory_bytes: u64,
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
        Self::open_with(url, StreamOptions::default()).await
    }

    /// As [`Dataset::open`], with options for the reads that follow.
    ///
    /// # Errors
    /// As [`Dataset::open`], and when the disk cache cannot be used.
    pub async fn open_with(url: &str, stream: StreamOptions) -> Result<Self, DataError> {
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
        let largest = set.shards.iter().flat_map(|s| &s.chunks).map(|c| c.bytes).max().unwrap_or(0);
        let cache = stream.cache.map(|options| DiskCache::open(&options, &identity(&set))).transpose()?;
        let reader = Reader::new(r2o_storage::open_once(url)?, stream.reads);
        let memory_bytes = stream.memory_bytes.max(largest);
        Ok(Self { url: store.url().to_owned(), reader, cache, memory_bytes, shards, chunks, numbers, firsts, set })
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
        let &ChunkEntry { offset: start, bytes: length, .. } = self.chunk(chunk).1;
        Ok(Place { chunk, shard, entry, start, length })
    }

    /// URL of a shard's tar, for messages.
    pub(crate) fn shard_url(&self, shard: usize) -> String {
        self.reader.store().url_of(&self.set.shards[shard].file)
    }

    /// The chunks that some samples need, by chunk and slot.
    pub(crate) fn needs(&self, samples: &[u64]) -> Result<Vec<Need>, DataError> {
        let mut needs = Vec::with_capacity(samples.len());
        for (slot, &sample) in samples.iter().enumerate() {
            needs.push(Need { chunk: self.locate(sample)?.chunk, slot });
        }
        needs.sort_unstable();
        Ok(needs)
    }

    /// Most bytes of chunks in memory, see [`StreamOptions::memory_bytes`].
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Whether chunks are kept on disk.
    pub(crate) fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// How fast the store is.
    pub(crate) fn pace(&self) -> Option<Pace> {
        self.reader.pace()
    }

    pub(crate) fn chunk_bytes(&self, chunk: usize) -> u64 {
        self.chunk(chunk).1.bytes
    }

    fn chunk(&self, chunk: usize) -> (&ShardEntry, &ChunkEntry) {
        let shard = &self.set.shards[self.chunks[chunk].shard as usize];
        (shard, &shard.chunks[self.numbers[chunk]])
    }

    /// Whether the disk cache has an entry for a chunk.
    pub(crate) fn is_cached(&self, chunk: usize) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.has(&self.chunk(chunk).1.blake3))
    }

    /// A chunk in the disk cache. A damaged entry is none; it is counted and gone.
    pub(crate) fn cached(&self, chunk: usize, stats: &LoaderStats) -> Option<Entry> {
        let (cache, place) = (self.cache.as_ref()?, self.chunk(chunk).1);
        cache.entry(&place.blake3, place.bytes).unwrap_or_else(|error| {
            self.discard(chunk, &error.into(), stats);
            None
        })
    }

    /// Takes a damaged entry out of the disk cache.
    pub(crate) fn discard(&self, chunk: usize, why: &CacheError, stats: &LoaderStats) {
        let name = &self.chunk(chunk).1.blake3;
        tracing::warn!("an entry of the disk cache is damaged and is read from the store again: {name}: {why}");
        stats.put(Put::Damaged);
        if let Some(cache) = &self.cache {
            cache.discard(name);
        }
    }

    /// Reads one chunk from the store, and checks it.
    pub(crate) async fn fetch(&self, chunk: usize, stats: &LoaderStats) -> Result<Bytes, DataError> {
        let bytes = match self.read_chunk(chunk, stats).await {
            // Once more, for it may have been damaged on the way.
            Err(DataError::Checksum { .. }) => self.read_chunk(chunk, stats).await?,
            read => read?,
        };
        stats.read(bytes.len());
        Ok(bytes)
    }

    /// Keeps a chunk on disk, where there is a cache with room. Blocks while it is written.
    pub(crate) fn keep(&self, chunk: usize, bytes: &Bytes, stats: &LoaderStats) {
        let Some(cache) = &self.cache else { return };
        stats.put(cache.put(&self.chunk(chunk).1.blake3, bytes).unwrap_or_else(|error| {
            tracing::warn!("cannot keep a chunk in the disk cache, training goes on without: {error}");
            Put::Failed
        }));
        stats.cache_has(cache.used());
    }

    async fn read_chunk(&self, chunk: usize, stats: &LoaderStats) -> Result<Bytes, DataError> {
        let shard = self.chunks[chunk].shard as usize;
        let (entry, place) = self.chunk(chunk);
        let truncated = |found: u64| DataError::Truncated {
            url: self.url.clone(),
            shard: self.shard_url(shard),
            offset: place.offset,
            wanted: place.bytes,
            found,
        };
        let range = place.offset..place.offset + place.bytes;
        let bytes = match self.reader.get_range(&entry.file, range, &stats.reads).await {
            Ok(bytes) => bytes,
            // A range beyond the end is an error of the store; a shard that is too short deserves its own name.
            Err(error) => match self.reader.store().head(&entry.file).await {
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

/// Names what a set's chunks hold, wherever it lies: 32 hexadecimal digits.
fn identity(set: &SetIndex) -> String {
    let mut hasher = blake3::Hasher::new();
    set.shards.iter().flat_map(|shard| &shard.chunks).for_each(|chunk| _ = hasher.update(chunk.blake3.as_bytes()));
    hasher.finalize().to_hex()[..32].to_owned()
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
    /// Bytes of the chunk.
    pub(crate) length: u64,
}

impl Place<'_> {
    /// Where a member lies in the chunk; `None`: not inside.
    pub(crate) fn range(&self, member: shard::Member) -> Option<Range<usize>> {
        let from = member.offset.checked_sub(self.start)?;
        let to = from.checked_add(member.bytes).filter(|&to| to <= self.length)?;
        Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
    }
}
