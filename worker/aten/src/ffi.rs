//! The C face of cpp/shim.h.

use std::ffi::{CStr, c_char, c_int, c_void};

use torch_sys::C_tensor;

pub(crate) type Message = *mut c_char;
pub(crate) type Out = *mut *mut C_tensor;

/// cpp/shim.h's R2oLars.
#[repr(C)]
pub(crate) struct Lars {
    pub(crate) learning_rate: f64,
    pub(crate) momentum: f64,
    pub(crate) weight_decay: f64,
    pub(crate) trust: f64,
}

/// c10::Event.
#[repr(C)]
pub(crate) struct Event {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    pub(crate) fn r2o_aten_free(text: Message);
    pub(crate) fn r2o_aten_channels_last(tensor: *const C_tensor, out: Out) -> Message;
    pub(crate) fn r2o_aten_is_channels_last(tensor: *const C_tensor, out: *mut bool) -> Message;
    pub(crate) fn r2o_aten_alias(
        base: *const C_tensor,
        offset: i64,
        size: *const i64,
        dims: usize,
        channels_last: bool,
        out: Out,
    ) -> Message;
    pub(crate) fn r2o_aten_fan_out(
        leaf: *const C_tensor,
        value: *const C_tensor,
        lanes: usize,
        out: *mut *mut C_tensor,
    ) -> Message;
    pub(crate) fn r2o_aten_drop_grads(tensors: *const *const C_tensor, count: usize) -> Message;
    pub(crate) fn r2o_aten_deterministic(on: bool) -> Message;
    pub(crate) fn r2o_aten_autocast_enter(
        device: c_int,
        was_on: *mut bool,
        was_dtype: *mut c_int,
        was_caching: *mut bool,
    ) -> Message;
    pub(crate) fn r2o_aten_autocast_leave(device: c_int, was_on: bool, was_dtype: c_int, was_caching: bool) -> Message;
    pub(crate) fn r2o_aten_has_bfloat16(out: *mut bool) -> Message;
    pub(crate) fn r2o_aten_lars(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        momenta: *const *const C_tensor,
        adapt: *const bool,
        count: usize,
        options: *const Lars,
    ) -> Message;
    pub(crate) fn r2o_aten_norms(tensors: *const *const C_tensor, count: usize, out: Out) -> Message;
    pub(crate) fn r2o_aten_lerp(
        to: *const *const C_tensor,
        from: *const *const C_tensor,
        count: usize,
        weight: f64,
    ) -> Message;
    pub(crate) fn r2o_aten_kmeans(
        points: *const C_tensor,
        regions: *const C_tensor,
        centres: *const C_tensor,
        uniforms: *const C_tensor,
        clusters: i64,
        max_iterations: i64,
        tolerance: f64,
        labels: Out,
        inertia: Out,
        iterations: Out,
    ) -> Message;
    pub(crate) fn r2o_aten_cache_memory(limit: usize) -> Message;
    pub(crate) fn r2o_aten_mark(device_index: c_int, out: *mut *mut Event) -> Message;
    pub(crate) fn r2o_aten_mark_wait(mark: *const Event) -> Message;
    pub(crate) fn r2o_aten_mark_milliseconds(from: *const Event, to: *const Event, out: *mut f64) -> Message;
    pub(crate) fn r2o_aten_mark_drop(mark: *mut Event);
    pub(crate) fn r2o_aten_pinned(bytes: usize, out: Out) -> Message;
    pub(crate) fn r2o_aten_upload(
        data: *const c_void,
        size: *const i64,
        dims: usize,
        kind: i8,
        device_type: c_int,
        device_index: c_int,
        out: Out,
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
    unsafe { r2o_aten_free(message) };
    Err(text)
}
