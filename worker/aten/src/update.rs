//! Updates over many tensors at once.

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, ffi, make, run};

/// LARS (You et al., 2017) as METHOD.md states it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LarsOptions {
    /// Learning rate; inside the momentum.
    pub learning_rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay of adapted parameters.
    pub weight_decay: f64,
    /// Trust coefficient (eta).
    pub trust: f64,
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

fn same_length(operation: &'static str, lengths: &[usize]) -> Result<(), Error> {
    if lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    Err(Error { operation, reason: format!("the lists have different lengths: {lengths:?}") })
}

/// Forgets the gradients, so that the next backward pass brings its own memory instead of adding to them.
///
/// # Errors
/// When libtorch refuses.
pub fn drop_grads(tensors: &[Tensor]) -> Result<(), Error> {
    let list = pointers(tensors);
    // SAFETY: the list's entries are live.
    run("drop_grads", || unsafe { ffi::r2o_aten_drop_grads(list.as_ptr(), list.len()) })
}

/// One update of all parameters and their momentum, in place. With `r` the trust ratio eta |w| / (|g| + decay |w|), or 1
/// where |w| or |g| is 0: `m = momentum m + lr r (g + decay w)`, `w = w - m`. Where `adapt` is false (biases and norm
/// parameters) r is 1 and decay 0.
///
/// # Errors
/// When the lists do not fit together or a gradient is missing.
pub fn lars(
    params: &[Tensor],
    grads: &[Tensor],
    momenta: &[Tensor],
    adapt: &[bool],
    options: LarsOptions,
) -> Result<(), Error> {
    same_length("lars", &[params.len(), grads.len(), momenta.len(), adapt.len()])?;
    let raw = ffi::Lars {
        learning_rate: options.learning_rate,
        momentum: options.momentum,
        weight_decay: options.weight_decay,
        trust: options.trust,
    };
    let (p, g, m) = (pointers(params), pointers(grads), pointers(momenta));
    // SAFETY: all lists have `params.len()` live entries.
    run("lars", || unsafe {
        ffi::r2o_aten_lars(p.as_ptr(), g.as_ptr(), m.as_ptr(), adapt.as_ptr(), params.len(), &raw const raw)
    })
}

/// Euclidean norms of all tensors, (n) float64 on the CPU.
///
/// # Errors
/// When libtorch refuses.
pub fn norms(tensors: &[Tensor]) -> Result<Tensor, Error> {
    let list = pointers(tensors);
    // SAFETY: the list's entries are live.
    make("norms", |out| unsafe { ffi::r2o_aten_norms(list.as_ptr(), list.len(), out) })
}

/// Exponential moving average in place: `target = tau target + (1 - tau) online`.
///
/// # Errors
/// When the lists do not fit together.
pub fn ema(target: &[Tensor], online: &[Tensor], tau: f64) -> Result<(), Error> {
    same_length("ema", &[target.len(), online.len()])?;
    let (to, from) = (pointers(target), pointers(online));
    // SAFETY: both lists have `to.len()` live entries.
    run("ema", || unsafe { ffi::r2o_aten_lerp(to.as_ptr(), from.as_ptr(), to.len(), 1.0 - tau) })
}
