//! ResNet-18, 34 and 50 (He et al., 2016) with the parameter names of torchvision/models/resnet.py, without pooling and
//! classifier.

use tch::Tensor;

use crate::error::StepError;
use crate::norm::{Norm, NormScope};
use crate::weights::{Init, Slots, Weights};
use r2o_types::Backbone as Kind;

/// Channels of the stem.
const STEM: i64 = 64;
/// Inner channels of the four stages.
const WIDTHS: [i64; 4] = [64, 128, 256, 512];

/// A convolution without bias and the norm after it.
#[derive(Debug)]
struct ConvNorm {
    weight: usize,
    norm: Norm,
    stride: i64,
    padding: i64,
}

impl ConvNorm {
    fn new(slots: &mut Slots, conv: &str, norm: &str, channels: [i64; 2], side: i64, stride: i64) -> Self {
        let [input, output] = channels;
        // Kaiming normal, fan out, for ReLU: what torchvision starts with.
        let deviation = (2.0 / (output * side * side) as f64).sqrt();
        Self {
            weight: slots.param(format!("{conv}.weight"), &[output, input, side, side], Init::Normal(deviation)),
            norm: Norm::new(slots, norm, output),
            stride,
            padding: side / 2,
        }
    }

    fn forward(&self, x: &Tensor, weights: &Weights, scope: &NormScope) -> Result<Tensor, StepError> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let conv = |x: &Tensor, [weight]: [&Tensor; 1]| x.f_conv2d(weight, None::<&Tensor>, stride, padding, [1, 1], 1);
        let y = weights.apply(x, [self.weight], scope, conv)?;
        self.norm.forward(&y, weights, scope)
    }
}

/// A basic block (two 3x3) or a bottleneck (1x1, 3x3 with the stride, 1x1).
#[derive(Debug)]
struct Block {
    convs: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    fn new(slots: &mut Slots, name: &str, input: i64, width: i64, stride: i64, expansion: i64) -> Self {
        let output = width * expansion;
        let mut conv = |number: usize, channels: [i64; 2], side: i64, stride: i64| {
            ConvNorm::new(slots, &format!("{name}.conv{number}"), &format!("{name}.bn{number}"), channels, side, stride)
        };
        let convs = if expansion == 1 {
            vec![conv(1, [input, width], 3, stride), conv(2, [width, width], 3, 1)]
        } else {
            vec![conv(1, [input, width], 1, 1), conv(2, [width, width], 3, stride), conv(3, [width, output], 1, 1)]
        };
        let downsample = (stride != 1 || input != output).then(|| {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            ConvNorm::new(slots, &conv, &norm, [input, output], 1, stride)
        });
        Self { convs, downsample }
    }

    fn forward(&self, x: &Tensor, weights: &Weights, scope: &NormScope) -> Result<Tensor, StepError> {
        let mut y = x.shallow_clone();
        for (i, conv) in self.convs.iter().enumerate() {
            y = conv.forward(&y, weights, scope)?;
            if i + 1 < self.convs.len() {
                y = y.f_relu_()?;
            }
        }
        let mut sum = match &self.downsample {
            Some(conv) => y.f_add_(&conv.forward(x, weights, scope)?)?,
            None => y.f_add_(x)?,
        };
        Ok(sum.f_relu_()?)
    }
}

/// The encoder's drawing; the values are in [`Weights`].
#[derive(Debug)]
pub(crate) struct Backbone {
    stem: ConvNorm,
    stages: [Vec<Block>; 4],
    expansion: i64,
}

impl Backbone {
    /// Declares the parameters under `prefix`. None for an encoder that is not a ResNet.
    pub(crate) fn new(slots: &mut Slots, prefix: &str, kind: Kind) -> Option<Self> {
        let (depths, expansion) = match kind {
            Kind::Resnet18 => ([2, 2, 2, 2], 1),
            Kind::Resnet34 => ([3, 4, 6, 3], 1),
            Kind::Resnet50 => ([3, 4, 6, 3], 4),
            Kind::VitB16 => return None,
        };
        let stem = ConvNorm::new(slots, &format!("{prefix}.conv1"), &format!("{prefix}.bn1"), [3, STEM], 7, 2);
        let mut input = STEM;
        let stages = std::array::from_fn(|stage| {
            (0..depths[stage])
                .map(|block| {
                    let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                    let name = format!("{prefix}.layer{}.{block}", stage + 1);
                    let made = Block::new(slots, &name, input, WIDTHS[stage], stride, expansion);
                    input = WIDTHS[stage] * expansion;
                    made
                })
                .collect()
        });
        Some(Self { stem, stages, expansion })
    }

    /// Channels of C5.
    pub(crate) fn channels(&self) -> i64 {
        WIDTHS[3] * self.expansion
    }

    /// (N, 3, s, s) to C4 (N, channels, s/16, s/16): the first three stages.
    pub(crate) fn c4(&self, x: &Tensor, weights: &Weights, scope: &NormScope) -> Result<Tensor, StepError> {
        let x = self.stem.forward(x, weights, scope)?.f_relu_()?;
        let mut x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        for block in self.stages[..3].iter().flatten() {
            x = block.forward(&x, weights, scope)?;
        }
        Ok(x)
    }

    /// (N, 3, s, s) to C5 (N, channels, s/32, s/32).
    pub(crate) fn c5(&self, x: &Tensor, weights: &Weights, scope: &NormScope) -> Result<Tensor, StepError> {
        let mut x = self.c4(x, weights, scope)?;
        for block in &self.stages[3] {
            x = block.forward(&x, weights, scope)?;
        }
        Ok(x)
    }
}
