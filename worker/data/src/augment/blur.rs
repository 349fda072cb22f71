//! Gaussian blur, separable, row by row of the result.

use crate::simd::{LANES, Numbers, Registers};

/// Of torchvision's 23-tap kernel.
const RADIUS_MAX: usize = 11;
const ROWS_MAX: usize = 2 * RADIUS_MAX + 1;
/// Registers that are summed up together.
const GROUP: usize = 4;

/// Half a kernel: the weight of the centre, then of each distance from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Taps {
    weights: [f32; RADIUS_MAX + 1],
    radius: usize,
}

impl Taps {
    /// Taps beyond three sigma, or beyond a picture of `side`, are left out: they weigh less than half of one of 255.
    pub(super) fn new(sigma: f64, side: usize) -> Self {
        let radius = ((3.0 * sigma).ceil() as usize).clamp(1, RADIUS_MAX).min(side - 1);
        let raw = |distance: usize| (-(distance as f64).powi(2) / (2.0 * sigma * sigma)).exp();
        let sum = raw(0) + 2.0 * (1..=radius).map(raw).sum::<f64>();
        let mut weights = [0.0; RADIUS_MAX + 1];
        for (distance, weight) in weights.iter_mut().enumerate().take(radius + 1) {
            *weight = (raw(distance) / sum) as f32;
        }
        Self { weights, radius }
    }

    /// Rows that a row of the result is summed from.
    pub(super) fn rows(&self) -> usize {
        2 * self.radius + 1
    }

    /// What row `y` of `side` is summed from, the row itself in the middle.
    #[inline(always)]
    pub(super) fn around<'a>(&self, y: usize, side: usize, row: impl Fn(usize) -> &'a [f32]) -> [&'a [f32]; ROWS_MAX] {
        let mut around: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
        for (row_of, number) in around.iter_mut().zip(0..self.rows()) {
            *row_of = row(mirrored(y as isize + number as isize - self.radius as isize, side));
        }
        around
    }

    fn beside(&self) -> &[f32] {
        &self.weights[1..=self.radius]
    }
}

/// The row in the middle of those around it, blurred; `line` is room of any size.
#[inline(always)]
pub(super) fn row<'a, R: Registers>(around: &[&[f32]; ROWS_MAX], taps: &Taps, line: &'a mut Vec<f32>) -> &'a mut [f32] {
    let (radius, side) = (taps.radius, around[0].len());
    line.resize(2 * (side + radius), 0.0);
    let (line, out) = line.split_at_mut(side + 2 * radius);
    sums::<R>(taps, around, &mut line[radius..][..side]);
    for distance in 1..=radius {
        line[radius - distance] = line[radius + distance];
        line[radius + side - 1 + distance] = line[radius + side - 1 - distance];
    }
    let mut beside: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
    for (place, values) in beside[..taps.rows()].iter_mut().zip(line.windows(side)) {
        *place = values;
    }
    sums::<R>(taps, &beside, out);
    out
}

/// Weighted sums of the rows' values, in groups that stay in registers.
#[inline(always)]
fn sums<R: Registers>(taps: &Taps, rows: &[&[f32]; ROWS_MAX], target: &mut [f32]) {
    let mut at = 0;
    while at + GROUP * LANES <= target.len() {
        group::<R, GROUP>(taps, rows, at, target);
        at += GROUP * LANES;
    }
    while at + LANES <= target.len() {
        group::<R, 1>(taps, rows, at, target);
        at += LANES;
    }
    for (at, target) in target.iter_mut().enumerate().skip(at) {
        *target = rows[taps.radius][at] * taps.weights[0];
        for (distance, &weight) in (1..).zip(taps.beside()) {
            *target += (rows[taps.radius - distance][at] + rows[taps.radius + distance][at]) * weight;
        }
    }
}

