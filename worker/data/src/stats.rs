//! What a loader has done: counters that only grow, read at any time from any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::error::DecodeError;

/// Where a loader's time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a chunk from the store, and checking it. Reads overlap with each other and with the other stages.
    Read,
    /// From an image file's bytes to pixels.
    Decode,
    /// Crop and resize, of all three views.
    Resize,
    /// Colours, blur and normalisation, of all three views, into the batch.
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

/// A loader's counters.
#[derive(Debug, Default)]
pub struct LoaderStats {
    images: AtomicU64,
    image_bytes: AtomicU64,
    chunks_read: AtomicU64,
    bytes_read: AtomicU64,
    chunks_kept: AtomicU64,
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

    pub(crate) fn skip(&self, reason: Skip) {
        self.skipped[reason as usize].fetch_add(1, Relaxed);
    }
}
