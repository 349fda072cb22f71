//! Batch norm in training mode over groups of lanes.

use r2o_c10d::{NormLayout, ProcessGroup};
use tch::Tensor;

use crate::error::StepError;
use crate::weights::{Init, Slots, Weights};

/// nn.BatchNorm2d's defaults.
const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;

/// Which lanes share statistics, and through whom.
#[derive(Debug)]
pub(crate) struct NormScope {
    pub(crate) layout: NormLayout,
    pub(crate) group: Option<ProcessGroup>,
}

impl NormScope {
    /// One lane by itself.
    pub(crate) fn single() -> Self {
        Self { layout: NormLayout::new(1, 1, &[0]), group: None }
    }

    /// How many lanes are to be computed apart from each other; none where they may be computed together.
    pub(crate) fn lanes_apart(&self) -> Option<usize> {
        self.layout.is_reproducible().then(|| self.layout.local_lanes() as usize)
    }
}

/// One norm layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    weight: usize,
    bias: usize,
    mean: usize,
    var: usize,
}

impl Norm {
    pub(crate) fn new(slots: &mut Slots, name: &str, channels: i64) -> Self {
        Self {
            weight: slots.param(format!("{name}.weight"), &[channels], Init::Constant(1.0)),
            bias: slots.param(format!("{name}.bias"), &[channels], Init::Constant(0.0)),
            mean: slots.buffer(format!("{name}.running_mean"), &[channels], 0.0),
            var: slots.buffer(format!("{name}.running_var"), &[channels], 1.0),
        }
    }

    /// Normalises lane-major rows, and moves the running statistics.
    pub(crate) fn forward(&self, x: &Tensor, weights: &Weights, scope: &NormScope) -> Result<Tensor, StepError> {
        Ok(r2o_c10d::batch_norm(
            x,
            &weights.of_norm(self.weight, scope)?,
            &weights.of_norm(self.bias, scope)?,
            &weights.buffers[self.mean],
            &weights.buffers[self.var],
            &scope.layout,
            scope.group.as_ref(),
            MOMENTUM,
            EPS,
        )?)
    }
}
