//! Host memory that a GPU reads by itself, and copies out of host memory.

use std::ffi::c_int;

use tch::{Device, Kind, Tensor};

use crate::{Error, ffi, make};

/// Page-locked host memory: a GPU copies it at the full rate of its bus, while the caller goes on.
#[derive(Debug)]
pub struct Pinned(Tensor);

// SAFETY: what is shared is the bytes alone; the tensor around them is neither given away nor changed.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `bytes` bytes of any content, aligned for every number.
    ///
    /// # Errors
    /// When there is no GPU, or no memory that can be locked.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        // SAFETY: the shim only writes the result.
        make("pinned", |out| unsafe { ffi::r2o_aten_pinned(bytes, out) }).map(Self)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        if self.0.numel() == 0 {
            return &[];
        }
        // SAFETY: a contiguous tensor of bytes on the host, which nothing else refers to, lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<u8>(), self.0.numel()) }
    }

    /// The bytes, to be written.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.0.numel() == 0 {
            return &mut [];
        }
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast::<u8>(), self.0.numel()) }
    }
}

/// A tensor on `device` with the values whose bytes `data` holds, of `kind` and in the order of a contiguous `size`. Out of
/// [`Pinned`] memory a GPU may still be copying on return: the memory must keep its content until the device was waited for.
///
/// # Errors
/// When the bytes are not as many as the size needs, or the device has no room.
pub fn upload(data: &[u8], size: &[i64], kind: Kind, device: Device) -> Result<Tensor, Error> {
    const OPERATION: &str = "upload";
    let values = size.iter().try_fold(1_usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    let needed = values.and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
    if needed != Some(data.len()) || !data.as_ptr().addr().is_multiple_of(kind.elt_size_in_bytes()) {
        let reason = format!("{} bytes are not {size:?} of {kind:?}", data.len());
        return Err(Error { operation: OPERATION, reason });
    }
    let (device_type, index) = match device {
        Device::Cpu => (0, 0),
        Device::Cuda(index) => (1, c_int::try_from(index).unwrap_or(c_int::MAX)),
        other => return Err(Error { operation: OPERATION, reason: format!("{other:?} is no place for a batch") }),
    };
    let number = scalar_type(kind)
        .ok_or_else(|| Error { operation: OPERATION, reason: format!("{kind:?} is no type of a batch") })?;
    make(OPERATION, |out| {
        let pointer = data.as_ptr().cast();
        // SAFETY: the bytes are live for the call, aligned, and as many as the shape needs.
        unsafe { ffi::r2o_aten_upload(pointer, size.as_ptr(), size.len(), number, device_type, index, out) }
    })
}

/// c10/core/ScalarType.h's numbers.
fn scalar_type(kind: Kind) -> Option<i8> {
    match kind {
        Kind::Uint8 => Some(0),
        Kind::Float => Some(6),
        Kind::Bool => Some(11),
        Kind::BFloat16 => Some(15),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_and_what_does_not_fit_is_refused() {
        let host = Tensor::from_slice(&[1.5_f32, -2.0, 0.25, 8.0, 0.0, 3.0]);
        let sent = |size: &[i64], kind| {
            crate::with_memory(&host, |bytes| upload(bytes, size, kind, Device::Cpu)).expect("it is dense")
        };
        assert_eq!(sent(&[2, 3], Kind::Float).unwrap(), host.view([2, 3]));
        assert_eq!(sent(&[12], Kind::BFloat16).unwrap().kind(), Kind::BFloat16);
        for (size, kind) in [(vec![2, 4], Kind::Float), (vec![-1, -6], Kind::Float), (vec![2, 3], Kind::BFloat16)] {
            assert!(sent(&size, kind).is_err(), "{size:?} {kind:?}");
        }
    }

    #[test]
    fn without_a_gpu_no_memory_is_pinned() {
        if !tch::Cuda::is_available() {
            assert!(Pinned::new(64).is_err());
        }
    }
}
