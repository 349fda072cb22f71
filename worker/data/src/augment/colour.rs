//! Colours of a view, as torchvision has them: jitter, grey, blur, solarisation and normalisation, on values in [0, 1].
//!
//! Pixels are worked on in strips that stay in the fastest cache while one operation after another passes over them. Values
//! are not rounded to bytes between operations, as Pillow does: a result may differ from its by about one of 255 per operation.

use r2o_types::Keyed;

use super::blur::{self, Taps};
use crate::pixels::{STRIP, Sheet};
use crate::resize::{CHANNELS, unit};
use crate::simd::{Kernel, Past, Registers};

const BRIGHTNESS: f64 = 0.4;
const CONTRAST: f64 = 0.4;
const SATURATION: f64 = 0.2;
const HUE: f64 = 0.1;
/// Below this the pixel stays, from it on it is inverted (ImageOps.solarize at 128).
const SOLARISE_FROM: f32 = 128.0 / 255.0;

/// Sums that pixels of a strip take turns with.
const TURNS: usize = 16;

/// Red, green and blue of some neighbours.
type Strip = [[f32; STRIP]; 3];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Brightness,
    Contrast,
    Saturation,
    Hue,
}

/// torchvision's ColorJitter: four factors and their order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Jitter {
    pub(super) order: [Operation; 4],
    pub(super) brightness: f32,
    pub(super) contrast: f32,
    pub(super) saturation: f32,
    pub(super) hue: f32,
}

impl Jitter {
    pub(super) fn draw(keyed: &mut Keyed) -> Self {
        let mut order = [Operation::Brightness, Operation::Contrast, Operation::Saturation, Operation::Hue];
        keyed.shuffle(&mut order);
        let mut factor = |range: f64| keyed.uniform_in(1.0 - range, 1.0 + range) as f32;
        let (brightness, contrast, saturation) = (factor(BRIGHTNESS), factor(CONTRAST), factor(SATURATION));
        let hue = keyed.uniform_in(-HUE, HUE) as f32;
        Self { order, brightness, contrast, saturation, hue }
    }

    /// What comes before contrast, which needs the mean of all pixels.
    fn before_contrast(&self) -> &[Operation] {
        self.order.split(|operation| *operation == Operation::Contrast).next().unwrap_or_default()
    }

    #[inline(always)]
    fn apply(&self, operations: &[Operation], mean: f32, strip: &mut Strip) {
        for operation in operations {
            match operation {
                Operation::Brightness => blend(strip, 0.0, self.brightness),
                Operation::Contrast => blend(strip, mean, self.contrast),
                Operation::Saturation => saturate(strip, self.saturation),
                Operation::Hue => rotate_hue(strip, self.hue),
            }
        }
    }
}

/// What is done to the colours of a view.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Look {
    pub(super) jitter: Option<Jitter>,
    pub(super) grey: bool,
    /// Sigma in pixels.
    pub(super) blur: Option<f64>,
    pub(super) solarise: bool,
}

impl Look {
    /// Jitter, with the mean for contrast, and grey.
    #[inline(always)]
    fn colour(&self, mean: f32, strip: &mut Strip) {
        if let Some(jitter) = &self.jitter {
            jitter.apply(&jitter.order, mean, strip);
        }
        if self.grey {
            grey(strip);
        }
    }
}

/// What colours are worked on in, one per thread.
#[derive(Default)]
pub(super) struct Room {
    /// Rows of the three planes that are blurred together, each at its place of a ring.
    ring: Vec<f32>,
    line: Vec<f32>,
}

/// One view's colours: from planes of levels to planes of what `out` takes.
pub(super) struct Paint<'a, 'b> {
    pub(super) look: &'a Look,
    pub(super) side: usize,
    pub(super) planes: &'a [i16],
    pub(super) room: &'a mut Room,
    pub(super) out: &'a mut Sheet<'b>,
}

impl Kernel for Paint<'_, '_> {
    #[inline(always)]
    fn run<R: Registers>(self, past: &Past) {
        let Self { look, side, planes, room, out } = self;
        let size = side * side;
        let mut strip = [[0.0; STRIP]; 3];
        let mut mean = 0.0;
        if let Some(jitter) = &look.jitter {
            // What comes before contrast is done again later: that costs less than to keep it.
            let mut sum = 0.0;
            for at in (0..size).step_by(STRIP) {
                load(planes, size, at, STRIP.min(size - at), &mut strip);
                jitter.apply(jitter.before_contrast(), 0.0, &mut strip);
                sum += f64::from(luma_sum(&strip));
            }
            mean = (sum / size as f64) as f32;
        }
        if let Some(sigma) = look.blur {
            return Paint { look, side, planes, room, out }.blurred::<R>(mean, &Taps::new(sigma, side), past);
        }
        for at in (0..size).step_by(STRIP) {
            let width = STRIP.min(size - at);
            load(planes, size, at, width, &mut strip);
            look.colour(mean, &mut strip);
            for (channel, values) in strip.iter_mut().enumerate() {
                let finish = finish(out.scale(channel), look.solarise);
                values.iter_mut().for_each(|value| *value = finish(*value));
                out.lay(past, channel * size + at, &values[..width]);
            }
        }
    }
}

