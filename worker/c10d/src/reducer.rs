//! The DDP reducer: gradients averaged over the ranks, bucket by bucket, while backward goes on.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

use tch::Tensor;

use crate::error::Error;
use crate::ffi;
use crate::group::ProcessGroup;

/// How gradients are grouped into messages. The defaults are DistributedDataParallel's.
#[derive(Debug, Clone, Copy)]
pub struct ReducerOptions {
    /// The size of a bucket, in MiB.
    pub bucket_mb: f64,
    /// The size of the first bucket to become ready, in MiB: small, so that communication starts early.
    pub first_bucket_mb: f64,
    /// Whether some parameters may get no gradient in a step. Costs a walk over the graph.
    pub find_unused: bool,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        Self { bucket_mb: 25.0, first_bucket_mb: 1.0, find_unused: false }
    }
}

/// c10d::Reducer over a set of parameters.
///
/// In each step: [`Reducer::prepare_forward`], the forward pass, [`Reducer::prepare_backward`], then `backward`, after
/// which each parameter's `grad` is the **mean** over the ranks of what they computed. Gradients are views of the
/// buckets: set them to zero in place or drop them, and do not keep them across steps. A backward that fails leaves the
/// reducer unusable; make a new one with the next group.
#[derive(Debug)]
pub struct Reducer {
    raw: NonNull<c_void>,
    group: ProcessGroup,
}

// SAFETY: c10d::Reducer locks for itself, since autograd calls it from its own threads.
unsafe impl Send for Reducer {}

impl Reducer {
    /// Hooks the parameters; all ranks must pass the same shapes in the same order, which is checked.
    ///
    /// # Errors
    /// When the ranks' parameters differ, one of them wants no gradient, or a peer is lost.
    pub fn new(group: &ProcessGroup, params: &[Tensor], options: ReducerOptions) -> Result<Self, Error> {
        if let Some(index) = params.iter().position(|p| !p.requires_grad()) {
            let reason = format!("parameter {index} of shape {:?} does not require a gradient", params[index].size());
            return Err(Error::Argument { operation: "reducer", reason });
        }
        let pointers: Vec<_> = params.iter().map(Tensor::as_ptr).collect();
        let mut raw = null_mut();
        group.run("reducer", || {
            // SAFETY: the pointers are live tensors; the shim takes references of its own.
            unsafe {
                ffi::r2o_reducer_new(
                    group.raw(),
                    pointers.as_ptr(),
                    pointers.len(),
                    bytes(options.first_bucket_mb),
                    bytes(options.bucket_mb),
                    options.find_unused,
                    &raw mut raw,
                )
            }
        })?;
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::Argument { operation: "reducer", reason: "libtorch made none".to_owned() })?;
        Ok(Self { raw, group: group.clone() })
    }

    /// Before the forward pass: takes over the true order of gradients after the first step (one small broadcast).
    ///
    /// # Errors
    /// When a peer is lost or the group is aborted.
    pub fn prepare_forward(&self) -> Result<(), Error> {
        // SAFETY: the reducer is live.
        self.group.run("reducer's forward", || unsafe { ffi::r2o_reducer_prepare_forward(self.raw.as_ptr()) })
    }

    /// Between forward and backward: arms the hooks.
    ///
    /// # Errors
    /// When the last backward did not finish.
    pub fn prepare_backward(&self) -> Result<(), Error> {
        // SAFETY: as above.
        self.group.run("reducer's backward", || unsafe { ffi::r2o_reducer_prepare_backward(self.raw.as_ptr()) })
    }

    /// After backward: for how many seconds it had computed every gradient and waited for their averages, which is the part
    /// of communication that computing did not hide; 0 before the first backward. On a GPU these are seconds of its stream,
    /// and this waits for it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn wait_seconds(&self) -> Result<f64, Error> {
        let operation = "reducer's times";
        let mut seconds = 0.0;
        // SAFETY: the reducer is live, the shim writes one number, and its message is fresh.
        unsafe { ffi::take(ffi::r2o_reducer_wait_seconds(self.raw.as_ptr(), &raw mut seconds)) }
            .map_err(|reason| Error::Argument { operation, reason })?;
        Ok(seconds)
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by the shim and released once.
        if let Err(reason) = unsafe { ffi::take(ffi::r2o_reducer_drop(self.raw.as_ptr())) } {
            tracing::warn!(reason, "the reducer did not go quietly");
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn bytes(mib: f64) -> usize {
    (mib * 1024.0 * 1024.0).max(1.0) as usize
}
