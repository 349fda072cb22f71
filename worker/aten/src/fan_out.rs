//! A parameter that is used by several lanes and keeps their gradients exact.

use tch::Tensor;

use crate::{Error, ffi, run};

/// `value` once for each of `lanes`: tensors over its memory, whose gradients autograd adds up in `leaf`, a float64 tensor
/// (2, shape of `value`) that requires gradients (its values do not matter).
///
/// The gradient of `leaf` has two parts, of the units 2^-24 and 2^-66, whose sum is the gradient's. Each part is a sum of
/// multiples of its unit, which float64 adds up exactly: it does not depend on who adds which lanes, nor on the order, and
/// may be added up further, over ranks. That holds for up to 4096 lanes and sums below 2^29 in magnitude; of gradients
/// below 2^-67 nothing remains.
///
/// # Errors
/// When the shapes do not fit or the leaf is not float64.
pub fn fan_out(leaf: &Tensor, value: &Tensor, lanes: usize) -> Result<Vec<Tensor>, Error> {
    let expected = [&[2], value.size().as_slice()].concat();
    if leaf.size() != expected || leaf.kind() != tch::Kind::Double {
        let reason = format!("the leaf is {:?} {:?}, expected Double {expected:?}", leaf.kind(), leaf.size());
        return Err(Error { operation: "fan_out", reason });
    }
    let mut out = vec![std::ptr::null_mut(); lanes];
    // SAFETY: both tensors are live for the call and there is room for every result.
    run("fan_out", || unsafe { ffi::r2o_aten_fan_out(leaf.as_ptr(), value.as_ptr(), lanes, out.as_mut_ptr()) })?;
    // SAFETY: the shim made these tensors and this side owns them.
    Ok(out.into_iter().map(|tensor| unsafe { Tensor::from_ptr(tensor) }).collect())
}