impl Paint<'_, '_> {
    /// Colours each row just before the first one that its blur is for, and keeps no more than a blurred row needs.
    #[inline(always)]
    fn blurred<R: Registers>(self, mean: f32, taps: &Taps, past: &Past) {
        let Self { look, side, planes, room, out } = self;
        let Room { ring, line } = room;
        let (size, height) = (side * side, taps.rows());
        // Rows end with a whole strip.
        let stride = side.next_multiple_of(STRIP);
        ring.resize(3 * height * stride, 0.0);
        let (mut next, mut strip) = (0, [[0.0; STRIP]; 3]);
        for y in 0..side {
            let end = (y + height / 2 + 1).min(side);
            for row in next..end {
                for x in (0..side).step_by(STRIP) {
                    load(planes, size, row * side + x, STRIP.min(side - x), &mut strip);
                    look.colour(mean, &mut strip);
                    for (values, plane) in strip.iter().zip(ring.chunks_exact_mut(height * stride)) {
                        plane[row % height * stride + x..][..STRIP].copy_from_slice(values);
                    }
                }
            }
            next = end;
            for (channel, plane) in ring.chunks_exact(height * stride).enumerate() {
                let around = taps.around(y, side, |row| &plane[row % height * stride..][..side]);
                let finish = finish(out.scale(channel), look.solarise);
                let blurred = blur::row::<R>(&around, taps, line);
                for (x, values) in (0..).step_by(STRIP).zip(blurred.chunks_mut(STRIP)) {
                    values.iter_mut().for_each(|value| *value = finish(*value));
                    out.lay(past, channel * size + y * side + x, values);
                }
            }
        }
    }
}

/// Lays a row of a view that keeps its colours.
#[inline(always)]
pub(super) fn lay_plain(sheet: &mut Sheet<'_>, past: &Past, row: usize, pixels: &[[i16; CHANNELS]]) {
    let side = pixels.len();
    for channel in 0..3 {
        let finish = finish(sheet.scale(channel), false);
        for (x, pixels) in (0..).step_by(STRIP).zip(pixels.chunks(STRIP)) {
            let mut values = [0.0; STRIP];
            values.iter_mut().zip(pixels).for_each(|(value, pixel)| *value = finish(unit(pixel[channel])));
            sheet.lay(past, (channel * side + row) * side + x, &values[..pixels.len()]);
        }
    }
}

/// The strip of pixels from `at` on; what lies beyond its width is black.
#[inline(always)]
fn load(planes: &[i16], size: usize, at: usize, width: usize, strip: &mut Strip) {
    for (target, plane) in strip.iter_mut().zip(planes.chunks_exact(size)) {
        match plane[at..][..width].first_chunk::<STRIP>() {
            Some(levels) => target.iter_mut().zip(levels).for_each(|(target, &value)| *target = unit(value)),
            None => {
                *target = [0.0; STRIP];
                target.iter_mut().zip(&plane[at..][..width]).for_each(|(target, &value)| *target = unit(value));
            }
        }
    }
}

/// Solarises when asked, and scales to what a sheet takes.
#[inline(always)]
fn finish([scale, shift]: [f32; 2], solarise: bool) -> impl Fn(f32) -> f32 + Copy {
    let from = if solarise { SOLARISE_FROM } else { f32::INFINITY };
    move |value| (if value >= from { 1.0 - value } else { value }) * scale + shift
}

#[inline(always)]
fn luma(r: f32, g: f32, b: f32) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

#[inline(always)]
fn luma_sum(strip: &Strip) -> f32 {
    let mut sums = [0.0_f32; TURNS];
    for turn in (0..STRIP).step_by(TURNS) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += luma(strip[0][turn + i], strip[1][turn + i], strip[2][turn + i]);
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn blend(strip: &mut Strip, base: f32, factor: f32) {
    let rest = (1.0 - factor) * base;
    for values in strip {
        for value in values {
            *value = (*value * factor + rest).clamp(0.0, 1.0);
        }
    }
}

#[inline(always)]
fn each(strip: &mut Strip, change: impl Fn(f32, f32, f32) -> (f32, f32, f32)) {
    let [red, green, blue] = strip;
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        (*r, *g, *b) = change(*r, *g, *b);
    }
}

#[inline(always)]
fn saturate(strip: &mut Strip, factor: f32) {
    each(strip, |r, g, b| {
        let rest = (1.0 - factor) * luma(r, g, b);
        let mix = |value: f32| (value * factor + rest).clamp(0.0, 1.0);
        (mix(r), mix(g), mix(b))
    });
}

