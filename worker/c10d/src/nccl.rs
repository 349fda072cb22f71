//! NCCL groups. Built with the feature `cuda`; nccl_stub.rs has the same face without it.

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use crate::error::Error;
use crate::group::{NcclOptions, as_int, as_millis};
use crate::store::Store;
use crate::{bridge, ffi};

/// Whether this program can form NCCL groups at all.
pub const CUDA: bool = true;

pub(crate) fn form(
    store: Arc<dyn Store>,
    rank: usize,
    world: usize,
    options: &NcclOptions,
) -> Result<NonNull<ffi::Group>, Error> {
    let failed = |reason| Error::Rendezvous { rank, world, timeout: options.timeout, reason };
    let mut raw = null_mut();
    // SAFETY: the shim takes the exported store over.
    unsafe {
        ffi::take(ffi::r2o_nccl_group(
            bridge::export(store),
            as_int(options.device),
            as_int(rank),
            as_int(world),
            as_millis(options.timeout),
            &raw mut raw,
        ))
    }
    .map_err(failed)?;
    NonNull::new(raw).ok_or_else(|| failed("libtorch made no group".to_owned()))
}
