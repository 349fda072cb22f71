//! What an image's values are on their way from the loader to the device.

use crate::job::{JobSpec, PixelType, Precision};

/// ImageNet's mean of red, green and blue, of values in [0, 1] (torchvision's weights).
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation, likewise.
pub const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Types of a batch's values, by PyTorch's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Normalised, in IEEE single precision.
    Float32,
    /// Normalised, rounded to the nearest bfloat16, ties to even.
    Bfloat16,
    /// Levels from 0 to 255, not normalised.
    Uint8,
}

impl Dtype {
    /// Bytes of one value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 => 2,
            Self::Uint8 => 1,
        }
    }
}

impl JobSpec {
    /// Type of the values that the job's loaders make.
    #[must_use]
    pub fn pixel_dtype(&self) -> Dtype {
        match (self.data.pixel_type, self.precision) {
            (PixelType::Uint8, _) => Dtype::Uint8,
            (PixelType::Float, Precision::Float32) => Dtype::Float32,
            // What autocast would make of float32, with half the bytes to move.
            (PixelType::Float, Precision::Bfloat16) => Dtype::Bfloat16,
        }
    }
}
