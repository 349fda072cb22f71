//! bfloat16 autocast for CPU and CUDA.

use std::ffi::c_int;
use std::marker::PhantomData;

use tch::Device;

use crate::{Error, ffi, run};

/// While it lives, this thread's operations on the device run in bfloat16 where that is safe (torch.autocast). What was
/// before is restored on drop.
#[derive(Debug)]
pub struct Autocast {
    device: c_int,
    was_on: bool,
    was_dtype: c_int,
    was_caching: bool,
    /// The switch belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches autocast on.
    ///
    /// # Errors
    /// When the device has none.
    pub fn enter(device: Device) -> Result<Self, Error> {
        let number = match device {
            Device::Cpu => 0,
            Device::Cuda(_) => 1,
            other => return Err(Error { operation: "autocast", reason: format!("{other:?} has no autocast") }),
        };
        let mut guard =
            Self { device: number, was_on: false, was_dtype: 0, was_caching: false, _not_send: PhantomData };
        // SAFETY: the pointers are fields of a live value.
        run("autocast", || unsafe {
            ffi::r2o_aten_autocast_enter(
                number,
                &raw mut guard.was_on,
                &raw mut guard.was_dtype,
                &raw mut guard.was_caching,
            )
        })?;
        Ok(guard)
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // Restoring thread-local flags cannot fail once `enter` has succeeded.
        let _restored = run("autocast", || {
            // SAFETY: no pointers.
            unsafe { ffi::r2o_aten_autocast_leave(self.device, self.was_on, self.was_dtype, self.was_caching) }
        });
    }
}

/// Whether this CPU multiplies bfloat16 in hardware; without it autocast is slower than float32.
#[must_use]
pub fn has_fast_bfloat16() -> bool {
    let mut answer = false;
    // SAFETY: the pointer is a local's.
    run("has_bfloat16", || unsafe { ffi::r2o_aten_has_bfloat16(&raw mut answer) }).is_ok() && answer
}
