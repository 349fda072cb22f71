//! Projector and predictor: Linear, batch norm over all (image, region) rows, ReLU, Linear.

use tch::Tensor;

use crate::error::StepError;
use crate::norm::{Norm, NormScope};
use crate::weights::{Init, Slots, Weights};

#[derive(Debug, Clone, Copy)]
struct Linear {
    weight: usize,
    bias: usize,
}

impl Linear {
    fn new(slots: &mut Slots, name: &str, input: i64, output: i64) -> Self {
        // nn.Linear's own start.
        let limit = 1.0 / (input as f64).sqrt();
        Self {
            weight: slots.param(format!("{name}.weight"), &[output, input], Init::Uniform(limit)),
            bias: slots.param(format!("{name}.bias"), &[output], Init::Uniform(limit)),
        }
    }

    fn forward(&self, x: &Tensor, weights: &Weights, scope: &NormScope) -> Result<Tensor, StepError> {
        weights.apply(x, [self.weight, self.bias], scope, |x, [weight, bias]| x.f_linear(weight, Some(bias)))
    }
}

/// A head's drawing; the values are in [`Weights`].
#[derive(Debug)]
pub(crate) struct Head {
    fc1: Linear,
    bn: Norm,
    fc2: Linear,
}

impl Head {
    pub(crate) fn new(slots: &mut Slots, name: &str, input: i64, hidden: i64, output: i64) -> Self {
        Self {
            fc1: Linear::new(slots, &format!("{name}.fc1"), input, hidden),
            bn: Norm::new(slots, &format!("{name}.bn"), hidden),
            fc2: Linear::new(slots, &format!("{name}.fc2"), hidden, output),
        }
    }

    /// (rows, input) to (rows, output); rows are lane-major.
    pub(crate) fn forward(&self, x: &Tensor, weights: &Weights, scope: &NormScope) -> Result<Tensor, StepError> {
        let hidden = self.bn.forward(&self.fc1.forward(x, weights, scope)?, weights, scope)?.f_relu_()?;
        self.fc2.forward(&hidden, weights, scope)
    }
}
