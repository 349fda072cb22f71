//! PyTorch's own collectives (c10d) in safe Rust: process groups over Gloo and NCCL, the DDP reducer, and batch norm
//! over groups of lanes.
//!
//! - [`Store`]: where ranks find each other; R2O's is the coordinator.
//! - [`ProcessGroup`]: all-reduce, broadcast, all-gather, barrier, and [`ProcessGroup::abort`] from any thread.
//! - [`Reducer`]: gradients averaged over ranks while backward goes on.
//! - [`batch_norm`]: statistics over groups of lanes, synchronised where a group spans ranks.
//!
//! One of the few rooms with unsafe code: the C++ shim in `cpp/` catches every exception and answers with a message,
//! and everything public here is safe. NCCL needs the feature `cuda` (CUDA.md); without it [`ProcessGroup::nccl`] says
//! so, and the rest of the face is the same.
#![allow(unsafe_code)]

mod bridge;
mod error;
mod ffi;
mod group;
#[cfg_attr(not(feature = "cuda"), path = "nccl_stub.rs")]
mod nccl;
mod norm;
mod reducer;
mod store;

pub use error::Error;
pub use group::{GlooOptions, NcclOptions, ProcessGroup};
pub use nccl::CUDA;
pub use norm::{LocalGroup, NormLayout, average_running, batch_norm};
pub use reducer::{Reducer, ReducerOptions};
pub use store::{MemoryStore, Store};
