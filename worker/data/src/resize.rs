//! Bicubic resize with antialiasing, as Pillow's `BICUBIC` (a = -0.5) on the cropped picture, into planes.
//!
//! Rows are blended first, then pixels along them, in 16-bit integers, so that every processor gives the same bytes. Values keep
//! six bits beyond a byte's and are clipped after each pass, as Pillow does, which rounds to bytes there: a value may differ from
//! its by about one of 255.

use crate::decode::{Canvas, MARGIN};
use crate::simd::Kernel;

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

/// Values of a pixel.
const CHANNELS: usize = 4;
/// Rows of the result that are worked on together.
const ROWS: usize = 8;
/// Pixels of a row that are blended together. The canvas' margin holds as many.
const STRIP: usize = 16;
const _: () = assert!(STRIP * CHANNELS <= MARGIN);

/// A weight of one.
const ONE: i16 = 1 << 14;
/// What a source value is shifted by. Bytes are centred first, so that they fill 16 bits.
const SOURCE_BITS: u32 = 8;
/// The same of sums of source values times weights, of which 16 bits are cut off.
const LEVEL_BITS: u32 = 6;
const BLACK: i16 = -128 << LEVEL_BITS;
const WHITE: i16 = 127 << LEVEL_BITS;

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
    /// `taps` for each pixel of the result.
    weights: Vec<i16>,
    /// What makes up for the bits that are cut off: half a bit for each product that has some.
    lost: Vec<i16>,
    /// A pixel's weights before they are rounded.
    exact: Vec<f64>,
}

impl Table {
    /// Fits `from` pixels to `to` (Pillow's `precompute_coeffs`); the result is `mirrored` when asked.
    #[inline(always)]
    fn fit(&mut self, from: usize, to: usize, mirrored: bool) {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        self.taps = (2 * support.ceil() as usize + 1).min(from);
        self.first.clear();
        self.counts.clear();
        self.lost.clear();
        self.weights.clear();
        self.weights.resize(to * self.taps, 0);
        for (index, weights) in self.weights.chunks_exact_mut(self.taps).enumerate() {
            let at = if mirrored { to - 1 - index } else { index };
            let centre = (at as f64 + 0.5) * scale;
            let begin = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weight = |pixel: usize| cubic((pixel as f64 - centre + 0.5) / stretch);
            self.exact.clear();
            self.exact.extend((begin..end).map(weight));
            rounded(&self.exact, weights);
            self.first.push(begin);
            self.counts.push(end - begin);
            self.lost.push((weights.iter().filter(|&&weight| weight != 0 && weight != ONE).count() / 2) as i16);
        }
        let last = |top: usize| (top + ROWS - 1).min(to - 1);
        let span = |top: usize| (self.first[last(top)] + self.counts[last(top)]).saturating_sub(self.first[top]);
        self.span = (0..to).step_by(ROWS).map(span).max().unwrap_or(0);
    }
}

/// Weights in proportion to the exact ones, and of sum one: the greatest bears what rounding leaves over.
#[inline(always)]
fn rounded(exact: &[f64], weights: &mut [i16]) {
    let scale = f64::from(ONE) / exact.iter().sum::<f64>();
    let mut rest = ONE;
    for (weight, exact) in weights.iter_mut().zip(exact) {
        *weight = (exact * scale).round_ties_even() as i16;
        rest -= *weight;
    }
    if let Some(greatest) = weights.iter_mut().max_by_key(|weight| **weight) {
        *greatest += rest;
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

/// Pixels one below the other.
type Column = [[i16; CHANNELS]; ROWS];

/// A resizer with its buffers, one per thread.
#[derive(Default)]
pub(crate) struct Scaler {
    across: Table,
    down: Table,
    /// Rows of the source around zero, each at its place of a ring.
    ring: Vec<i16>,
    /// Blended rows, pixel by pixel.
    columns: Vec<Column>,
    /// Rows of the result, pixel by pixel.
    pixels: Vec<Column>,
    /// The same, row by row, a pixel in each word.
    lines: Vec<u64>,
}

impl Scaler {
    /// Gets ready for a crop; the work itself is the kernel's.
    pub(crate) fn prepare<'a>(
        &'a mut self,
        canvas: &'a Canvas,
        crop: Crop,
        side: usize,
        mirrored: bool,
        planes: &'a mut [f32],
    ) -> Resize<'a> {
        Resize { scaler: self, canvas, crop, side, mirrored, planes }
    }
}

/// One resize: planes (3, side, side) in [0, 1].
pub(crate) struct Resize<'a> {
    scaler: &'a mut Scaler,
    canvas: &'a Canvas,
    crop: Crop,
    side: usize,
    mirrored: bool,
    planes: &'a mut [f32],
}

