//! Moments in a GPU's own time: the host only queues work, and its clock does not tell how long the work takes.

use std::ffi::c_int;
use std::ptr::NonNull;

use tch::Device;

use crate::{Error, ffi, run};

/// A moment among the operations that this thread queues on a GPU: it comes when those before it are done.
#[derive(Debug)]
pub struct Mark(NonNull<ffi::Event>);

// SAFETY: an event belongs to the device and may be asked and released from any thread.
unsafe impl Send for Mark {}

impl Mark {
    /// The moment after what this thread has queued on `device` so far; none on a CPU, which queues nothing.
    ///
    /// # Errors
    /// When the device fails.
    pub fn now(device: Device) -> Result<Option<Self>, Error> {
        let Device::Cuda(index) = device else { return Ok(None) };
        let (index, mut raw) = (c_int::try_from(index).unwrap_or(c_int::MAX), std::ptr::null_mut());
        // SAFETY: the shim writes an event that this side owns, or answers with a message.
        run("mark", || unsafe { ffi::r2o_aten_mark(index, &raw mut raw) })?;
        Ok(NonNull::new(raw).map(Self))
    }

    /// Blocks until the moment has come.
    ///
    /// # Errors
    /// When an operation before it failed on the device.
    pub fn wait(&self) -> Result<(), Error> {
        // SAFETY: the event lives as long as `self`.
        run("mark_wait", || unsafe { ffi::r2o_aten_mark_wait(self.0.as_ptr()) })
    }

    /// Seconds of the device from `earlier` to this; both must have come.
    ///
    /// # Errors
    /// When one has not come, or they are of different devices.
    pub fn seconds_since(&self, earlier: &Self) -> Result<f64, Error> {
        let mut milliseconds = 0.0;
        // SAFETY: both events live, and the number is a local's.
        run("mark_seconds", || unsafe {
            ffi::r2o_aten_mark_milliseconds(earlier.0.as_ptr(), self.0.as_ptr(), &raw mut milliseconds)
        })?;
        Ok(milliseconds / 1e3)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: made by the shim, released once.
        unsafe { ffi::r2o_aten_mark_drop(self.0.as_ptr()) }
    }
}
