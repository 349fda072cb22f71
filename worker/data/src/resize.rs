//! Bicubic resize with antialiasing, as Pillow's `BICUBIC` (a = -0.5) on the cropped picture.
//!
//! Rows are blended first, then pixels along them, in 16-bit integers, so that every processor gives the same bytes. Values keep
//! six bits beyond a byte's and are clipped after each pass, as Pillow does, which rounds to bytes there: a value may differ from
//! its by about one of 255.

use std::ops::Range;

use crate::decode::{Canvas, MARGIN};
use crate::simd::{Kernel, Past, Registers, WORDS, Words, fetch};

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
pub(crate) const CHANNELS: usize = 4;
/// Rows of the result that are worked on together.
const ROWS: usize = 8;
/// Pixels of a row that are blended together. The canvas' margin holds as many.
const STRIP: usize = 16;
const _: () = assert!(STRIP * CHANNELS <= MARGIN);

/// Registers of a strip.
const REGISTERS: usize = STRIP * CHANNELS / WORDS;

/// A weight of one.
const ONE: i16 = 1 << 14;
/// What a byte is shifted by in sums of source values times weights, of which 16 bits are cut off. Source values are bytes
/// that are centred and then shifted by eight bits, so that they fill 16.
const LEVEL_BITS: u32 = 6;
const BLACK: i16 = -128 << LEVEL_BITS;
const WHITE: i16 = 127 << LEVEL_BITS;
/// White above black.
pub(crate) const MOST: i16 = WHITE - BLACK;

/// Weights of one direction's source pixels for each pixel of the result.
#[derive(Default)]
struct Table {
    /// Weights of a pixel of the result, at most.
    taps: usize,
    /// First source pixel.
    first: Vec<usize>,
    /// Source pixels that count.
    counts: Vec<usize>,
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

/// Pixels one below the other, which fill a register.
type Column = [i16; WORDS];
const _: () = assert!(ROWS * CHANNELS == WORDS && STRIP == REGISTERS * ROWS);

/// A resizer with its buffers, one per thread.
#[derive(Default)]
pub(crate) struct Scaler {
    across: Table,
    down: Table,
    /// A strip of the rows that are blended together, around zero.
    strip: Vec<[i16; STRIP * CHANNELS]>,
    /// Blended rows, pixel by pixel.
    columns: Vec<Column>,
    /// Rows of the result, pixel by pixel.
    pixels: Vec<Column>,
    /// The same, row by row.
    lines: Vec<i16>,
}

impl Scaler {
    /// Gets ready for a crop; the work itself is the kernel's.
    pub(crate) fn prepare<'a, O: Rows>(
        &'a mut self,
        canvas: &'a Canvas,
        crop: Crop,
        side: usize,
        mirrored: bool,
        out: O,
    ) -> Resize<'a, O> {
        Resize { scaler: self, canvas, crop, side, mirrored, out }
    }
}

/// Who takes a result's rows, one after another.
pub(crate) trait Rows {
    /// A row's pixels: levels of red, green and blue from 0 to [`MOST`], and one without meaning.
    fn take(&mut self, past: &Past, row: usize, pixels: &[[i16; CHANNELS]]);
}

/// One resize.
pub(crate) struct Resize<'a, O> {
    scaler: &'a mut Scaler,
    canvas: &'a Canvas,
    crop: Crop,
    side: usize,
    mirrored: bool,
    out: O,
}

impl<O: Rows> Kernel for Resize<'_, O> {
    #[inline(always)]
    fn run<R: Registers>(self, past: &Past) {
        let Self { scaler, canvas, crop, side, mirrored, mut out } = self;
        let Scaler { across, down, strip, columns, pixels, lines } = scaler;
        across.fit(crop.width as usize, side, mirrored);
        down.fit(crop.height as usize, side, false);
        // The last strip may end beyond the crop: nobody reads what it holds there.
        columns.resize((crop.width as usize).next_multiple_of(STRIP), [0; WORDS]);
        // Rows of whole registers.
        let length = CHANNELS * side.next_multiple_of(ROWS);
        pixels.resize(length / CHANNELS, [0; WORDS]);
        lines.resize(ROWS * length, 0);
        for top in (0..side).step_by(ROWS) {
            let rows = top..(top + ROWS).min(side);
            blend_rows::<R>(down, rows.clone(), (canvas, crop), strip, columns);
            along::<R>(across, columns, pixels);
            for (at, pixels) in (0..).step_by(ROWS).zip(pixels.as_chunks().0) {
                let rows = R::Words::dealt(load::<R>(pixels));
                for (row, line) in rows.into_iter().zip(lines.chunks_exact_mut(length)) {
                    if let Some(target) = line[CHANNELS * at..].first_chunk_mut() {
                        row.store(target);
                    }
                }
            }
            for (row, line) in rows.zip(lines.chunks_exact(length)) {
                out.take(past, row, &line.as_chunks().0[..side]);
            }
        }
    }
}

