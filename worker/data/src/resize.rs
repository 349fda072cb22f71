//! Bicubic resize with antialiasing, as Pillow's `BICUBIC` (a = -0.5) on the cropped picture, into planes.
//!
//! Rows are blended first, then pixels along them; all in float32 and in one order of sums, so that every processor gives
//! the same bytes. Pillow rounds to bytes after each of the two passes, so a value may differ from its by about one of 255.

use crate::decode::{Canvas, MARGIN};
use crate::simd::{Kernel, fold};

/// A box in pixels of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crop {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Crop {
    /// The whole picture.
    pub(crate) fn whole(canvas: &Canvas) -> Self {
        Self { left: 0, top: 0, width: canvas.width, height: canvas.height }
    }
}

/// Values that are worked on together: one register of AVX-512, two of AVX2.
const LANES: usize = 16;
/// Values of a pixel.
const CHANNELS: usize = 4;
/// Rows of the result that share the loads of weights.
const ROWS: usize = 4;
/// Bytes of a row that are blended together; the canvas' margin holds as many.
const STRIP: usize = 64;
const _: () = assert!(STRIP <= MARGIN);

/// Weights of one direction's source pixels for each pixel of the result.
#[derive(Default)]
struct Table {
    /// Weights of a pixel of the result; those that are not needed are zero.
    taps: usize,
    /// First source pixel.
    first: Vec<usize>,
    /// Source pixels that count.
    counts: Vec<usize>,
    /// Source pixels that [`ROWS`] pixels of the result need together, at most.
    span: usize,
    /// `taps` times `repeat` for each pixel of the result.
    weights: Vec<f32>,
}

impl Table {
    /// Fits `from` pixels to `to` (Pillow's `precompute_coeffs`). Each weight stands `repeat` times, their number is a multiple
    /// of `multiple`, and the result is `mirrored` when asked.
    fn fit(&mut self, from: usize, to: usize, repeat: usize, multiple: usize, mirrored: bool) {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        self.taps = (2 * support.ceil() as usize + 1).min(from).next_multiple_of(multiple);
        self.first.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(to * self.taps * repeat, 0.0);
        for (index, weights) in self.weights.chunks_exact_mut(self.taps * repeat).enumerate() {
            let at = if mirrored { to - 1 - index } else { index };
            let centre = (at as f64 + 0.5) * scale;
            let begin = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weight = |pixel: usize| cubic((pixel as f64 - centre + 0.5) / stretch);
            let sum: f64 = (begin..end).map(weight).sum();
            for (pixel, weights) in (begin..end).zip(weights.chunks_exact_mut(repeat)) {
                weights.fill((weight(pixel) / sum) as f32);
            }
            self.first.push(begin);
            self.counts.push(end - begin);
        }
        let last = |top: usize| (top + ROWS - 1).min(to - 1);
        let span = |top: usize| (self.first[last(top)] + self.counts[last(top)]).saturating_sub(self.first[top]);
        self.span = (0..to).step_by(ROWS).map(span).max().unwrap_or(0);
    }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// A resizer with its buffers, one per thread.
#[derive(Default)]
pub(crate) struct Scaler {
    across: Table,
    down: Table,
    /// Rows of the source as numbers, each at its place of a ring.
    ring: Vec<f32>,
    /// Blended rows of the source.
    lines: Vec<f32>,
    /// A row of the result: sums that still must be added up for each pixel.
    sums: Vec<[f32; LANES]>,
    /// The same, added up.
    pixels: Vec<[f32; CHANNELS]>,
}

impl Scaler {
    /// Gets ready for a crop of so many pixels; the work itself is the kernel's.
    pub(crate) fn prepare<'a>(
        &'a mut self,
        canvas: &'a Canvas,
        crop: Crop,
        side: usize,
        mirrored: bool,
        planes: &'a mut [f32],
    ) -> Resize<'a> {
        self.across.fit(crop.width as usize, side, CHANNELS, LANES / CHANNELS, mirrored);
        self.down.fit(crop.height as usize, side, 1, 1, false);
        // Weights beyond the last pixel are zero, but what they weigh must be a number.
        let line = (CHANNELS * crop.width as usize).next_multiple_of(STRIP) + CHANNELS * self.across.taps;
        self.lines.clear();
        self.lines.resize(ROWS * line, 0.0);
        self.ring.resize(self.down.span * line, 0.0);
        self.sums.resize(ROWS * side, [0.0; LANES]);
        self.pixels.resize(side, [0.0; CHANNELS]);
        Resize { scaler: self, canvas, crop, side, line, planes }
    }
}

