//! Turns photographs into a data set: shards, label maps and index.
//!
//! The source is listed and read in one fixed order, samples are grouped into shards by what the files hold and nothing
//! else, and tar headers are fixed, so the same input gives the same bytes. Each finished shard is recorded in
//! `pack.json`, so an interrupted pack goes on where it was; `index.json` is written last.

mod plan;
mod source;
mod tarball;
mod write;

use std::path::PathBuf;

use r2o_storage::StorageError;
use r2o_storage::shard::SetError;

use crate::error::DecodeError;
pub use plan::Skipped;

/// What to pack and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// A folder tree, a list file (`.txt`, `.lst`, `.tsv`: path, optional label, optional mask per line), a WebDataset tar,
    /// or a folder or glob-free list of tars.
    pub source: String,
    /// Where the set goes: a folder or any object-store URL.
    pub out: String,
    /// Ground-truth masks with the same stems as the images.
    pub masks: Option<PathBuf>,
    /// SLIC segments asked for.
    pub segments: u32,
    /// Side of the label maps in pixels.
    pub slic_size: u32,
    /// Size at which a shard ends, in bytes.
    pub shard_bytes: u64,
    /// Images with a shorter side are skipped, in pixels.
    pub side_min: u32,
    /// Threads; 0: all cores.
    pub threads: usize,
}

impl PackOptions {
    /// The defaults: 100 segments at 224 pixels, shards of 256 MiB.
    #[must_use]
    pub fn new(source: impl Into<String>, out: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            out: out.into(),
            masks: None,
            segments: 100,
            slic_size: 224,
            shard_bytes: 256 << 20,
            side_min: 32,
            threads: 0,
        }
    }
}

/// Told how far a pack has come. Called from several threads.
pub trait Progress: Sync {
    /// The source is listed: so many images.
    fn listed(&self, images: u64);
    /// So many more images are done.
    fn advanced(&self, images: u64);
}

/// Progress for nobody.
impl Progress for () {
    fn listed(&self, _images: u64) {}
    fn advanced(&self, _images: u64) {}
}

/// What a pack did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackSummary {
    /// Where the set is.
    pub url: String,
    /// Samples of the set.
    pub samples: u64,
    /// Shards of the set.
    pub shards: usize,
    /// Of them, found finished from an earlier run.
    pub resumed: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Classes.
    pub classes: Vec<String>,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
}

/// Why nothing, or not everything, was packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The source does not exist or cannot be listed.
    #[error("cannot read {path}")]
    Source {
        /// File or folder.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The list file has a line that means nothing.
    #[error("{path}, line {line}: {reason}")]
    List {
        /// The list.
        path: String,
        /// 1-based.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Nothing usable.
    #[error(
        "no usable image in {path}: {skipped} were left out; supported are JPEG, PNG and WebP of at least {side_min} pixels"
    )]
    Empty {
        /// The source.
        path: String,
        /// Images left out.
        skipped: usize,
        /// Shortest side.
        side_min: u32,
    },
    /// The target holds another set.
    #[error(
        "{url} already holds a data set packed from another source or with other options: choose another --out, or remove it"
    )]
    OtherSet {
        /// The target.
        url: String,
    },
    /// A label map could not be made.
    #[error("cannot make the label map of {path}")]
    Prior {
        /// The image.
        path: String,
        /// Why.
        source: DecodeError,
    },
    /// The image changed while it was packed.
    #[error("{path} changed while it was packed: run the command again")]
    Changed {
        /// The image.
        path: String,
    },
    /// The target's index.
    #[error("cannot read the target's index")]
    Set(#[from] SetError),
    /// The store failed.
    #[error("cannot write the data set")]
    Storage(#[from] StorageError),
    /// The system refused threads.
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
    /// An option that makes no sense.
    #[error("{0}")]
    Option(String),
}

/// Packs. Blocks; not for a runtime's thread.
///
/// # Errors
/// When the source cannot be read, holds nothing usable, or the target cannot be written. What was finished stays, and the
/// same call goes on from there.
pub fn pack(options: &PackOptions, progress: &dyn Progress) -> Result<PackSummary, PackError> {
    if !(1..=200).contains(&options.segments) {
        return Err(PackError::Option(format!("--segments {}: from 1 to 200", options.segments)));
    }
    if !(32..=1024).contains(&options.slic_size) {
        return Err(PackError::Option(format!("--slic-size {}: from 32 to 1024", options.slic_size)));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .thread_name(|i| format!("pack-{i}"))
        .build()
        .map_err(|e| PackError::Threads(std::io::Error::other(e)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(PackError::Threads)?;
    let store = r2o_storage::open(&options.out)?;
    let listed = source::list(options)?;
    progress.listed(listed.items.len() as u64);
    let plan = pool.install(|| plan::Plan::make(options, listed))?;
    write::write(options, &plan, &store, &pool, &runtime, progress)
}
