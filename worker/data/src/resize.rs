//! Bicubic resize with antialiasing, as PIL's `BICUBIC` (Catmull-Rom, a = -0.5).

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::Picture;
use crate::error::DecodeError;

/// A box in pixels of the source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Crop {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Crop {
    /// The whole picture.
    pub(crate) fn whole(picture: &Picture) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(picture.width), height: f64::from(picture.height) }
    }
}

/// A resizer with its buffers, one per thread.
pub(crate) struct Scaler {
    resizer: Resizer,
}

impl Scaler {
    pub(crate) fn new() -> Self {
        Self { resizer: Resizer::new() }
    }

    /// The crop of a picture as `side` x `side` RGB, row-major, into `out`.
    pub(crate) fn square(
        &mut self,
        picture: &Picture,
        crop: Crop,
        side: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let broken = |e: &dyn std::fmt::Display| DecodeError::Broken(e.to_string());
        out.resize(3 * (side * side) as usize, 0);
        // The typed images: the others would compile every pixel format's kernels into this crate.
        let source = TypedImageRef::<U8x3>::from_buffer(picture.width, picture.height, &picture.rgb);
        let source = source.map_err(|e| broken(&e))?;
        let mut target = TypedImage::<U8x3>::from_buffer(side, side, out).map_err(|e| broken(&e))?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).crop(
            crop.left,
            crop.top,
            crop.width,
            crop.height,
        );
        self.resizer.resize_typed(&source, &mut target, &options).map_err(|e| broken(&e))
    }
}

/// A label map of another size: each pixel takes the label at its centre.
pub(crate) fn nearest(labels: &[u8], from: u32, to: u32, out: &mut [u8]) {
    if from == to {
        out.copy_from_slice(labels);
        return;
    }
    let at = |i: u32| ((2 * u64::from(i) + 1) * u64::from(from) / (2 * u64::from(to))) as usize;
    for y in 0..to {
        let row = &labels[at(y) * from as usize..][..from as usize];
        let target = &mut out[(y * to) as usize..][..to as usize];
        for (x, value) in target.iter_mut().enumerate() {
            *value = row[at(x as u32)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_takes_centres() {
        let labels = [1, 2, 3, 4];
        let mut up = [0; 16];
        nearest(&labels, 2, 4, &mut up);
        assert_eq!(up, [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
        let mut same = [0; 4];
        nearest(&labels, 2, 2, &mut same);
        assert_eq!(same, labels);
    }

    #[test]
    fn a_flat_picture_stays_flat() {
        let picture = Picture { width: 50, height: 30, rgb: vec![77; 50 * 30 * 3] };
        let mut out = Vec::new();
        let crop = Crop { left: 3.25, top: 1.5, width: 20.5, height: 25.0 };
        Scaler::new().square(&picture, crop, 32, &mut out).unwrap();
        assert!(out.iter().all(|&v| v == 77));
    }
}