/// One resize: planes (3, side, side) in [0, 1].
pub(crate) struct Resize<'a> {
    scaler: &'a mut Scaler,
    canvas: &'a Canvas,
    crop: Crop,
    side: usize,
    /// Values of a line.
    line: usize,
    planes: &'a mut [f32],
}

impl Kernel for Resize<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { scaler, canvas, crop, side, line, planes } = self;
        let Scaler { across, down, ring, lines, sums, pixels } = scaler;
        let stride = CHANNELS * canvas.width as usize;
        let corner = crop.top as usize * stride + CHANNELS * crop.left as usize;
        let bytes = &canvas.with_margin()[corner..];
        // The last strip may end beyond the crop: whatever is there meets weights of zero.
        let length = (CHANNELS * crop.width as usize).next_multiple_of(STRIP);
        let place = |row: usize| row % down.span * line;
        let mut next = 0;
        for top in (0..side).step_by(ROWS) {
            let rows = ROWS.min(side - top);
            let end = down.first[top + rows - 1] + down.counts[top + rows - 1];
            for row in next..end {
                numbers(&bytes[row * stride..][..length], &mut ring[place(row)..][..length]);
            }
            next = end;
            // A strip of the rows' sources stays in the fastest cache while all of them are blended.
            for at in (0..length).step_by(STRIP) {
                for row in 0..rows {
                    let (first, count) = (down.first[top + row], down.counts[top + row]);
                    let weights = &down.weights[(top + row) * down.taps..][..count];
                    let mut from = place(first) + at;
                    let mut sum = [0.0_f32; STRIP];
                    for &weight in weights {
                        for (sum, &value) in sum.iter_mut().zip(&ring[from..][..STRIP]) {
                            *sum += value * weight;
                        }
                        from += line;
                        if from >= down.span * line {
                            from -= down.span * line;
                        }
                    }
                    lines[row * line + at..][..STRIP].copy_from_slice(&sum);
                }
            }
            match across.taps * CHANNELS / LANES {
                1 => along::<1>(across, lines, line, sums),
                2 => along::<2>(across, lines, line, sums),
                3 => along::<3>(across, lines, line, sums),
                4 => along::<4>(across, lines, line, sums),
                _ => along_many(across, lines, line, sums),
            }
            for row in 0..rows {
                for (pixel, sum) in pixels.iter_mut().zip(&sums[row * side..]) {
                    *pixel = fold(sum);
                }
                deal(pixels, (top + row) * side, side, planes);
            }
        }
    }
}

#[inline(always)]
fn numbers(bytes: &[u8], target: &mut [f32]) {
    for (target, &byte) in target.iter_mut().zip(bytes) {
        *target = f32::from(byte);
    }
}

/// Weighted sums of pixels along all lines, of every fourth pixel apart: a whole register goes to memory, or the compiler makes
/// four small ones. `REGISTERS` hold the weights of a pixel.
#[inline(always)]
fn along<const REGISTERS: usize>(across: &Table, lines: &[f32], line: usize, sums: &mut [[f32; LANES]]) {
    let side = across.first.len();
    let (weights, _) = across.weights.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks::<REGISTERS>();
    for (x, (&first, weights)) in across.first.iter().zip(weights).enumerate() {
        for row in 0..ROWS {
            let (source, _) = lines[row * line + CHANNELS * first..][..REGISTERS * LANES].as_chunks::<LANES>();
            let mut sum = [0.0_f32; LANES];
            for (source, weights) in source.iter().zip(weights) {
                for (sum, (&value, &weight)) in sum.iter_mut().zip(source.iter().zip(weights)) {
                    *sum += value * weight;
                }
            }
            sums[row * side + x] = sum;
        }
    }
}

