//! Operations on planes: three planes of side * side values in [0, 1], one after another.
//!
//! Plain loops over contiguous values, written so that the compiler vectorises them. Values are not rounded to bytes between
//! operations, as PIL does: a result may differ from PIL's by about one of 255 per operation.

use r2o_types::Keyed;

/// ImageNet's mean.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation.
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

const BRIGHTNESS: f64 = 0.4;
const CONTRAST: f64 = 0.4;
const SATURATION: f64 = 0.2;
const HUE: f64 = 0.1;
/// Of a 23-tap kernel.
const RADIUS_MAX: usize = 11;
/// Below this the pixel stays, from it on it is inverted (ImageOps.solarize at 128).
const SOLARISE_FROM: f32 = 128.0 / 255.0;

/// torchvision's ColorJitter: four factors and their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Jitter {
    order: [u8; 4],
    brightness: f32,
    contrast: f32,
    saturation: f32,
    hue: f32,
}

impl Jitter {
    pub(super) fn draw(keyed: &mut Keyed) -> Self {
        let mut order = [0, 1, 2, 3];
        keyed.shuffle(&mut order);
        let mut factor = |range: f64| keyed.uniform_in(1.0 - range, 1.0 + range) as f32;
        let (brightness, contrast, saturation) = (factor(BRIGHTNESS), factor(CONTRAST), factor(SATURATION));
        let hue = keyed.uniform_in(-HUE, HUE) as f32;
        Self { order, brightness, contrast, saturation, hue }
    }

    pub(super) fn apply(&self, planes: &mut [f32]) {
        for operation in self.order {
            match operation {
                0 => blend(planes, 0.0, self.brightness),
                1 => {
                    let mean = mean_luma(planes);
                    blend(planes, mean, self.contrast);
                }
                2 => saturate(planes, self.saturation),
                _ => rotate_hue(planes, self.hue),
            }
        }
    }
}

/// RGB bytes to planes, mirrored when asked.
pub(super) fn planes(rgb: &[u8], side: usize, flip: bool, out: &mut [f32]) {
    let (red, rest) = out.split_at_mut(side * side);
    let (green, blue) = rest.split_at_mut(side * side);
    for (y, row) in rgb.chunks_exact(3 * side).enumerate() {
        let line = y * side..(y + 1) * side;
        let (red, green, blue) = (&mut red[line.clone()], &mut green[line.clone()], &mut blue[line]);
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            let x = if flip { side - 1 - x } else { x };
            red[x] = f32::from(pixel[0]) / 255.0;
            green[x] = f32::from(pixel[1]) / 255.0;
            blue[x] = f32::from(pixel[2]) / 255.0;
        }
    }
}

/// Subtracts the mean and divides by the deviation, channel by channel.
pub(super) fn normalise(planes: &mut [f32]) {
    let size = planes.len() / 3;
    for (channel, plane) in planes.chunks_exact_mut(size).enumerate() {
        let (scale, shift) = (1.0 / DEVIATION[channel], -MEAN[channel] / DEVIATION[channel]);
        for value in plane {
            *value = *value * scale + shift;
        }
    }
}

fn luma(r: f32, g: f32, b: f32) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

fn channels(planes: &mut [f32]) -> (&mut [f32], &mut [f32], &mut [f32]) {
    let size = planes.len() / 3;
    let (red, rest) = planes.split_at_mut(size);
    let (green, blue) = rest.split_at_mut(size);
    (red, green, blue)
}

fn mean_luma(planes: &mut [f32]) -> f32 {
    let (red, green, blue) = channels(planes);
    let sum: f64 = red.iter().zip(&*green).zip(&*blue).map(|((&r, &g), &b)| f64::from(luma(r, g, b))).sum();
    (sum / red.len() as f64) as f32
}

fn blend(planes: &mut [f32], base: f32, factor: f32) {
    let rest = (1.0 - factor) * base;
    for value in planes {
        *value = (*value * factor + rest).clamp(0.0, 1.0);
    }
}

fn saturate(planes: &mut [f32], factor: f32) {
    let (red, green, blue) = channels(planes);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let rest = (1.0 - factor) * luma(*r, *g, *b);
        *r = (*r * factor + rest).clamp(0.0, 1.0);
        *g = (*g * factor + rest).clamp(0.0, 1.0);
        *b = (*b * factor + rest).clamp(0.0, 1.0);
    }
}

pub(super) fn grey(planes: &mut [f32]) {
    let (red, green, blue) = channels(planes);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let y = luma(*r, *g, *b);
        (*r, *g, *b) = (y, y, y);
    }
}

/// Turns the hue by `turn` of a full circle, exactly (through HSV), without branches on the sector.
fn rotate_hue(planes: &mut [f32], turn: f32) {
    let (red, green, blue) = channels(planes);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let value = r.max(*g).max(*b);
        let chroma = value - r.min(*g).min(*b);
        let inverse = if chroma > 0.0 { 1.0 / chroma } else { 0.0 };
        let hue = if value == *r {
            (*g - *b) * inverse
        } else if value == *g {
            2.0 + (*b - *r) * inverse
        } else {
            4.0 + (*r - *g) * inverse
        };
        // In sixths of a circle, in [0, 6).
        let hue = hue + 6.0 * turn;
        let hue = hue - 6.0 * (hue / 6.0).floor();
        let at = |n: f32| {
            let k = n + hue;
            let k = if k >= 6.0 { k - 6.0 } else { k };
            value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
        };
        (*r, *g, *b) = (at(5.0), at(3.0), at(1.0));
    }
}

