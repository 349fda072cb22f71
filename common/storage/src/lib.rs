//! Everything R2O keeps outside a process: object stores, shards' index format, checkpoints, the journal, the leader's
//! lease, training history, the ledger of what was trained on, and the gallery of masks.
//!
//! All of it lies on any store that [`open`] understands (a local folder, S3, Google Cloud Storage, Azure, plain HTTP for
//! reading), and needs only two guarantees from it: an object appears whole or not at all, and
//! [`Store::put_if_absent`] has exactly one winner. Conditional overwrites are never used, because a local folder has none.

pub mod checkpoint;
pub mod error;
pub mod gallery;
pub mod history;
pub mod journal;
pub mod leader;
pub mod ledger;
pub mod open;
pub mod read;
pub mod run;
pub mod shard;
pub mod store;

pub use error::{Operation, StorageError};
pub use open::{open, open_once, open_with};
pub use read::{Pace, ReadCounts, ReadOptions, Reader};
pub use store::{Fence, Put, Store, Upload};
