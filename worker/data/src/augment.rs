//! BYOL's augmentation (METHOD, "Augmentation"), every draw keyed by (seed, epoch, sample, view).
//!
//! Random resized crop and flip, colour jitter, grey, blur and, in the second view, solarisation, with torchvision's
//! distributions. All draws of a view are made first and in a fixed order, so that no draw depends on what another caused.

mod blur;
mod colour;
mod crop;
#[cfg(test)]
mod tests;

use r2o_types::Keyed;

use crate::decode::{Canvas, Decoder};
use crate::resize::{Crop, Scaler, bytes};
use crate::simd::Level;

use colour::{Jitter, Look, Paint};

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
    look: Look,
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
        let part = |pixels: u32, of: u32| (f64::from(pixels) / f64::from(of)) as f32;
        let (bottom, right) = (crop.top + crop.height, crop.left + crop.width);
        let corners = [part(crop.top, height), part(crop.left, width), part(bottom, height), part(right, width)];
        let look = Look { jitter: jittered.then_some(jitter), grey, blur: blurred.then_some(sigma), solarise };
        Self { crop, corners, flip, look }
    }
}

/// One thread's decoder and buffers, used for one picture after another.
pub(crate) struct Studio {
    pub(crate) level: Level,
    pub(crate) decoder: Decoder,
    scaler: Scaler,
    planes: Vec<f32>,
    rgb: Vec<u8>,
    line: Vec<f32>,
}

impl Studio {
    pub(crate) fn new() -> Self {
        Self::with_level(Level::best())
    }

    pub(crate) fn with_level(level: Level) -> Self {
        Self {
            level,
            decoder: Decoder::new(),
            scaler: Scaler::default(),
            planes: Vec::new(),
            rgb: Vec::new(),
            line: Vec::new(),
        }
    }

    /// The stages after decoding, on the picture that the decoder holds.
    pub(crate) fn easel(&mut self) -> Easel<'_> {
        let Self { level, decoder, scaler, planes, rgb, line } = self;
        Easel { level: *level, canvas: decoder.canvas(), scaler, planes, rgb, line }
    }
}

/// A decoded picture with the buffers for its views.
pub(crate) struct Easel<'a> {
    level: Level,
    pub(crate) canvas: &'a Canvas,
    scaler: &'a mut Scaler,
    planes: &'a mut Vec<f32>,
    rgb: &'a mut Vec<u8>,
    line: &'a mut Vec<f32>,
}

impl Easel<'_> {
    /// Resizes the crop to `side` x `side`; [`Easel::paint`] and [`Easel::rgb`] go on from there.
    pub(crate) fn resize(&mut self, crop: Crop, mirrored: bool, side: u32) {
        let side = side as usize;
        self.planes.resize(3 * side * side, 0.0);
        self.level.run(self.scaler.prepare(self.canvas, crop, side, mirrored, self.planes));
    }

    /// The resized picture as RGB bytes, row-major.
    pub(crate) fn rgb(&mut self) -> &[u8] {
        bytes(self.planes, self.rgb);
        self.rgb
    }

    /// The resized picture as normalised planes (3, side, side) in `out`, in the colours of `recipe` where there is one. Uses
    /// it up.
    pub(crate) fn paint(&mut self, recipe: Option<&Recipe>, side: u32, out: &mut [f32]) {
        let plain = Look::default();
        let look = recipe.map_or(&plain, |recipe| &recipe.look);
        self.level.run(Paint { look, side: side as usize, planes: self.planes, line: self.line, out });
    }
}