pub(super) fn solarise(planes: &mut [f32]) {
    for value in planes {
        *value = if *value >= SOLARISE_FROM { 1.0 - *value } else { *value };
    }
}

/// Gaussian blur, separable, with mirrored borders. Taps beyond three sigma (at most 23 in all) are left out: they weigh
/// less than half of one of 255.
pub(super) fn blur(planes: &mut [f32], side: usize, sigma: f64, scratch: &mut Vec<f32>) {
    let radius = ((3.0 * sigma).ceil() as usize).clamp(1, RADIUS_MAX).min(side - 1);
    let mut taps: Vec<f32> =
        (0..=2 * radius).map(|i| (-(i as f64 - radius as f64).powi(2) / (2.0 * sigma * sigma)).exp() as f32).collect();
    let sum: f32 = taps.iter().sum();
    taps.iter_mut().for_each(|tap| *tap /= sum);
    let padded = side + 2 * radius;
    scratch.clear();
    scratch.resize(side * side + padded, 0.0);
    let (rows, line) = scratch.split_at_mut(side * side);
    for plane in planes.chunks_exact_mut(side * side) {
        // Down the columns: whole rows are added, so neighbours in memory go together.
        for (y, row) in rows.chunks_exact_mut(side).enumerate() {
            row.fill(0.0);
            for (tap, &weight) in taps.iter().enumerate() {
                let from = mirrored(y as isize + tap as isize - radius as isize, side) * side;
                for (sum, value) in row.iter_mut().zip(&plane[from..from + side]) {
                    *sum += weight * value;
                }
            }
        }
        for (row, target) in rows.chunks_exact(side).zip(plane.chunks_exact_mut(side)) {
            for (i, value) in line.iter_mut().enumerate() {
                *value = row[mirrored(i as isize - radius as isize, side)];
            }
            target.fill(0.0);
            for (tap, &weight) in taps.iter().enumerate() {
                for (sum, value) in target.iter_mut().zip(&line[tap..tap + side]) {
                    *sum += weight * value;
                }
            }
        }
    }
}

/// Index of a pixel beyond the border, mirrored at the edge pixel (BORDER_REFLECT_101).
fn mirrored(index: isize, side: usize) -> usize {
    let last = side as isize - 1;
    let index = index.abs();
    (if index > last { 2 * last - index } else { index }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(r: f32, g: f32, b: f32) -> Vec<f32> {
        vec![r, g, b]
    }

    fn close(a: &[f32], b: &[f32]) {
        assert!(a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-5), "{a:?} is not {b:?}");
    }

    #[test]
    fn hue_turns_red_to_green_to_blue_and_leaves_grey() {
        let mut planes = pixel(1.0, 0.0, 0.0);
        rotate_hue(&mut planes, 1.0 / 3.0);
        close(&planes, &[0.0, 1.0, 0.0]);
        rotate_hue(&mut planes, 1.0 / 3.0);
        close(&planes, &[0.0, 0.0, 1.0]);
        let mut planes = pixel(0.3, 0.3, 0.3);
        rotate_hue(&mut planes, 0.07);
        close(&planes, &[0.3, 0.3, 0.3]);
        let mut planes = pixel(0.2, 0.5, 0.7);
        rotate_hue(&mut planes, 0.04);
        rotate_hue(&mut planes, -0.04);
        close(&planes, &[0.2, 0.5, 0.7]);
    }

    #[test]
    fn saturation_and_grey_keep_luma() {
        let mut planes = pixel(0.2, 0.5, 0.7);
        let before = luma(0.2, 0.5, 0.7);
        saturate(&mut planes, 0.9);
        assert!((luma(planes[0], planes[1], planes[2]) - before).abs() < 1e-5);
        grey(&mut planes);
        close(&planes, &[before; 3]);
    }

    #[test]
    fn solarise_inverts_from_128_on() {
        let mut planes = vec![127.0 / 255.0, 128.0 / 255.0, 1.0];
        solarise(&mut planes);
        close(&planes, &[127.0 / 255.0, 127.0 / 255.0, 0.0]);
    }

    #[test]
    fn blur_keeps_a_flat_plane_and_the_sum_of_a_point() {
        let mut scratch = Vec::new();
        let mut flat = vec![0.4; 3 * 32 * 32];
        blur(&mut flat, 32, 2.0, &mut scratch);
        assert!(flat.iter().all(|v| (v - 0.4).abs() < 1e-5));
        let mut point = vec![0.0; 3 * 32 * 32];
        point[16 * 32 + 16] = 1.0;
        blur(&mut point, 32, 1.0, &mut scratch);
        assert!((point[..32 * 32].iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!((point[16 * 32 + 16] - 0.159).abs() < 2e-3, "{}", point[16 * 32 + 16]);
        assert_eq!(point[16 * 32 + 14], point[16 * 32 + 18]);
    }

    #[test]
    fn a_mirrored_picture_is_mirrored() {
        let rgb: Vec<u8> = (0..2 * 2 * 3).collect();
        let (mut plain, mut flipped) = (vec![0.0; 12], vec![0.0; 12]);
        planes(&rgb, 2, false, &mut plain);
        planes(&rgb, 2, true, &mut flipped);
        assert_eq!(plain[0], flipped[1]);
        assert_eq!(plain[2], flipped[3]);
    }
}