/// As [`along`], for large pictures.
#[inline(always)]
fn along_many(across: &Table, lines: &[f32], line: usize, sums: &mut [[f32; LANES]]) {
    let (side, reach) = (across.first.len(), CHANNELS * across.taps);
    for (x, &first) in across.first.iter().enumerate() {
        let (weights, _) = across.weights[x * reach..][..reach].as_chunks::<LANES>();
        for row in 0..ROWS {
            let (source, _) = lines[row * line + CHANNELS * first..][..reach].as_chunks::<LANES>();
            let mut sum = [0.0_f32; LANES];
            for (source, weights) in source.iter().zip(weights) {
                for (sum, (&value, &weight)) in sum.iter_mut().zip(source.iter().zip(weights)) {
                    *sum += value * weight;
                }
            }
            sums[row * side + x] = sum;
        }
    }
}

/// Deals a row of pixels to the three planes, from bytes' range to [0, 1].
#[inline(always)]
fn deal(row: &[[f32; CHANNELS]], at: usize, side: usize, planes: &mut [f32]) {
    let (red, rest) = planes.split_at_mut(side * side);
    let (green, blue) = rest.split_at_mut(side * side);
    let targets = red[at..][..side].iter_mut().zip(&mut green[at..][..side]).zip(&mut blue[at..][..side]);
    let unit = |value: f32| value.clamp(0.0, 255.0) * (1.0 / 255.0);
    for (pixel, ((red, green), blue)) in row.iter().zip(targets) {
        (*red, *green, *blue) = (unit(pixel[0]), unit(pixel[1]), unit(pixel[2]));
    }
}

/// Planes in [0, 1] as RGB bytes.
pub(crate) fn bytes(planes: &[f32], out: &mut Vec<u8>) {
    let size = planes.len() / 3;
    let (red, rest) = planes.split_at(size);
    let (green, blue) = rest.split_at(size);
    let byte = |value: f32| (value * 255.0 + 0.5) as u8;
    out.clear();
    out.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [byte(r), byte(g), byte(b)]));
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
    use crate::simd::Level;

    fn resized(level: Level, canvas: &Canvas, crop: Crop, side: usize, mirrored: bool) -> Vec<f32> {
        let mut planes = vec![0.0; 3 * side * side];
        level.run(Scaler::default().prepare(canvas, crop, side, mirrored, &mut planes));
        planes
    }

    fn noise(width: u32, height: u32) -> Canvas {
        Canvas::filled(width, height, |x, y| {
            let hash = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
            [(hash >> 24) as u8, (hash >> 16) as u8, (hash >> 8) as u8]
        })
    }

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
    fn a_flat_picture_stays_flat_in_any_crop() {
        let canvas = Canvas::filled(50, 30, |_, _| [77, 78, 79]);
        for crop in [Crop { left: 3, top: 1, width: 20, height: 25 }, Crop { left: 49, top: 29, width: 1, height: 1 }] {
            let planes = resized(Level::best(), &canvas, crop, 32, false);
            for (channel, plane) in planes.chunks_exact(32 * 32).enumerate() {
                let wanted = (77 + channel) as f32 / 255.0;
                assert!(plane.iter().all(|v| (v - wanted).abs() < 1e-5), "{crop:?} {channel}");
            }
        }
    }

    #[test]
    fn every_processor_gives_the_same_bits_and_a_mirrored_result_is_mirrored() {
        let canvas = noise(131, 97);
        for (crop, side) in [
            (Crop::whole(&canvas), 64),
            (Crop { left: 5, top: 9, width: 33, height: 60 }, 64),
            (Crop { left: 128, top: 96, width: 3, height: 1 }, 37),
        ] {
            let plain = resized(Level::PLAIN, &canvas, crop, side, false);
            for level in Level::all() {
                assert!(resized(level, &canvas, crop, side, false) == plain, "{level:?}, {crop:?}");
            }
            let mirrored = resized(Level::best(), &canvas, crop, side, true);
            for (row, other) in plain.chunks_exact(side).zip(mirrored.chunks_exact(side)) {
                assert!(row.iter().rev().zip(other).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }

    #[test]
    fn pixels_outside_a_crop_do_not_show() {
        let mut canvas = Canvas::filled(40, 40, |_, _| [9, 9, 9]);
        let crop = Crop { left: 10, top: 10, width: 20, height: 20 };
        let before = resized(Level::best(), &canvas, crop, 32, false);
        canvas = Canvas::filled(40, 40, |x, y| {
            if (10..30).contains(&x) && (10..30).contains(&y) { [9, 9, 9] } else { [255, 0, 255] }
        });
        assert_eq!(resized(Level::best(), &canvas, crop, 32, false), before);
    }
}
