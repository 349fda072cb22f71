//! All lanes at once, or each by itself.

use tch::Tensor;

use crate::error::StepError;
use crate::norm::NormScope;

/// Applies an operation to lane-major tensors. Kernels add up in an order that depends on how much they are given, so where
/// results must not depend on who computes which lanes, each lane is given by itself; the operation learns its number
/// here, and the results are put together again.
pub(crate) fn by_lane<const N: usize>(
    scope: &NormScope,
    tensors: [&Tensor; N],
    operation: impl Fn(usize, [&Tensor; N]) -> Result<Tensor, StepError>,
) -> Result<Tensor, StepError> {
    let lanes = match scope.lanes_apart() {
        None | Some(1) => return operation(0, tensors),
        Some(lanes) => lanes,
    };
    let parts = tensors.map(|tensor| tensor.chunk(lanes as i64, 0));
    let of_lane = |lane: usize| operation(lane, std::array::from_fn(|at| &parts[at][lane]));
    let results = (0..lanes).map(of_lane).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&results, 0)?)
}
