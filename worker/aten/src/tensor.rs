//! Memory: formats, buffers, the CPU's allocator.

use tch::Tensor;

use crate::{Error, ffi, make, run};

/// The same (N, C, H, W) values with channels next to each other in memory; no copy when they are already.
///
/// # Errors
/// When the tensor has not four dimensions.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: the tensor is live for the call.
    make("channels_last", |out| unsafe { ffi::r2o_aten_channels_last(tensor.as_ptr(), out) })
}

/// Whether channels are next to each other in memory.
///
/// # Errors
/// When libtorch cannot tell.
pub fn is_channels_last(tensor: &Tensor) -> Result<bool, Error> {
    let mut answer = false;
    // SAFETY: as above.
    run("is_channels_last", || unsafe { ffi::r2o_aten_is_channels_last(tensor.as_ptr(), &raw mut answer) })?;
    Ok(answer)
}

/// A tensor of `size` over the values of the one-dimensional buffer `base` from `offset` on: a leaf of its own that shares the memory.
/// Four-dimensional ones lie in memory channels last when asked.
///
/// # Errors
/// When it does not fit into the buffer.
pub fn alias(base: &Tensor, offset: usize, size: &[i64], channels_last: bool) -> Result<Tensor, Error> {
    let length: i64 = size.iter().product();
    let begin = i64::try_from(offset).unwrap_or(i64::MAX);
    if base.dim() != 1 || size.iter().any(|&n| n < 0) || begin.saturating_add(length) > base.size()[0] {
        let reason = format!("{size:?} from {offset} on does not fit into a buffer of {:?}", base.size());
        return Err(Error { operation: "alias", reason });
    }
    make("alias", |out| {
        // SAFETY: the buffer is live for the call, the result keeps its memory alive, and it lies inside.
        unsafe { ffi::r2o_aten_alias(base.as_ptr(), begin, size.as_ptr(), size.len(), channels_last, out) }
    })
}

/// Asks libtorch for kernels whose results do not vary from run to run, with a warning where there is none.
///
/// # Errors
/// When libtorch refuses.
pub fn deterministic(on: bool) -> Result<(), Error> {
    // SAFETY: no pointers.
    run("deterministic", || unsafe { ffi::r2o_aten_deterministic(on) })
}

/// Keeps up to `limit` bytes of freed CPU memory for the next tensors, instead of giving it back and asking again. For
/// the whole process, once: later calls change nothing.
///
/// # Errors
/// When there is no memory left.
pub fn cache_memory(limit: usize) -> Result<(), Error> {
    // SAFETY: no pointers.
    run("cache_memory", || unsafe { ffi::r2o_aten_cache_memory(limit) })
}
