//! A parameter that is used by several lanes and keeps their gradients exact.

use tch::Tensor;

use crate::{Error, ffi, run};

/// `value` once for each of `lanes`: tensors over its memory, for whose gradients autograd adds up a float64 sum in `leaf`,
/// a float64 tensor of the same shape that requires gradients (its values do not matter).
///
/// Float32 numbers add up exactly in float64, unless some are 2^27 times others, so the sum does not depend on who adds
/// which lanes, nor on the order.
///
/// # Errors
/// When the shapes differ or the leaf is not float64.
pub fn fan_out(leaf: &Tensor, value: &Tensor, lanes: usize) -> Result<Vec<Tensor>, Error> {
    if leaf.size() != value.size() || leaf.kind() != tch::Kind::Double {
        let reason = format!("the leaf is {:?} {:?}, expected Double {:?}", leaf.kind(), leaf.size(), value.size());
        return Err(Error { operation: "fan_out", reason });
    }
    let mut out = vec![std::ptr::null_mut(); lanes];
    // SAFETY: both tensors are live for the call and there is room for every result.
    run("fan_out", || unsafe { ffi::r2o_aten_fan_out(leaf.as_ptr(), value.as_ptr(), lanes, out.as_mut_ptr()) })?;
    // SAFETY: the shim made these tensors and this side owns them.
    Ok(out.into_iter().map(|tensor| unsafe { Tensor::from_ptr(tensor) }).collect())
}
