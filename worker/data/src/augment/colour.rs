//! Colours of a view, as torchvision has them: jitter, grey, blur, solarisation and normalisation, on planes in [0, 1].
//!
//! Pixels are worked on in strips that stay in the fastest cache while one operation after another passes over them. Values
//! are not rounded to bytes between operations, as Pillow does: a result may differ from its by about one of 255 per operation.

use r2o_types::Keyed;

use super::blur::{self, Taps};
use crate::simd::Kernel;

/// ImageNet's mean.
pub(super) const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation.
pub(super) const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

const BRIGHTNESS: f64 = 0.4;
const CONTRAST: f64 = 0.4;
const SATURATION: f64 = 0.2;
const HUE: f64 = 0.1;
/// Below this the pixel stays, from it on it is inverted (ImageOps.solarize at 128).
const SOLARISE_FROM: f32 = 128.0 / 255.0;

/// Pixels of a strip.
const STRIP: usize = 64;
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

    /// What comes before contrast, which needs the mean of all pixels, and contrast with what comes after it.
    fn halves(&self) -> (&[Operation], &[Operation]) {
        let contrast = self.order.iter().position(|o| *o == Operation::Contrast).unwrap_or(0);
        self.order.split_at(contrast)
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
    /// What follows once the mean for contrast is known, blur and all after it apart.
    #[inline(always)]
    fn rest(&self, mean: f32, strip: &mut Strip) {
        if let Some(jitter) = &self.jitter {
            jitter.apply(jitter.halves().1, mean, strip);
        }
        if self.grey {
            grey(strip);
        }
    }
}

/// One view's colours: from `planes`, which are used up, to normalised planes in `out`.
pub(super) struct Paint<'a> {
    pub(super) look: &'a Look,
    pub(super) side: usize,
    pub(super) planes: &'a mut [f32],
    pub(super) line: &'a mut Vec<f32>,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Paint<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { look, side, planes, line, out } = self;
        let size = side * side;
        let mut mean = 0.0;
        if let Some(jitter) = &look.jitter {
            let mut sum = 0.0;
            for at in (0..size).step_by(STRIP) {
                let mut strip = load(planes, size, at);
                jitter.apply(jitter.halves().0, 0.0, &mut strip);
                sum += f64::from(luma_sum(&strip));
                store(&strip, planes, size, at);
            }
            mean = (sum / size as f64) as f32;
        }
        let Some(sigma) = look.blur else {
            if look.jitter.is_none() && !look.grey {
                for (channel, (plane, out)) in planes.chunks_exact(size).zip(out.chunks_exact_mut(size)).enumerate() {
                    let finish = finish(channel, look.solarise);
                    out.iter_mut().zip(plane).for_each(|(out, &value)| *out = finish(value));
                }
                return;
            }
            for at in (0..size).step_by(STRIP) {
                let mut strip = load(planes, size, at);
                look.rest(mean, &mut strip);
                for (channel, values) in strip.iter_mut().enumerate() {
                    let finish = finish(channel, look.solarise);
                    values.iter_mut().for_each(|value| *value = finish(*value));
                }
                store(&strip, out, size, at);
            }
            return;
        };
        if look.jitter.is_some() || look.grey {
            for at in (0..size).step_by(STRIP) {
                let mut strip = load(planes, size, at);
                look.rest(mean, &mut strip);
                store(&strip, planes, size, at);
            }
        }
        let taps = Taps::new(sigma, side);
        for (channel, (plane, out)) in planes.chunks_exact(size).zip(out.chunks_exact_mut(size)).enumerate() {
            blur::plane(plane, side, &taps, line, finish(channel, look.solarise), out);
        }
    }
}

/// The strip of pixels from `at` on; what lies beyond the last pixel is black.
#[inline(always)]
fn load(planes: &[f32], size: usize, at: usize) -> Strip {
    let [red, green, blue] = [0, 1, 2].map(|channel| &planes[channel * size..][..size][at..]);
    if let (Some(red), Some(green), Some(blue)) = (red.first_chunk(), green.first_chunk(), blue.first_chunk()) {
        return [*red, *green, *blue];
    }
    let mut strip = [[0.0; STRIP]; 3];
    for (target, values) in strip.iter_mut().zip([red, green, blue]) {
        target[..values.len()].copy_from_slice(values);
    }
    strip
}

#[inline(always)]
fn store(strip: &Strip, planes: &mut [f32], size: usize, at: usize) {
    for (channel, values) in strip.iter().enumerate() {
        let target = &mut planes[channel * size..][..size][at..];
        match target.first_chunk_mut() {
            Some(target) => *target = *values,
            None => target.copy_from_slice(&values[..target.len()]),
        }
    }
}

/// Solarises when asked, subtracts the channel's mean and divides by its deviation.
#[inline(always)]
fn finish(channel: usize, solarise: bool) -> impl Fn(f32) -> f32 + Copy {
    let (scale, shift) = (1.0 / DEVIATION[channel], -MEAN[channel] / DEVIATION[channel]);
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
    use super::*;
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
        let plain = |value: f32| value * (1.0 / DEVIATION[0]) - MEAN[0] / DEVIATION[0];
        for (value, wanted) in [(127.0, 127.0), (128.0, 127.0), (255.0, 0.0)] {
            assert!((finish(0, true)(value / 255.0) - plain(wanted / 255.0)).abs() < 1e-5, "{value}");
            assert!((finish(0, false)(value / 255.0) - plain(value / 255.0)).abs() < 1e-5, "{value}");
        }
    }

    #[test]
    fn every_processor_gives_the_same_bits() {
        for (seed, side) in [(0, 32), (1, 32), (2, 37), (3, 64), (4, 5)] {
            let mut keyed = Keyed::new("test", &[seed]);
            let jitter = (seed != 1).then(|| Jitter::draw(&mut keyed));
            let blur = (seed % 2 == 0).then_some(0.3 + seed as f64 / 2.0);
            let look = Look { jitter, grey: seed == 3, blur, solarise: seed == 2 };
            let planes: Vec<f32> = (0..3 * side * side).map(|_| keyed.uniform() as f32).collect();
            let painted = |level: Level| {
                let mut out = vec![0.0; planes.len()];
                let (planes, line) = (&mut planes.clone(), &mut Vec::new());
                level.run(Paint { look: &look, side, planes, line, out: &mut out });
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let plain = painted(Level::PLAIN);
            for level in Level::all() {
                assert!(painted(level) == plain, "{level:?}, {look:?}");
            }
        }
    }
}