impl Kernel for Resize<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { scaler, canvas, crop, side, mirrored, planes } = self;
        let Scaler { across, down, ring, columns, pixels, lines } = scaler;
        across.fit(crop.width as usize, side, mirrored);
        down.fit(crop.height as usize, side, false);
        let stride = CHANNELS * canvas.width as usize;
        let corner = crop.top as usize * stride + CHANNELS * crop.left as usize;
        let bytes = &canvas.with_margin()[corner..];
        // The last strip may end beyond the crop: whatever is there meets weights of zero.
        let length = (CHANNELS * crop.width as usize).next_multiple_of(STRIP * CHANNELS);
        ring.resize(down.span * length, 0);
        columns.resize(length / CHANNELS + across.taps, Column::default());
        pixels.resize(side, Column::default());
        lines.resize(ROWS * side, 0);
        let mut next = 0;
        for top in (0..side).step_by(ROWS) {
            let rows = top..(top + ROWS).min(side);
            let end = down.first[rows.end - 1] + down.counts[rows.end - 1];
            for row in next..end {
                centred(&bytes[row * stride..][..length], &mut ring[row % down.span * length..][..length]);
            }
            next = end;
            for (at, columns) in (0..length).step_by(STRIP * CHANNELS).zip(columns.chunks_exact_mut(STRIP)) {
                // The strip of the rows stays in the fastest cache while all of them are blended.
                let mut blended = [[[0; CHANNELS]; STRIP]; ROWS];
                for (blended, row) in blended.iter_mut().zip(rows.clone()) {
                    let weights = (&down.weights[row * down.taps..][..down.counts[row]], down.lost[row]);
                    blend(ring, length, (down.first[row] % down.span, at), weights, blended.as_flattened_mut());
                }
                for (x, column) in columns.iter_mut().enumerate() {
                    for (row, pixel) in column.iter_mut().enumerate() {
                        *pixel = blended[row][x];
                    }
                }
            }
            along(across, columns, pixels);
            for (x, column) in pixels.iter().enumerate() {
                for (row, pixel) in column.iter().enumerate() {
                    lines[row * side + x] = word(pixel);
                }
            }
            for (row, line) in rows.zip(lines.chunks_exact(side)) {
                deal(line, row * side, side, planes);
            }
        }
    }
}

/// Bytes as numbers around zero.
#[inline(always)]
fn centred(bytes: &[u8], target: &mut [i16]) {
    for (target, &byte) in target.iter_mut().zip(bytes) {
        *target = (i16::from(byte) - 128) << SOURCE_BITS;
    }
}

#[inline(always)]
fn add<const N: usize>(sums: &mut [i16; N], values: &[i16; N], weight: i16) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum = sum.saturating_add(((i32::from(value) * i32::from(weight)) >> 16) as i16);
    }
}

/// A strip's weighted sum over the ring's rows from `row` on, from black to white, as a source for the next pass.
#[inline(always)]
fn blend(ring: &[i16], length: usize, (row, at): (usize, usize), (weights, lost): (&[i16], i16), target: &mut [i16]) {
    let mut sums = [lost; STRIP * CHANNELS];
    let mut from = row * length + at;
    for &weight in weights {
        if let Some(values) = ring[from..].first_chunk() {
            add(&mut sums, values, weight);
        }
        from += length;
        if from >= ring.len() {
            from -= ring.len();
        }
    }
    for (target, &sum) in target.iter_mut().zip(&sums) {
        *target = sum.clamp(BLACK, WHITE) << (SOURCE_BITS - LEVEL_BITS);
    }
}

/// Weighted sums of columns, clipped, above black.
#[inline(always)]
fn along(across: &Table, columns: &[Column], pixels: &mut [Column]) {
    let weights = across.weights.chunks_exact(across.taps);
    for (((pixel, weights), &first), &lost) in pixels.iter_mut().zip(weights).zip(&across.first).zip(&across.lost) {
        let mut sums = [lost; ROWS * CHANNELS];
        for (&weight, column) in weights.iter().zip(&columns[first..]) {
            if let Some(values) = column.as_flattened().first_chunk() {
                add(&mut sums, values, weight);
            }
        }
        for (value, &sum) in pixel.as_flattened_mut().iter_mut().zip(&sums) {
            *value = sum.clamp(BLACK, WHITE) - BLACK;
        }
    }
}

/// A pixel's values above black, the first in the lowest bits.
#[inline(always)]
fn word(pixel: &[i16; CHANNELS]) -> u64 {
    let part = |channel: usize| u64::from(pixel[channel].cast_unsigned()) << (16 * channel);
    part(0) | part(1) | part(2) | part(3)
}

/// Deals a row of the result to the three planes, in [0, 1].
#[inline(always)]
fn deal(line: &[u64], at: usize, side: usize, planes: &mut [f32]) {
    let (red, rest) = planes.split_at_mut(side * side);
    let (green, blue) = rest.split_at_mut(side * side);
    let targets = red[at..][..side].iter_mut().zip(&mut green[at..][..side]).zip(&mut blue[at..][..side]);
    let unit = |value: u64| (value as u32 & 0xffff).cast_signed() as f32 * (1.0 / f32::from(WHITE - BLACK));
    for (&word, ((red, green), blue)) in line.iter().zip(targets) {
        (*red, *green, *blue) = (unit(word), unit(word >> 16), unit(word >> 32));
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
                // Products are cut off at a 64th of a level; a fifth of a level is what they may add up to.
                let (wanted, bound) = ((77 + channel) as f32 / 255.0, 0.2 / 255.0);
                assert!(plane.iter().all(|v| (v - wanted).abs() < bound), "{crop:?} {channel}");
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
                assert!(row.iter().rev().eq(other), "{crop:?}");
            }
        }
    }

    #[test]
    fn black_and_white_are_reached_and_not_left() {
        // Edges overshoot on both sides.
        let canvas = Canvas::filled(40, 40, |x, y| if (x / 10 + y / 10) % 2 == 0 { [0; 3] } else { [255; 3] });
        for side in [16, 64] {
            let planes = resized(Level::best(), &canvas, Crop::whole(&canvas), side, false);
            let (least, most) = planes.iter().fold((1.0_f32, 0.0_f32), |(a, b), &v| (a.min(v), b.max(v)));
            assert_eq!((least, most), (0.0, 1.0), "{side}");
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
