//! What can go wrong between ranks.

use std::time::Duration;

/// Why a collective, or the group that carries it, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address or interface to advertise cannot be used on this machine.
    #[error(
        "cannot open a data-plane socket on `{address}`: {reason}; advertise an address or interface of this machine"
    )]
    Address {
        /// What was asked for.
        address: String,
        /// libtorch's words.
        reason: String,
    },
    /// The ranks did not find each other.
    #[error("rank {rank} of {world} cannot form a group within {timeout:?}: {reason}")]
    Rendezvous {
        /// This rank.
        rank: usize,
        /// Ranks of the group.
        world: usize,
        /// The group's timeout.
        timeout: Duration,
        /// libtorch's or the store's words.
        reason: String,
    },
    /// A collective failed: a peer died, a connection broke, or the timeout passed.
    #[error("{operation} failed on rank {rank} of {world}: {reason}")]
    Collective {
        /// The operation, such as `all-reduce`.
        operation: &'static str,
        /// This rank.
        rank: usize,
        /// Ranks of the group.
        world: usize,
        /// libtorch's words, with the peer's address.
        reason: String,
    },
    /// The group was aborted from this process.
    #[error("{operation} on an aborted group")]
    Aborted {
        /// The operation that was running or asked for.
        operation: &'static str,
    },
    /// The caller's arguments do not fit together.
    #[error("{operation}: {reason}")]
    Argument {
        /// The operation.
        operation: &'static str,
        /// What does not fit, with the shapes.
        reason: String,
    },
    /// This program was built without the feature that the operation needs.
    #[error("this program was built without CUDA: build it with the feature `cuda`")]
    NoCuda,
}
