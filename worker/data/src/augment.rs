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
use crate::pixels::Sheet;
use crate::resize::{CHANNELS, Crop, Rows, Scaler, unit};
use crate::simd::{Level, Past};

use colour::{Jitter, Look, Paint, Room};

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
    planes: Vec<i16>,
    rgb: Vec<u8>,
    room: Room,
}

impl Studio {
    pub(crate) fn new() -> Self {
        Self::with_level(Level::best())
    }

    pub(crate) fn with_level(level: Level) -> Self {
        Self {
            level,
            decoder: Decoder::with_level(level),
            scaler: Scaler::default(),
            planes: Vec::new(),
            rgb: Vec::new(),
            room: Room::default(),
        }
    }

    /// The stages after decoding, on the picture that the decoder holds.
    pub(crate) fn easel(&mut self) -> Easel<'_> {
        let Self { level, decoder, scaler, planes, rgb, room } = self;
        Easel { level: *level, canvas: decoder.canvas(), scaler, planes, rgb, room }
    }
}

/// A decoded picture with the buffers for its views.
pub(crate) struct Easel<'a> {
    level: Level,
    pub(crate) canvas: &'a Canvas,
    scaler: &'a mut Scaler,
    planes: &'a mut Vec<i16>,
    rgb: &'a mut Vec<u8>,
    room: &'a mut Room,
}

impl Easel<'_> {
    /// The raw view: the whole picture as normalised planes (3, side, side), where a sheet is given, and as RGB bytes, row-major,
    /// when they are wanted.
    pub(crate) fn raw(&mut self, side: u32, sheet: Option<&mut Sheet<'_>>, wanted: bool) -> &[u8] {
        let side = side as usize;
        self.rgb.resize(if wanted { 3 * side * side } else { 0 }, 0);
        let raw = Raw { sheet, rgb: self.rgb };
        self.level.run(self.scaler.prepare(self.canvas, Crop::whole(self.canvas), side, false, raw));
        self.rgb
    }

    /// Resizes the crop to `side` x `side`; [`Easel::paint`] goes on from there.
    pub(crate) fn resize(&mut self, crop: Crop, mirrored: bool, side: u32) {
        let side = side as usize;
        self.planes.resize(3 * side * side, 0);
        self.level.run(self.scaler.prepare(self.canvas, crop, side, mirrored, &mut self.planes[..]));
    }

    /// The resized picture in the colours of `recipe`, as normalised planes (3, side, side) in `out`.
    pub(crate) fn paint(&mut self, recipe: &Recipe, side: u32, out: &mut Sheet<'_>) {
        let (look, side) = (&recipe.look, side as usize);
        self.level.run(Paint { look, side, planes: self.planes, room: self.room, out });
    }
}

/// Where the raw view's rows go.
struct Raw<'a, 'b> {
    sheet: Option<&'a mut Sheet<'b>>,
    /// Empty when nobody wants them.
    rgb: &'a mut [u8],
}

impl Rows for Raw<'_, '_> {
    #[inline(always)]
    fn take(&mut self, past: &Past, row: usize, pixels: &[[i16; CHANNELS]]) {
        let side = pixels.len();
        if let Some(sheet) = &mut self.sheet {
            colour::lay_plain(sheet, past, row, pixels);
        }
        if let Some(bytes) = self.rgb.get_mut(3 * side * row..3 * side * (row + 1)) {
            for (bytes, pixel) in bytes.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                for (byte, &level) in bytes.iter_mut().zip(pixel) {
                    *byte = (unit(level) * 255.0 + 0.5) as u8;
                }
            }
        }
    }
}
