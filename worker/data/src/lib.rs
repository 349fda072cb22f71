//! The data path: from shards in an object store to augmented batches, without libtorch.
//!
//! - `pack` (a feature) and [`inspect`](mod@inspect): make a set and prove that it is whole.
//! - [`Dataset`]: a set's index, and checked reads of its chunks.
//! - [`bench`]: a loader's rate, stage by stage.
//! - [`truth()`] and [`Overlap`]: how well masks fit the objects that people drew.
//! - [`Loader`]: augmented batches of a worker's lanes, step by step, decoded ahead by threads.
//!
//! What a step's pixels are depends on (seed, epoch, sample, view) and on nothing else.

mod augment;
mod batch;
pub mod bench;
mod dataset;
mod decode;
mod disk;
mod error;
mod feed;
pub mod inspect;
mod labels;
mod loader;
#[cfg(feature = "pack")]
pub mod pack;
mod pixels;
mod pool;
mod prior;
mod resize;
mod sample;
mod shelf;
mod simd;
mod stats;
mod step;
mod truth;

pub use batch::{Batch, probe};
pub use dataset::{Dataset, StreamOptions};
pub use decode::{DECODER, FILE_MAX, PIXELS_MAX, Picture, decode, dimensions};
#[cfg(feature = "turbojpeg")]
#[doc(hidden)]
pub use decode::{jpeg_decoders_agree, jpeg_decoders_seconds};
pub use disk::CacheOptions;
pub use error::{CacheError, DataError, DecodeError};
#[doc(hidden)]
pub use labels::read_made_up;
pub use loader::{Loader, LoaderOptions};
pub use pixels::{Block, Memory, Pixels};
pub use stats::{LoaderStats, Put, Skip, Stage};
pub use truth::{Overlap, truth};
