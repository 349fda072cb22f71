//! Turns photographs into a data set: shards, label maps and index.
//!
//! The source is listed in one fixed order, by names and sizes; shards are runs of that list, and tar headers are fixed, so the
//! same input gives the same bytes. Any process can make any shard: several may share the work out by parts, and what an
//! interrupted one finished is not made again (see [`record`]). `index.json` is written last, by [`merge`].

mod coco;
mod make;
mod merge;
mod pages;
mod part;
mod place;
mod plan;
mod raster;
mod record;
mod rows;
mod source;
mod table;
mod tarball;
mod webdataset;

use std::sync::Arc;

use r2o_storage::StorageError;
use r2o_storage::shard::{SetError, SetIndex};
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
pub use part::Part;
use plan::Plan;
pub use plan::Skipped;
use record::PlanRecord;

/// What to pack and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackOptions {
    /// A path or an object-store URL: a folder tree, a list file (`.txt`, `.lst`, `.tsv`: path, optional label, optional mask
    /// per line), a WebDataset tar or a parquet file, a folder of them, or COCO's `instances_*.json`.
    pub source: String,
    /// Where the set goes: a folder or any object-store URL.
    pub out: String,
    /// A folder of ground-truth masks with the same stems as the images, by path or URL.
    pub masks: Option<String>,
    /// The folder of the images of COCO's annotations, by path or URL.
    pub images: Option<String>,
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
    /// The share of the shards to make. The whole is merged at once, a part is not.
    pub part: Part,
}

impl PackOptions {
    /// The defaults: 100 segments at 224 pixels, shards of 256 MiB.
    #[must_use]
    pub fn new(source: impl Into<String>, out: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            out: out.into(),
            masks: None,
            images: None,
            segments: 100,
            slic_size: 224,
            shard_bytes: 256 << 20,
            side_min: 32,
            threads: 0,
            part: Part::WHOLE,
        }
    }
}

/// Told how far a pack has come. Called from one thread.
pub trait Progress {
    /// The source is listed: so many images and their bytes are to be packed.
    fn listed(&self, images: u64, bytes: u64);
    /// Of them, so many were packed by an earlier run.
    fn resumed(&self, images: u64, bytes: u64);
    /// So many more are done.
    fn advanced(&self, images: u64, bytes: u64);
}

/// Progress for nobody.
impl Progress for () {
    fn listed(&self, _images: u64, _bytes: u64) {}
    fn resumed(&self, _images: u64, _bytes: u64) {}
    fn advanced(&self, _images: u64, _bytes: u64) {}
}

/// What a pack did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackSummary {
    /// Where the set is.
    pub url: String,
    /// Samples of the set, or of the part.
    pub samples: u64,
    /// Shards of the set, or of the part.
    pub shards: usize,
    /// Of them, found finished from an earlier run.
    pub resumed: usize,
    /// Bytes of these shards.
    pub bytes: u64,
    /// Classes.
    pub classes: Vec<String>,
    /// What was left out, and why; of a part without what other shards turn out to have too.
    pub skipped: Vec<Skipped>,
}

impl PackSummary {
    fn of(url: &str, set: &SetIndex, skipped: Vec<Skipped>) -> Self {
        Self {
            url: url.to_owned(),
            samples: set.samples(),
            shards: set.shards.len(),
            resumed: 0,
            bytes: set.shards.iter().map(|s| s.bytes).sum(),
            classes: set.classes.clone(),
            skipped,
        }
    }
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
    /// Not all shards of a set are there yet.
    #[error(
        "{shards} of the {of} shards under {url} are not packed yet: run {}, then merge again",
        commands.iter().map(|command| format!("`{command}`")).collect::<Vec<_>>().join(" and ")
    )]
    Missing {
        /// The target.
        url: String,
        /// Shards that are missing.
        shards: usize,
        /// Shards of the whole.
        of: usize,
        /// What packs them.
        commands: Vec<String>,
    },
    /// A record of the pack cannot be read.
    #[error("{url} is damaged: {reason}; remove it and pack again with the same source and options")]
    Record {
        /// The record.
        url: String,
        /// What is wrong.
        reason: String,
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

impl PackError {
    /// Whether what should be read is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Source { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Storage(e) => e.is_not_found(),
            _ => false,
        }
    }
}

/// Packs the source, or a part of it. Blocks; not for a runtime's thread.
///
/// # Errors
/// When the source cannot be read, holds nothing usable, or the target cannot be written. What was finished stays, and the
/// same call goes on from there.
pub fn pack(options: &PackOptions, progress: &dyn Progress) -> Result<PackSummary, PackError> {
    options.check()?;
    let runtime = runtime()?;
    let store = r2o_storage::open(&options.out)?;
    let plan = Arc::new(Plan::make(options, source::list(options, runtime.handle())?)?);
    let recorded = PlanRecord::of(options, &plan);
    let share = plan.share(options.part);
    let (images, bytes) = plan.size(share.clone());
    progress.listed(images, bytes);
    runtime.block_on(record::begin(&store, &recorded))?;
    let there = runtime.block_on(record::there(&store, share.clone(), &plan.identity))?;
    let (images, bytes) = plan.size(there.iter().copied());
    progress.resumed(images, bytes);
    let missing = share.clone().filter(|shard| !there.contains(shard)).collect();
    make::make(options, &plan, missing, &store, runtime.handle(), progress)?;
    let summary = if options.part == Part::WHOLE {
        runtime.block_on(merge::merge(&store))?
    } else {
        runtime.block_on(record::summary(&store, share, &recorded))?
    };
    Ok(PackSummary { resumed: there.len(), ..summary })
}

/// Makes one set of parts that were packed into `out`, each by a process of its own: checks that all shards are there, leaves
/// out duplicates and writes the index. The set does not depend on the number of parts. Blocks; not for a runtime's thread.
///
/// # Errors
/// [`PackError::Missing`] when a part is not there or not whole, and when the target cannot be read or written.
pub fn merge(out: &str) -> Result<PackSummary, PackError> {
    let store = r2o_storage::open(out)?;
    runtime()?.block_on(merge::merge(&store))
}

fn runtime() -> Result<tokio::runtime::Runtime, PackError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(PackError::Threads)
}