/// Blends the crop's rows to some rows of the result, strip by strip, so that what they are blended from stays in the fastest
/// cache.
#[inline(always)]
fn blend_rows<R: Registers>(
    down: &Table,
    rows: Range<usize>,
    (canvas, crop): (&Canvas, Crop),
    strip: &mut Vec<[i16; STRIP * CHANNELS]>,
    columns: &mut [Column],
) {
    let stride = CHANNELS * canvas.width as usize;
    let first = down.first[rows.start];
    let sources = first..down.first[rows.end - 1] + down.counts[rows.end - 1];
    strip.resize(sources.len(), [0; STRIP * CHANNELS]);
    for (x, columns) in (crop.left as usize..).step_by(STRIP).zip(columns.chunks_exact_mut(STRIP)) {
        for (target, row) in strip.iter_mut().zip(sources.clone()) {
            let bytes = &canvas.with_margin()[(crop.top as usize + row) * stride + x * CHANNELS..];
            fetch(bytes.get(2 * STRIP * CHANNELS));
            centred::<R>(bytes, target);
        }
        let mut blended = [[R::Words::splat(0); ROWS]; REGISTERS];
        for (number, row) in rows.clone().enumerate() {
            let weights = &down.weights[row * down.taps..][..down.counts[row]];
            let sums = blend::<R>(&strip[down.first[row] - first..], weights, down.lost[row]);
            for (blended, sum) in blended.iter_mut().zip(sums) {
                blended[number] = sum;
            }
        }
        for (blended, columns) in blended.into_iter().zip(columns.as_chunks_mut().0) {
            store::<R>(R::Words::dealt(blended), columns);
        }
    }
}

/// Bytes as numbers around zero.
#[inline(always)]
fn centred<R: Registers>(bytes: &[u8], target: &mut [i16; STRIP * CHANNELS]) {
    for (bytes, target) in bytes.as_chunks().0.iter().zip(target.as_chunks_mut().0) {
        R::Words::centred(bytes).store(target);
    }
}

/// Weighted sums of rows' strips, from black to white, as a source for the next pass.
#[inline(always)]
fn blend<R: Registers>(rows: &[[i16; STRIP * CHANNELS]], weights: &[i16], lost: i16) -> [R::Words; REGISTERS] {
    let mut sums = [R::Words::splat(lost); REGISTERS];
    for (row, &weight) in rows.iter().zip(weights) {
        let weight = R::Words::splat(weight);
        for (sum, values) in sums.iter_mut().zip(row.as_chunks().0) {
            *sum = sum.add_product(R::Words::load(values), weight);
        }
    }
    for sum in &mut sums {
        *sum = sum.clamp(R::Words::splat(BLACK), R::Words::splat(WHITE)).times_four();
    }
    sums
}

#[inline(always)]
fn load<R: Registers>(columns: &[Column; ROWS]) -> [R::Words; ROWS] {
    let mut registers = [R::Words::splat(0); ROWS];
    for (register, column) in registers.iter_mut().zip(columns) {
        *register = R::Words::load(column);
    }
    registers
}

#[inline(always)]
fn store<R: Registers>(registers: [R::Words; ROWS], columns: &mut [Column; ROWS]) {
    for (register, column) in registers.into_iter().zip(columns) {
        register.store(column);
    }
}

/// Weighted sums of columns, clipped, above black.
#[inline(always)]
fn along<R: Registers>(across: &Table, columns: &[Column], pixels: &mut [Column]) {
    let (black, white) = (R::Words::splat(BLACK), R::Words::splat(WHITE));
    let weights = across.weights.chunks_exact(across.taps);
    let places = across.first.iter().zip(&across.counts).zip(&across.lost);
    for ((pixel, weights), ((&first, &count), &lost)) in pixels.iter_mut().zip(weights).zip(places) {
        let mut sum = R::Words::splat(lost);
        for (&weight, column) in weights.iter().zip(&columns[first..][..count]) {
            sum = sum.add_product(R::Words::load(column), R::Words::splat(weight));
        }
        sum.clamp(black, white).sub(black).store(pixel);
    }
}

/// A level in [0, 1].
#[inline(always)]
pub(crate) fn unit(level: i16) -> f32 {
    f32::from(level) * (1.0 / f32::from(MOST))
}

/// Planes (3, side, side) of levels from 0 to [`MOST`].
impl Rows for &mut [i16] {
    #[inline(always)]
    fn take(&mut self, _: &Past, row: usize, pixels: &[[i16; CHANNELS]]) {
        let side = pixels.len();
        for (channel, plane) in self.chunks_exact_mut(side * side).enumerate() {
            let target = &mut plane[row * side..][..side];
            target.iter_mut().zip(pixels).for_each(|(target, pixel)| *target = pixel[channel]);
        }
    }
}

/// A label map of `width` x `height` pixels, squeezed to a square: each pixel takes the label at its centre.
pub(crate) fn nearest(labels: &[u8], [width, height]: [u32; 2], side: u32, out: &mut [u8]) {
    if [width, height] == [side, side] {
        out.copy_from_slice(labels);
        return;
    }
    let at = |i: u32, from: u32| ((2 * u64::from(i) + 1) * u64::from(from) / (2 * u64::from(side))) as usize;
    for y in 0..side {
        let row = &labels[at(y, height) * width as usize..][..width as usize];
        let target = &mut out[(y * side) as usize..][..side as usize];
        for (x, value) in target.iter_mut().enumerate() {
            *value = row[at(x as u32, width)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;

    fn resized(level: Level, canvas: &Canvas, crop: Crop, side: usize, mirrored: bool) -> Vec<f32> {
        let mut planes = vec![0; 3 * side * side];
        level.run(Scaler::default().prepare(canvas, crop, side, mirrored, &mut planes[..]));
        planes.into_iter().map(unit).collect()
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
        nearest(&labels, [2, 2], 4, &mut up);
        assert_eq!(up, [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
        let mut same = [0; 4];
        nearest(&labels, [2, 2], 2, &mut same);
        assert_eq!(same, labels);
        nearest(&[1, 2, 3, 4, 5, 6, 7, 8], [4, 2], 2, &mut same);
        assert_eq!(same, [2, 4, 6, 8]);
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
