//! Batch norm whose statistics cover groups of lanes, the same whatever worker computes which lanes.

mod layout;

use std::ptr::{null, null_mut};

use tch::{Kind, Tensor};

use crate::error::Error;
use crate::ffi;
use crate::group::ProcessGroup;
pub use layout::{LocalGroup, NormLayout};

const OPERATION: &str = "batch norm";

/// Normalises `input` over each group of lanes, in training mode (nn.BatchNorm2d, nn.SyncBatchNorm).
///
/// `input` is (N, C, H, W), contiguous or channels_last, or (N, C); its rows are lane-major and every lane, here and on
/// other ranks, has equally many. It is float32 or bfloat16; parameters and buffers are (C), float32. The result has
/// the input's type and memory format. Differentiable in `input`, `weight` and `bias`; the gradients of weight and bias
/// are this rank's share, which the [`crate::Reducer`] averages.
///
/// The running buffers move by `momentum` towards the mean over groups of the groups' statistics (variance unbiased).
/// Where [`NormLayout::running_is_exact`] is false a rank knows only its own groups' share: call
/// [`average_running`] once per step.
///
/// Groups that span ranks cost one all-reduce of 2C float64 per group in forward and one in backward, so all ranks
/// call this in the same order. On CUDA one group that is wholly local runs torch's own kernels.
///
/// Where the layout is [`NormLayout::reproducible`], `weight` and `bias` may be (local lanes, C), the same values in every
/// row: then each lane has gradients of its own, and whoever adds them up decides about the order.
///
/// # Errors
/// When shapes do not fit, a group spans ranks but `pg` is none, or a peer is lost. In backward such an error surfaces
/// as a [`tch::TchError`].
#[allow(clippy::too_many_arguments)]
pub fn batch_norm(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    layout: &NormLayout,
    pg: Option<&ProcessGroup>,
    momentum: f64,
    eps: f64,
) -> Result<Tensor, Error> {
    check(input, weight, layout, pg)?;
    let local: Vec<_> = layout.local_groups().iter().map(|group| layout.describe(group)).collect();
    let shared = layout.shared_groups().len();
    let norm = ffi::Norm {
        weight: weight.as_ptr(),
        bias: bias.as_ptr(),
        running_mean: running_mean.as_ptr(),
        running_var: running_var.as_ptr(),
        group: pg.filter(|_| shared > 0).map_or(null_mut(), ProcessGroup::raw),
        local: if local.is_empty() { null() } else { local.as_ptr() },
        local_count: local.len(),
        shared_count: shared,
        lanes_per_group: i64::from(layout.lanes_per_group()),
        running_from_shared: layout.shared_is_everything(),
        by_lane: layout.is_reproducible(),
        momentum,
        eps,
    };
    let mut out = null_mut();
    // SAFETY: every pointer is live for the call; the result is a fresh tensor that this side owns.
    let mut call = || unsafe { ffi::r2o_batch_norm(input.as_ptr(), &raw const norm, &raw mut out) };
    match pg {
        Some(pg) => pg.run(OPERATION, call)?,
        // SAFETY: the message is the shim's and fresh.
        None => unsafe { ffi::take(call()) }.map_err(|reason| Error::Argument { operation: OPERATION, reason })?,
    }
    // SAFETY: as above.
    Ok(unsafe { Tensor::from_ptr(out) })
}

fn check(input: &Tensor, weight: &Tensor, layout: &NormLayout, pg: Option<&ProcessGroup>) -> Result<(), Error> {
    let refuse = |reason| Err(Error::Argument { operation: OPERATION, reason });
    let size = input.size();
    if !matches!(size.len(), 2 | 4) {
        return refuse(format!("the input is (N, C) or (N, C, H, W), not {size:?}"));
    }
    let lanes = i64::from(layout.local_lanes());
    if lanes == 0 || size[0] == 0 || size[0] % lanes != 0 {
        return refuse(format!("{} rows cannot be dealt to {lanes} lanes", size[0]));
    }
    let of_lanes = layout.is_reproducible() && weight.size() == [lanes, size[1]];
    if weight.size() != [size[1]] && !of_lanes {
        return refuse(format!("the weight is {:?} but the input {size:?}", weight.size()));
    }
    let all_here = layout.local_lanes() == layout.groups_total() * layout.lanes_per_group();
    if pg.is_none() && !layout.shared_groups().is_empty() && !all_here {
        return refuse("a group of lanes spans workers, so a process group is needed".to_owned());
    }
    Ok(())
}

/// Makes the running buffers of all ranks the ones that a single rank with all lanes would hold. Call it once per step,
/// after the forward passes, with all buffers (any shapes, one floating type) in the same order on every rank; it is
/// one all-reduce. Does nothing where [`NormLayout::running_is_exact`].
///
/// A running buffer moves linearly in the statistics that it sees, so the mean of the ranks' buffers, weighted by how
/// many groups each took in, equals the buffer that saw the mean over all groups; also over several forward passes.
///
/// # Errors
/// When a peer is lost or the group is aborted; some buffers may have changed then.
pub fn average_running(layout: &NormLayout, pg: Option<&ProcessGroup>, buffers: &[Tensor]) -> Result<(), Error> {
    let Some(pg) = pg.filter(|_| !layout.running_is_exact() && !buffers.is_empty()) else { return Ok(()) };
    tch::no_grad(|| {
        let flat: Vec<_> = buffers.iter().map(|buffer| buffer.detach().reshape([-1])).collect();
        let mut sum = Tensor::cat(&flat, 0).to_kind(Kind::Double) * layout.running_weight();
        pg.all_reduce_sum(&mut sum)?;
        let mut at = 0;
        for buffer in buffers {
            let len = i64::try_from(buffer.numel()).unwrap_or(i64::MAX);
            // `data` has a version counter of its own: torch's batch norm saves the buffers for backward and would
            // refuse to go on, though in training it never reads them there.
            buffer.data().copy_(&sum.narrow(0, at, len).view_as(buffer));
            at += len;
        }
        Ok(())
    })
}
