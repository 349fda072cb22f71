//! The C face of cpp/shim.h and cpp/norm.h.

use std::ffi::{CStr, c_char, c_int, c_void};

use torch_sys::C_tensor;

/// c10d::ProcessGroup and its backend, owned by C++.
#[repr(C)]
pub(crate) struct Group {
    _private: [u8; 0],
}

/// One local group of lanes for the norm: cpp/norm.h's LocalGroup.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormGroup {
    pub(crate) first: i64,
    pub(crate) lanes: i64,
    pub(crate) shared: i64,
    pub(crate) counts: bool,
}

/// cpp/norm.h's Norm.
#[repr(C)]
pub(crate) struct Norm {
    pub(crate) weight: *const C_tensor,
    pub(crate) bias: *const C_tensor,
    pub(crate) running_mean: *const C_tensor,
    pub(crate) running_var: *const C_tensor,
    pub(crate) group: *mut Group,
    pub(crate) local: *const NormGroup,
    pub(crate) local_count: usize,
    pub(crate) shared_count: usize,
    pub(crate) lanes_per_group: i64,
    pub(crate) running_from_shared: bool,
    pub(crate) by_lane: bool,
    pub(crate) momentum: f64,
    pub(crate) eps: f64,
}

pub(crate) type Message = *mut c_char;

unsafe extern "C" {
    pub(crate) fn r2o_c10d_free(text: Message);
    pub(crate) fn r2o_c10d_message(text: *const c_char, len: usize) -> Message;
    pub(crate) fn r2o_c10d_bytes(out: *mut c_void, data: *const u8, len: usize);

    pub(crate) fn r2o_gloo_device(address: *const c_char, is_interface: bool, out: *mut *mut c_void) -> Message;
    pub(crate) fn r2o_gloo_device_drop(device: *mut c_void);
    pub(crate) fn r2o_gloo_group(
        store: *mut c_void,
        device: *mut c_void,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        out: *mut *mut Group,
    ) -> Message;
    pub(crate) fn r2o_group_drop(group: *mut Group);
    pub(crate) fn r2o_group_abort(group: *mut Group) -> Message;
    pub(crate) fn r2o_group_all_reduce(group: *mut Group, tensor: *mut C_tensor) -> Message;
    pub(crate) fn r2o_group_broadcast(group: *mut Group, tensor: *mut C_tensor, root: c_int) -> Message;
    pub(crate) fn r2o_group_all_gather(group: *mut Group, tensor: *const C_tensor, out: *mut *mut C_tensor) -> Message;
    pub(crate) fn r2o_group_barrier(group: *mut Group, device: c_int) -> Message;

    pub(crate) fn r2o_reducer_new(
        group: *mut Group,
        params: *const *const C_tensor,
        count: usize,
        first_bucket_bytes: usize,
        bucket_bytes: usize,
        find_unused: bool,
        out: *mut *mut c_void,
    ) -> Message;
    pub(crate) fn r2o_reducer_prepare_forward(reducer: *mut c_void) -> Message;
    pub(crate) fn r2o_reducer_prepare_backward(reducer: *mut c_void) -> Message;
    pub(crate) fn r2o_reducer_wait_seconds(reducer: *mut c_void, out: *mut f64) -> Message;
    pub(crate) fn r2o_reducer_drop(reducer: *mut c_void) -> Message;

    pub(crate) fn r2o_batch_norm(input: *const C_tensor, norm: *const Norm, out: *mut *mut C_tensor) -> Message;
}

#[cfg(feature = "cuda")]
unsafe extern "C" {
    pub(crate) fn r2o_nccl_group(
        store: *mut c_void,
        device: c_int,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        out: *mut *mut Group,
    ) -> Message;
}

/// Turns a message of the shim into a result, and releases it.
///
/// # Safety
/// `message` is null or was made by the shim and not yet released.
pub(crate) unsafe fn take(message: Message) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim's messages end in a zero byte and live until they are released below.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().trim().to_owned();
    // SAFETY: released once, here.
    unsafe { r2o_c10d_free(message) };
    Err(text)
}
