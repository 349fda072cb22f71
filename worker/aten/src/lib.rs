//! What tch does not bind of libtorch, in safe Rust: memory formats, tensors cut from one buffer, autocast on CPU and
//! CUDA, updates over many tensors at once, a K-means that runs whole in C++, a cache for the CPU's memory, and
//! memory that a GPU reads by itself.
//!
//! One of the few rooms with unsafe code: the shim in `cpp/` catches every exception and answers with a message, and
//! everything public here is safe.
#![allow(unsafe_code)]

mod autocast;
mod fan_out;
mod ffi;
mod kmeans;
mod mark;
mod tensor;
mod transfer;
mod update;

pub use autocast::{Autocast, has_fast_bfloat16};
pub use fan_out::fan_out;
pub use kmeans::{KMeans, Start, kmeans};
pub use mark::Mark;
pub use tensor::{alias, cache_memory, channels_last, deterministic, is_channels_last, with_memory};
pub use transfer::{Pinned, upload};
pub use update::{LarsOptions, drop_grads, ema, lars, norms};

/// What libtorch refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {reason}")]
pub struct Error {
    /// The operation of this crate.
    pub operation: &'static str,
    /// libtorch's words, or what does not fit.
    pub reason: String,
}

/// Runs a call of the shim.
fn run(operation: &'static str, call: impl FnOnce() -> ffi::Message) -> Result<(), Error> {
    // SAFETY: the message is fresh from the shim.
    unsafe { ffi::take(call()) }.map_err(|reason| Error { operation, reason })
}

/// Runs a call of the shim that makes a tensor.
fn make(operation: &'static str, call: impl FnOnce(ffi::Out) -> ffi::Message) -> Result<tch::Tensor, Error> {
    let mut out = std::ptr::null_mut();
    run(operation, || call(&raw mut out))?;
    // SAFETY: the shim made a tensor that this side owns.
    Ok(unsafe { tch::Tensor::from_ptr(out) })
}