#[inline(always)]
fn grey(strip: &mut Strip) {
    each(strip, |r, g, b| {
        let y = luma(r, g, b);
        (y, y, y)
    });
}

/// Turns the hue by `turn` of a full circle, exactly (through HSV), without branches on the sector.
#[inline(always)]
fn rotate_hue(strip: &mut Strip, turn: f32) {
    // In sixths of a circle.
    let turn = 6.0 * turn;
    each(strip, |r, g, b| {
        let value = r.max(g).max(b);
        let chroma = value - r.min(g).min(b);
        let inverse = if chroma > 0.0 { 1.0 / chroma } else { 0.0 };
        let (high, low, sector) = if value == r {
            (g, b, 0.0)
        } else if value == g {
            (b, r, 2.0)
        } else {
            (r, g, 4.0)
        };
        let hue = sector + (high - low) * inverse + turn;
        let hue = if hue < 0.0 { hue + 6.0 } else { hue };
        let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
        let at = |n: f32| {
            let k = n + hue;
            let k = if k >= 6.0 { k - 6.0 } else { k };
            value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
        };
        (at(5.0), at(3.0), at(1.0))
    });
}

#[cfg(test)]
mod tests {
    use r2o_types::pixels::{DEVIATION, MEAN};

    use super::*;
    use crate::resize::MOST;
    use crate::simd::Level;

    fn strip(r: f32, g: f32, b: f32) -> Strip {
        [[r; STRIP], [g; STRIP], [b; STRIP]]
    }

    fn close(strip: &Strip, wanted: [f32; 3]) {
        for (values, wanted) in strip.iter().zip(wanted) {
            assert!(values.iter().all(|v| (v - wanted).abs() < 1e-5), "{} is not {wanted}", values[0]);
        }
    }

    #[test]
    fn hue_turns_red_to_green_to_blue_and_leaves_grey() {
        let mut pixels = strip(1.0, 0.0, 0.0);
        rotate_hue(&mut pixels, 1.0 / 3.0);
        close(&pixels, [0.0, 1.0, 0.0]);
        rotate_hue(&mut pixels, 1.0 / 3.0);
        close(&pixels, [0.0, 0.0, 1.0]);
        let mut pixels = strip(0.3, 0.3, 0.3);
        rotate_hue(&mut pixels, 0.07);
        close(&pixels, [0.3, 0.3, 0.3]);
        let mut pixels = strip(0.2, 0.5, 0.7);
        rotate_hue(&mut pixels, 0.04);
        rotate_hue(&mut pixels, -0.04);
        close(&pixels, [0.2, 0.5, 0.7]);
    }

    #[test]
    fn saturation_and_grey_keep_luma() {
        let mut pixels = strip(0.2, 0.5, 0.7);
        let before = luma(0.2, 0.5, 0.7);
        saturate(&mut pixels, 0.9);
        assert!((luma(pixels[0][0], pixels[1][0], pixels[2][0]) - before).abs() < 1e-5);
        grey(&mut pixels);
        close(&pixels, [before; 3]);
    }

    #[test]
    fn solarise_inverts_from_128_on() {
        let scale = Sheet::Float32(&mut []).scale(0);
        let plain = |value: f32| value * (1.0 / DEVIATION[0]) - MEAN[0] / DEVIATION[0];
        for (value, wanted) in [(127.0, 127.0), (128.0, 127.0), (255.0, 0.0)] {
            assert!((finish(scale, true)(value / 255.0) - plain(wanted / 255.0)).abs() < 1e-5, "{value}");
            assert!((finish(scale, false)(value / 255.0) - plain(value / 255.0)).abs() < 1e-5, "{value}");
        }
    }

    #[test]
    fn every_processor_gives_the_same_bits() {
        for (seed, side) in [(0, 32), (1, 32), (2, 37), (3, 64), (4, 5)] {
            let mut keyed = Keyed::new("test", &[seed]);
            let jitter = (seed != 1).then(|| Jitter::draw(&mut keyed));
            let blur = (seed % 2 == 0).then_some(0.3 + seed as f64 / 2.0);
            let look = Look { jitter, grey: seed == 3, blur, solarise: seed == 2 };
            let planes: Vec<i16> = (0..3 * side * side).map(|_| (keyed.uniform() * f64::from(MOST)) as i16).collect();
            let painted = |level: Level| {
                let (mut numbers, mut levels) = (vec![0.0; planes.len()], vec![0; planes.len()]);
                for mut out in [Sheet::Float32(&mut numbers), Sheet::Uint8(&mut levels)] {
                    let (room, out) = (&mut Room::default(), &mut out);
                    level.run(Paint { look: &look, side, planes: &planes, room, out });
                }
                (numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>(), levels)
            };
            let plain = painted(Level::PLAIN);
            for level in Level::all() {
                assert!(painted(level) == plain, "{level:?}, {look:?}");
            }
        }
    }
}
