//! BYOL's augmentation (METHOD, "Augmentation"), every draw keyed by (seed, epoch, sample, view).
//!
//! Random resized crop and flip, colour jitter, grey, blur and, in the second view, solarisation, with torchvision's
//! distributions. All draws of a view are made first and in a fixed order, so that no draw depends on what another caused.

mod colour;
mod crop;

use r2o_types::Keyed;

use crate::decode::Picture;
use crate::error::DecodeError;
use crate::resize::{Crop, Scaler};

use colour::{Jitter, blur, grey, solarise};

/// One of the two augmented views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Always blurred, never solarised.
    First,
    /// Seldom blurred, sometimes solarised.
    Second,
}

/// What is done to one view.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recipe {
    pub(crate) crop: Crop,
    /// y0, x0, y1, x1 in [0, 1] of the raw image.
    pub(crate) corners: [f32; 4],
    pub(crate) flip: bool,
    jitter: Option<Jitter>,
    grey: bool,
    blur: Option<f64>,
    solarise: bool,
}

const JITTER: f64 = 0.8;
const GREY: f64 = 0.2;
const SOLARISE: f64 = 0.2;
const SIGMA: [f64; 2] = [0.1, 2.0];

impl Recipe {
    /// The recipe of a view of a picture of `width` x `height` pixels.
    pub(crate) fn draw(seed: u64, epoch: u64, sample: u64, view: View, width: u32, height: u32) -> Self {
        let mut keyed = Keyed::new("augment", &[seed, epoch, sample, view as u64]);
        let crop = crop::random_resized(&mut keyed, width, height);
        let flip = keyed.uniform() < 0.5;
        let jittered = keyed.uniform() < JITTER;
        let jitter = Jitter::draw(&mut keyed);
        let grey = keyed.uniform() < GREY;
        let (blur_chance, solarise_chance) = match view {
            View::First => (1.0, 0.0),
            View::Second => (0.1, SOLARISE),
        };
        let blurred = keyed.uniform() < blur_chance;
        let sigma = keyed.uniform_in(SIGMA[0], SIGMA[1]);
        let solarise = keyed.uniform() < solarise_chance;
        let (w, h) = (f64::from(width), f64::from(height));
        let corners =
            [crop.top / h, crop.left / w, (crop.top + crop.height) / h, (crop.left + crop.width) / w].map(|c| c as f32);
        Self { crop, corners, flip, jitter: jittered.then_some(jitter), grey, blur: blurred.then_some(sigma), solarise }
    }
}

/// Buffers of one decoding thread.
pub(crate) struct Studio {
    pub(crate) scaler: Scaler,
    rgb: Vec<u8>,
    scratch: Vec<f32>,
}

impl Studio {
    pub(crate) fn new() -> Self {
        Self { scaler: Scaler::new(), rgb: Vec::new(), scratch: Vec::new() }
    }

    /// The whole picture resized to `side` x `side`, as bytes for SLIC and as normalised planes in `out`.
    pub(crate) fn raw(&mut self, picture: &Picture, side: u32, out: &mut [f32]) -> Result<&[u8], DecodeError> {
        self.scaler.square(picture, Crop::whole(picture), side, &mut self.rgb)?;
        colour::planes(&self.rgb, side as usize, false, out);
        colour::normalise(out);
        Ok(&self.rgb)
    }

    /// A view as normalised planes (3, side, side) in `out`.
    pub(crate) fn view(
        &mut self,
        picture: &Picture,
        recipe: &Recipe,
        side: u32,
        out: &mut [f32],
    ) -> Result<(), DecodeError> {
        self.scaler.square(picture, recipe.crop, side, &mut self.rgb)?;
        colour::planes(&self.rgb, side as usize, recipe.flip, out);
        if let Some(jitter) = &recipe.jitter {
            jitter.apply(out);
        }
        if recipe.grey {
            grey(out);
        }
        if let Some(sigma) = recipe.blur {
            blur(out, side as usize, sigma, &mut self.scratch);
        }
        if recipe.solarise {
            solarise(out);
        }
        colour::normalise(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_a_function_of_its_key() {
        let draw = |epoch, sample, view| Recipe::draw(1, epoch, sample, view, 300, 200);
        assert_eq!(draw(2, 3, View::First), draw(2, 3, View::First));
        assert_ne!(draw(2, 3, View::First), draw(2, 3, View::Second));
        assert_ne!(draw(2, 3, View::First), draw(2, 4, View::First));
        assert_ne!(draw(2, 3, View::First), draw(3, 3, View::First));
    }

    #[test]
    fn chances_are_those_of_the_method() {
        let recipes = |view| (0..4000).map(move |sample| Recipe::draw(0, 0, sample, view, 300, 200));
        let share = |view, holds: fn(&Recipe) -> bool| recipes(view).filter(holds).count() as f64 / 4000.0;
        let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 0.03, "{found} is not {wanted}");
        close(share(View::First, |r| r.flip), 0.5);
        close(share(View::First, |r| r.jitter.is_some()), 0.8);
        close(share(View::First, |r| r.grey), 0.2);
        close(share(View::First, |r| r.blur.is_some()), 1.0);
        close(share(View::First, |r| r.solarise), 0.0);
        close(share(View::Second, |r| r.blur.is_some()), 0.1);
        close(share(View::Second, |r| r.solarise), 0.2);
    }

    #[test]
    fn the_corners_are_the_crop_in_the_unit_square() {
        for sample in 0..500 {
            let recipe = Recipe::draw(0, 0, sample, View::First, 320, 180);
            let [y0, x0, y1, x1] = recipe.corners;
            assert!(0.0 <= y0 && y0 < y1 && y1 <= 1.0 && 0.0 <= x0 && x0 < x1 && x1 <= 1.0, "{:?}", recipe.corners);
        }
    }
}
