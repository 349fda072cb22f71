//! The calls from C++'s store into a Rust [`Store`].

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::ffi::{Message, r2o_c10d_bytes, r2o_c10d_message};
use crate::store::Store;

/// What C++ holds: released by `r2o_store_drop`.
struct Handle(Arc<dyn Store>);

/// Hands a store to C++, which owns the result.
pub(crate) fn export(store: Arc<dyn Store>) -> *mut c_void {
    Box::into_raw(Box::new(Handle(store))).cast()
}

fn message(text: &str) -> Message {
    // SAFETY: the pointer and length are those of a live string, which is copied.
    unsafe { r2o_c10d_message(text.as_ptr().cast(), text.len()) }
}

/// Runs a call; a panic becomes a message, since it must not unwind into C++.
fn answer(body: impl FnOnce() -> Result<(), String>) -> Message {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => std::ptr::null_mut(),
        Ok(Err(reason)) => message(&reason),
        Err(_) => message("the rendezvous store panicked"),
    }
}

/// # Safety
/// `store` comes from [`export`] and is not dropped.
unsafe fn store<'a>(store: *mut c_void) -> &'a dyn Store {
    // SAFETY: by the caller.
    unsafe { &*(&*store.cast::<Handle>()).0 }
}

/// # Safety
/// `data` is valid for `len` bytes, or `len` is zero.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: by the caller.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// # Safety
/// As [`bytes`].
unsafe fn text(data: *const c_char, len: usize) -> Result<String, String> {
    // SAFETY: by the caller.
    let raw = unsafe { bytes(data.cast(), len) };
    String::from_utf8(raw.to_vec()).map_err(|_| "a rendezvous key is not UTF-8".to_owned())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn r2o_store_set(
    handle: *mut c_void,
    key: *const c_char,
    key_len: usize,
    value: *const u8,
    len: usize,
) -> Message {
    // SAFETY: cpp/store.cpp passes a live handle and buffers with their lengths.
    answer(|| unsafe { store(handle).set(&text(key, key_len)?, bytes(value, len)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn r2o_store_get(
    handle: *mut c_void,
    key: *const c_char,
    key_len: usize,
    timeout_ms: i64,
    out: *mut c_void,
) -> Message {
    answer(|| {
        let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        // SAFETY: as above; `out` is a vector of bytes on the caller's stack.
        let value = unsafe { store(handle).get(&text(key, key_len)?, timeout) }?;
        unsafe { r2o_c10d_bytes(out, value.as_ptr(), value.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn r2o_store_add(
    handle: *mut c_void,
    key: *const c_char,
    key_len: usize,
    delta: i64,
    out: *mut i64,
) -> Message {
    answer(|| {
        // SAFETY: as above; `out` is an integer on the caller's stack.
        unsafe { *out = store(handle).add(&text(key, key_len)?, delta)? };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn r2o_store_compare_set(
    handle: *mut c_void,
    key: *const c_char,
    key_len: usize,
    expected: *const u8,
    expected_len: usize,
    desired: *const u8,
    desired_len: usize,
    out: *mut c_void,
) -> Message {
    answer(|| {
        // SAFETY: as above.
        let value = unsafe {
            let (expected, desired) = (bytes(expected, expected_len), bytes(desired, desired_len));
            store(handle).compare_set(&text(key, key_len)?, expected, desired)
        }?;
        unsafe { r2o_c10d_bytes(out, value.as_ptr(), value.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn r2o_store_check(
    handle: *mut c_void,
    keys: *const *const c_char,
    lens: *const usize,
    count: usize,
    out: *mut bool,
) -> Message {
    answer(|| {
        // SAFETY: as above; both arrays have `count` entries.
        let names = (0..count).map(|i| unsafe { text(*keys.add(i), *lens.add(i)) }).collect::<Result<Vec<_>, _>>()?;
        unsafe { *out = store(handle).check(&names)? };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn r2o_store_delete(
    handle: *mut c_void,
    key: *const c_char,
    key_len: usize,
    out: *mut bool,
) -> Message {
    answer(|| {
        // SAFETY: as above.
        unsafe { *out = store(handle).delete(&text(key, key_len)?)? };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn r2o_store_drop(handle: *mut c_void) {
    // SAFETY: called once, by the last owner in C++.
    drop(unsafe { Box::from_raw(handle.cast::<Handle>()) });
}
