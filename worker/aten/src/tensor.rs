//! Memory: formats, buffers, the CPU's allocator.

use tch::{Device, Tensor};

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

/// What `read` makes of the bytes of a CPU tensor's values, in the order in which they lie in memory; `None`: they lie
/// elsewhere, or with gaps.
pub fn with_memory<T>(tensor: &Tensor, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    if tensor.device() != Device::Cpu || !is_dense(&tensor.size(), &tensor.stride()) {
        return None;
    }
    let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if bytes == 0 {
        return Some(read(&[]));
    }
    // SAFETY: the tensor is live for the call, and its values take exactly this stretch of memory; nothing writes to it while
    // `read`, which knows no tensor, runs.
    Some(read(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), bytes) }))
}

/// Whether values of these sizes and strides fill a stretch of memory, in whatever order.
fn is_dense(size: &[i64], stride: &[i64]) -> bool {
    let mut dimensions: Vec<(i64, i64)> =
        size.iter().zip(stride).filter(|(size, _)| **size != 1).map(|(size, stride)| (*stride, *size)).collect();
    dimensions.sort_unstable();
    let mut next = 1;
    dimensions.iter().all(|(stride, size)| {
        let fits = *stride == next;
        next *= size;
        fits
    })
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

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn memory_is_read_as_it_lies_and_only_where_it_has_no_gaps() {
        let order = |tensor: &Tensor| with_memory(tensor, <[u8]>::to_vec);
        let rows = Tensor::arange(6, (Kind::Uint8, Device::Cpu)).view([2, 3]);
        assert_eq!(order(&rows), Some(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(order(&rows.transpose(0, 1)), Some(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(order(&rows.get(1)), Some(vec![3, 4, 5]));
        assert_eq!(order(&rows.select(1, 0)), None);
        assert_eq!(order(&rows.get(0).expand([2, 3], false)), None);
        assert_eq!(order(&rows.narrow(0, 0, 0)), Some(Vec::new()));
        let image = Tensor::arange(8, (Kind::Uint8, Device::Cpu)).view([1, 2, 2, 2]);
        assert_eq!(order(&channels_last(&image).unwrap()), Some(vec![0, 4, 1, 5, 2, 6, 3, 7]));
    }
}