#[inline(always)]
fn group<R: Registers, const N: usize>(taps: &Taps, rows: &[&[f32]; ROWS_MAX], at: usize, target: &mut [f32]) {
    let mut sums = [R::Numbers::splat(0.0); N];
    if let Some(centre) = block::<N>(rows[taps.radius], at) {
        let weight = R::Numbers::splat(taps.weights[0]);
        for (sum, centre) in sums.iter_mut().zip(centre) {
            *sum = R::Numbers::load(centre).mul(weight);
        }
    }
    for (distance, &weight) in (1..).zip(taps.beside()) {
        let both = block::<N>(rows[taps.radius - distance], at).zip(block::<N>(rows[taps.radius + distance], at));
        if let Some((before, after)) = both {
            let weight = R::Numbers::splat(weight);
            for ((sum, before), after) in sums.iter_mut().zip(before).zip(after) {
                *sum = sum.add(R::Numbers::load(before).add(R::Numbers::load(after)).mul(weight));
            }
        }
    }
    if let Some(target) = target[at..].as_chunks_mut().0.first_chunk_mut::<N>() {
        for (target, sum) in target.iter_mut().zip(sums) {
            sum.store(target);
        }
    }
}

/// N registers' values.
#[inline(always)]
fn block<const N: usize>(row: &[f32], at: usize) -> Option<&[[f32; LANES]; N]> {
    row[at..].as_chunks().0.first_chunk()
}

/// Index of a pixel beyond the border, mirrored at the edge pixel (BORDER_REFLECT_101).
#[inline(always)]
fn mirrored(index: isize, side: usize) -> usize {
    let last = side as isize - 1;
    let index = index.abs();
    (if index > last { 2 * last - index } else { index }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, Level, Past};

    struct Blurred<'a> {
        values: &'a [f32],
        side: usize,
        sigma: f64,
        out: &'a mut [f32],
    }

    impl Kernel for Blurred<'_> {
        #[inline(always)]
        fn run<R: Registers>(self, _: &Past) {
            let Self { values, side, sigma, out } = self;
            let (taps, rows) = (Taps::new(sigma, side), |row: usize| &values[row * side..][..side]);
            for (y, out) in out.chunks_exact_mut(side).enumerate() {
                out.copy_from_slice(row::<R>(&taps.around(y, side, rows), &taps, &mut Vec::new()));
            }
        }
    }

    fn blurred(values: &[f32], side: usize, sigma: f64) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        Level::best().run(Blurred { values, side, sigma, out: &mut out });
        out
    }

    #[test]
    fn a_flat_plane_stays_and_a_point_keeps_its_sum() {
        assert!(blurred(&[0.4; 32 * 32], 32, 2.0).iter().all(|v| (v - 0.4).abs() < 1e-5));
        let mut point = vec![0.0; 32 * 32];
        point[16 * 32 + 16] = 1.0;
        let point = blurred(&point, 32, 1.0);
        assert!((point.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!((point[16 * 32 + 16] - 0.159).abs() < 2e-3, "{}", point[16 * 32 + 16]);
        assert_eq!(point[16 * 32 + 14], point[16 * 32 + 18]);
    }

    #[test]
    fn borders_are_mirrored_and_odd_sides_have_no_seam() {
        // Against the definition, pixel by pixel; 37 columns end inside a strip.
        let (side, sigma) = (37, 1.3);
        let values: Vec<f32> = (0..side * side).map(|i| ((i * 7919) % 256) as f32 / 255.0).collect();
        let taps = Taps::new(sigma, side);
        let weight = |d: isize| f64::from(taps.weights[d.unsigned_abs()]);
        let found = blurred(&values, side, sigma);
        let reach = taps.radius as isize;
        for (y, x) in [(0, 0), (0, 36), (36, 36), (18, 31), (18, 32), (5, 33)] {
            let mut wanted = 0.0;
            for dy in -reach..=reach {
                for dx in -reach..=reach {
                    let at = mirrored(y + dy, side) * side + mirrored(x + dx, side);
                    wanted += weight(dy) * weight(dx) * f64::from(values[at]);
                }
            }
            let found = f64::from(found[y as usize * side + x as usize]);
            assert!((found - wanted).abs() < 1e-5, "({y}, {x}): {found} is not {wanted}");
        }
    }
}
