//! What can go wrong with data, named by set, shard and sample.

use std::path::PathBuf;

use r2o_storage::StorageError;
use r2o_storage::shard::SetError;
use r2o_types::PlanError;

/// Why bytes are no picture that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing to decode.
    #[error("the file is empty")]
    Empty,
    /// Not a format that is read.
    #[error("not a JPEG, PNG or WebP image")]
    Unknown,
    /// The header promises more than anyone would train on: a decompression bomb, or damage.
    #[error("the header says {width} x {height} pixels, at most {max} are read")]
    TooLarge {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Most pixels that are decoded.
        max: u64,
    },
    /// The file is longer than any image that is read.
    #[error("the file has {bytes} bytes, at most {max} are read")]
    TooLong {
        /// Bytes.
        bytes: u64,
        /// Most bytes that are read.
        max: u64,
    },
    /// The decoder gave up.
    #[error("{0}")]
    Broken(String),
}

/// Why a disk cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Something else lives there.
    #[error(
        "{} holds files and is no chunk cache of this version: nothing in it was touched; give --cache-dir a folder that is \
         empty or not there", folder.display()
    )]
    NotOurs {
        /// The folder.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("cannot use {} as a chunk cache: give this user leave to write there, or another folder", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// An entry cannot be read, or is not what was written.
    #[error("{0}")]
    Entry(#[from] std::io::Error),
}

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The set's index.
    #[error("cannot read the data set")]
    Set(#[from] SetError),
    /// The store failed.
    #[error("cannot read from the data set")]
    Storage(#[from] StorageError),
    /// The disk cache.
    #[error("cannot use the disk cache")]
    Cache(#[from] CacheError),
    /// There is no order of epochs.
    #[error("the data set {url} cannot be dealt to the job's lanes")]
    Plan {
        /// The set.
        url: String,
        /// Why.
        source: PlanError,
    },
    /// A chunk's bytes are not those that were packed.
    #[error(
        "shard {shard} is damaged: chunk {chunk} (samples {first} and on) does not match its checksum; \
         `r2octl data inspect {url}` lists all damage, packing again mends it"
    )]
    Checksum {
        /// The set.
        url: String,
        /// URL of the tar.
        shard: String,
        /// Number of the chunk in the shard.
        chunk: usize,
        /// Key of its first sample.
        first: String,
    },
    /// A shard ends before its index says.
    #[error(
        "shard {shard} is truncated: {wanted} bytes from byte {offset} were asked, {found} came; see `r2octl data inspect {url}`"
    )]
    Truncated {
        /// The set.
        url: String,
        /// URL of the tar.
        shard: String,
        /// First byte asked.
        offset: u64,
        /// Bytes asked.
        wanted: u64,
        /// Bytes found.
        found: u64,
    },
    /// A sample has no label map though the job's prior needs it.
    #[error("sample {key} of shard {shard} has no label map (KEY.slic): pack the set {url} again")]
    NoPrior {
        /// The set.
        url: String,
        /// URL of the tar.
        shard: String,
        /// The sample.
        key: String,
    },
    /// A sample's image or label map cannot be decoded, and so cannot most others of its lane.
    #[error("sample {key} of shard {shard}: its {member} cannot be decoded; see `r2octl data inspect {url}`")]
    Decode {
        /// The set.
        url: String,
        /// URL of the tar.
        shard: String,
        /// The sample.
        key: String,
        /// `image` or `label map`.
        member: &'static str,
        /// Why.
        source: DecodeError,
    },
    /// A sample's ordinal is beyond the set.
    #[error("sample {sample} does not exist: the data set {url} has {samples}")]
    NoSample {
        /// The set.
        url: String,
        /// Asked for.
        sample: u64,
        /// How many there are.
        samples: u64,
    },
    /// The system refused a thread or a runtime.
    #[error("cannot start the loader's threads")]
    Threads(#[source] std::io::Error),
    /// A decoding thread panicked.
    #[error("a decoding thread ended unexpectedly while it worked on step {step}")]
    Lost {
        /// The step.
        step: u64,
    },
}
