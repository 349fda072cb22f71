//! The face of nccl.rs in programs built without CUDA: every call says so.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::Error;
use crate::ffi;
use crate::group::NcclOptions;
use crate::store::Store;

/// Whether this program can form NCCL groups at all.
pub const CUDA: bool = false;

pub(crate) fn form(
    _store: Arc<dyn Store>,
    _rank: usize,
    _world: usize,
    _options: &NcclOptions,
) -> Result<NonNull<ffi::Group>, Error> {
    Err(Error::NoCuda)
}
