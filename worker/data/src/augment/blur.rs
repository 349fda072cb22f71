//! Gaussian blur, separable, both directions in one pass over the rows.

/// Of torchvision's 23-tap kernel.
pub(super) const RADIUS_MAX: usize = 11;

/// Columns that are summed together.
const STRIP: usize = 32;

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

    fn beside(&self) -> &[f32] {
        &self.weights[1..=self.radius]
    }
}

/// Blurs a plane of side * side values into `out`, through `finish`; `line` is room of any size.
#[inline(always)]
pub(super) fn plane(
    plane: &[f32],
    side: usize,
    taps: &Taps,
    line: &mut Vec<f32>,
    finish: impl Fn(f32) -> f32 + Copy,
    out: &mut [f32],
) {
    let radius = taps.radius;
    line.clear();
    line.resize(side + 2 * radius, 0.0);
    for (y, target) in out.chunks_exact_mut(side).enumerate() {
        down(plane, side, y, taps, &mut line[radius..radius + side]);
        for distance in 1..=radius {
            line[radius - distance] = line[radius + distance];
            line[radius + side - 1 + distance] = line[radius + side - 1 - distance];
        }
        along(line, taps, finish, target);
    }
}

/// One row of the plane blurred over the rows around it.
#[inline(always)]
fn down(plane: &[f32], side: usize, y: usize, taps: &Taps, target: &mut [f32]) {
    let row = |offset: isize| &plane[mirrored(y as isize + offset, side) * side..][..side];
    let centre = row(0);
    let mut at = 0;
    while at + STRIP <= side {
        let mut sum = [0.0; STRIP];
        for (sum, &centre) in sum.iter_mut().zip(&centre[at..][..STRIP]) {
            *sum = centre * taps.weights[0];
        }
        for (distance, &weight) in (1..).zip(taps.beside()) {
            let (above, below) = (&row(-distance)[at..][..STRIP], &row(distance)[at..][..STRIP]);
            for ((sum, &above), &below) in sum.iter_mut().zip(above).zip(below) {
                *sum += (above + below) * weight;
            }
        }
        target[at..][..STRIP].copy_from_slice(&sum);
        at += STRIP;
    }
    for x in at..side {
        let mut sum = centre[x] * taps.weights[0];
        for (distance, &weight) in (1..).zip(taps.beside()) {
            sum += (row(-distance)[x] + row(distance)[x]) * weight;
        }
        target[x] = sum;
    }
}

/// A row with mirrored ends, blurred along itself.
#[inline(always)]
fn along(line: &[f32], taps: &Taps, finish: impl Fn(f32) -> f32, target: &mut [f32]) {
    let (radius, side) = (taps.radius, target.len());
    let mut at = 0;
    while at + STRIP <= side {
        let centre = &line[radius + at..][..STRIP];
        let mut sum = [0.0; STRIP];
        for (sum, &centre) in sum.iter_mut().zip(centre) {
            *sum = centre * taps.weights[0];
        }
        for (distance, &weight) in (1..).zip(taps.beside()) {
            let left = &line[radius + at - distance..][..STRIP];
            let right = &line[radius + at + distance..][..STRIP];
            for ((sum, &left), &right) in sum.iter_mut().zip(left).zip(right) {
                *sum += (left + right) * weight;
            }
        }
        for (target, &sum) in target[at..][..STRIP].iter_mut().zip(&sum) {
            *target = finish(sum);
        }
        at += STRIP;
    }
    for x in at..side {
        let mut sum = line[radius + x] * taps.weights[0];
        for (distance, &weight) in (1..).zip(taps.beside()) {
            sum += (line[radius + x - distance] + line[radius + x + distance]) * weight;
        }
        target[x] = finish(sum);
    }
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

    fn blurred(values: &[f32], side: usize, sigma: f64) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        plane(values, side, &Taps::new(sigma, side), &mut Vec::new(), |v| v, &mut out);
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
