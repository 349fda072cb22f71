//! What a loader has done: counters that only grow, read at any time from any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use r2o_storage::ReadCounts;

use crate::error::DecodeError;

/// Where a loader's time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a chunk from the store, and checking it. Reads overlap with each other and with the other stages.
    Read,
    /// From an image file's bytes to pixels.
    Decode,
    /// Crop and resize, of all three views; the raw view's normalisation into the batch, which is one with it.
    Resize,
    /// Colours, blur and normalisation of both augmented views, into the batch.
    Augment,
    /// The label map: SLIC, or a stored map's decompression.
    Prior,
    /// Around the images: buffers, and digests where the job is audited.
    Assemble,
    /// Training waits for the next batch.
    Wait,
}

impl Stage {
    /// All of them, in the order of a sample's way.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Decode, Self::Resize, Self::Augment, Self::Prior, Self::Assemble, Self::Wait];

    /// Its word in metrics and tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Resize => "resize",
            Self::Augment => "augment",
            Self::Prior => "prior",
            Self::Assemble => "assemble",
            Self::Wait => "wait",
        }
    }
}

/// Why a sample's own pixels were left out of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// The file is empty.
    Empty,
    /// Not a format that is read.
    Unknown,
    /// The file or the size in its header is beyond the limits.
    TooLarge,
    /// The image is broken.
    Broken,
    /// The label map is broken, or belongs to another image or definition.
    LabelMap,
}

impl Skip {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Empty, Self::Unknown, Self::TooLarge, Self::Broken, Self::LabelMap];

    /// Its word in metrics and tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Unknown => "unknown_format",
            Self::TooLarge => "too_large",
            Self::Broken => "broken",
            Self::LabelMap => "label_map",
        }
    }

    pub(crate) fn of_image(error: &DecodeError) -> Self {
        match error {
            DecodeError::Empty => Self::Empty,
            DecodeError::Unknown => Self::Unknown,
            DecodeError::TooLarge { .. } | DecodeError::TooLong { .. } => Self::TooLarge,
            DecodeError::Broken(_) => Self::Broken,
        }
    }
}

/// What became of a chunk that was offered to the disk cache, or of an entry in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was written, or was there already.
    Kept,
    /// There was no room.
    Full,
    /// The disk refused.
    Failed,
    /// The entry did not match its checksum: it was taken out and read from the store again.
    Damaged,
}

impl Put {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kept, Self::Full, Self::Failed, Self::Damaged];

    /// Its word in metrics and tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Damaged => "damaged",
        }
    }
}

/// A loader's counters.
#[derive(Debug, Default)]
pub struct LoaderStats {
    images: AtomicU64,
    image_bytes: AtomicU64,
    chunks_read: AtomicU64,
    bytes_read: AtomicU64,
    chunks_kept: AtomicU64,
    chunks_cached: AtomicU64,
    bytes_cached: AtomicU64,
    cache_puts: [AtomicU64; Put::ALL.len()],
    cache_size: AtomicU64,
    buffered: AtomicU64,
    buffered_most: AtomicU64,
    /// What reads of the store cost.
    pub(crate) reads: ReadCounts,
    nanoseconds: [AtomicU64; Stage::ALL.len()],
    skipped: [AtomicU64; Skip::ALL.len()],
}

impl LoaderStats {
    /// Images that were put into batches, substitutes included.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.images.load(Relaxed)
    }

    /// Bytes of those images' files.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes.load(Relaxed)
    }

    /// Chunks that came from the store.
    #[must_use]
    pub fn chunks_read(&self) -> u64 {
        self.chunks_read.load(Relaxed)
    }

    /// Bytes of those chunks.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Relaxed)
    }

    /// Chunks that a step needed and that were still in memory.
    #[must_use]
    pub fn chunks_kept(&self) -> u64 {
        self.chunks_kept.load(Relaxed)
    }

    /// Chunks that a step found in the disk cache.
    #[must_use]
    pub fn chunks_cached(&self) -> u64 {
        self.chunks_cached.load(Relaxed)
    }

    /// Bytes that came from the disk cache: those of samples, not of whole chunks.
    #[must_use]
    pub fn bytes_cached(&self) -> u64 {
        self.bytes_cached.load(Relaxed)
    }

    /// What became of chunks and entries of the disk cache.
    #[must_use]
    pub fn cache_puts(&self, put: Put) -> u64 {
        self.cache_puts[put as usize].load(Relaxed)
    }

    /// Bytes of the whole disk cache when a chunk was last offered to it.
    #[must_use]
    pub fn cache_size(&self) -> u64 {
        self.cache_size.load(Relaxed)
    }

    /// Requests to the store, bytes of chunks and of hedges, retries, hedges.
    #[must_use]
    pub fn reads(&self) -> &ReadCounts {
        &self.reads
    }

    /// Bytes in memory that are not decoded yet: chunks, those being read included, and steps' members. Never more than
    /// [`StreamOptions::memory_bytes`](crate::StreamOptions) (or the largest chunk) and the members of three steps; hedges come
    /// on top, within their own bound.
    #[must_use]
    pub fn buffered(&self) -> u64 {
        self.buffered.load(Relaxed)
    }

    /// The most that was ever in memory so.
    #[must_use]
    pub fn buffered_most(&self) -> u64 {
        self.buffered_most.load(Relaxed)
    }

    /// Time spent in a stage, summed over threads.
    #[must_use]
    pub fn nanoseconds(&self, stage: Stage) -> u64 {
        self.nanoseconds[stage as usize].load(Relaxed)
    }

    /// Samples whose own pixels were left out for this reason.
    #[must_use]
    pub fn skipped(&self, reason: Skip) -> u64 {
        self.skipped[reason as usize].load(Relaxed)
    }

    /// Adds the time since `start`, and gives back now.
    pub(crate) fn spent(&self, stage: Stage, start: Instant) -> Instant {
        let now = Instant::now();
        let spent = u64::try_from((now - start).as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds[stage as usize].fetch_add(spent, Relaxed);
        now
    }

    pub(crate) fn image(&self, bytes: usize) {
        self.images.fetch_add(1, Relaxed);
        self.image_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.chunks_read.fetch_add(1, Relaxed);
        self.bytes_read.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn kept(&self) {
        self.chunks_kept.fetch_add(1, Relaxed);
    }

    pub(crate) fn cached(&self, bytes: usize) {
        self.chunks_cached.fetch_add(1, Relaxed);
        self.bytes_cached.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn put(&self, put: Put) {
        self.cache_puts[put as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn cache_has(&self, bytes: u64) {
        self.cache_size.store(bytes, Relaxed);
    }

    pub(crate) fn buffer(&self, bytes: u64) {
        let now = self.buffered.fetch_add(bytes, Relaxed) + bytes;
        self.buffered_most.fetch_max(now, Relaxed);
    }

    pub(crate) fn unbuffer(&self, bytes: u64) {
        self.buffered.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn skip(&self, reason: Skip) {
        self.skipped[reason as usize].fetch_add(1, Relaxed);
    }
}
