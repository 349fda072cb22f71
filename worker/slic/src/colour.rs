//! sRGB bytes to scaled CIE Lab (skimage.color.rgb2lab: D65, 2 degrees), in tiles.

use crate::simd::Lanes;
use crate::tile::{LANES, SIDE, Tile, Tiles};

/// Rows: X, Y, Z, each divided by D65's white.
const XYZ: [[f32; 3]; 3] = [
    [0.412_453 / 0.950_47, 0.357_580 / 0.950_47, 0.180_423 / 0.950_47],
    [0.212_671, 0.715_160, 0.072_169],
    [0.019_334 / 1.088_83, 0.119_193 / 1.088_83, 0.950_227 / 1.088_83],
];

/// The picture's colours, each times `weight`. Inlined into each processor's version.
#[inline(always)]
pub(crate) fn lab<V: Lanes>(rgb: &[u8], width: usize, height: usize, weight: f32) -> Tiles {
    let linear = stretched(rgb);
    let (across, down) = (width.div_ceil(SIDE), height.div_ceil(SIDE));
    let mut tiles = Vec::with_capacity(across * down);
    for top in (0..height).step_by(SIDE) {
        let rows: [&[u8]; SIDE] =
            std::array::from_fn(|row| &rgb[3 * width * (top + row).min(height - 1)..][..3 * width]);
        for left in (0..width).step_by(SIDE) {
            let mut lab = [[0.0; LANES]; 3];
            for (row, bytes) in rows.iter().enumerate() {
                for (column, pixel) in neighbours(bytes, left).chunks_exact(3).enumerate() {
                    for (plane, &byte) in lab.iter_mut().zip(pixel) {
                        plane[SIDE * row + column] = linear[usize::from(byte)];
                    }
                }
            }
            to_lab(&mut lab, weight);
            tiles.push(Tile::new::<V>(lab));
        }
    }
    Tiles { width, height, across, tiles }
}

/// Linear light of each byte, once the picture's bytes are stretched to [0, 1]: both depend on the byte alone.
#[inline(always)]
fn stretched(rgb: &[u8]) -> [f32; 256] {
    let low = rgb.iter().copied().min().unwrap_or(0);
    let high = rgb.iter().copied().max().unwrap_or(0);
    let range = f64::from(high.saturating_sub(low).max(1));
    std::array::from_fn(|byte| {
        let value = ((byte as f64 - f64::from(low)) / range).clamp(0.0, 1.0);
        (if value > 0.040_45 { ((value + 0.055) / 1.055).powf(2.4) } else { value / 12.92 }) as f32
    })
}

/// A tile's pixels of a row; beyond the row's end the last one stands in.
#[inline(always)]
fn neighbours(row: &[u8], left: usize) -> [u8; 3 * SIDE] {
    row[3 * left..].first_chunk().copied().unwrap_or_else(|| {
        let last = row.len() / 3 - 1;
        std::array::from_fn(|i| row[3 * (left + i / 3).min(last) + i % 3])
    })
}

/// Linear light to Lab, in place, without a branch or a look-up, so that many pixels go at once.
#[inline(always)]
fn to_lab([l, a, b]: &mut [[f32; LANES]; 3], weight: f32) {
    for ((l, a), b) in l.iter_mut().zip(a).zip(b) {
        let (red, green, blue) = (*l, *a, *b);
        let of = |row: [f32; 3]| compress(row[0] * red + row[1] * green + row[2] * blue);
        let (x, y, z) = (of(XYZ[0]), of(XYZ[1]), of(XYZ[2]));
        *l = weight * (116.0 * y - 16.0);
        *a = weight * 500.0 * (x - y);
        *b = weight * 200.0 * (y - z);
    }
}

/// Lab's compression of a tristimulus value: a cube root with a straight foot.
#[inline(always)]
fn compress(value: f32) -> f32 {
    // A third of the exponent is a guess within 4 %; each of Halley's steps triples its digits.
    let halley = |root: f32| {
        let cube = root * root * root;
        root * (cube + 2.0 * value) / (2.0 * cube + value)
    };
    let root = halley(halley(f32::from_bits(value.to_bits() / 3 + 0x2a51_19f2)));
    if value > 0.008_856 { root } else { 7.787 * value + 16.0 / 116.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        // White, black and red of skimage.color.rgb2lab.
        let tiles = lab::<[f32; LANES]>(&[255, 255, 255, 0, 0, 0, 255, 0, 0], 3, 1, 1.0);
        let [l, a, b] = tiles.tiles[0].lab;
        let close = |found: f32, wanted: f32| assert!((found - wanted).abs() < 0.02, "{found} is not {wanted}");
        close(l[0], 100.0);
        close(l[1], 0.0);
        close(l[2], 53.2406);
        close(a[2], 80.0923);
        close(b[2], 67.2028);
        assert_eq!((l[3], l[14]), (l[2], l[2]), "the last pixel stands in for those beyond the edge");
    }

    #[test]
    fn the_cube_root_is_exact_enough() {
        for i in 0..=10_000 {
            let value = i as f32 / 10_000.0;
            let exact =
                if value > 0.008_856 { f64::from(value).cbrt() } else { 7.787 * f64::from(value) + 16.0 / 116.0 };
            assert!((f64::from(compress(value)) - exact).abs() < 2e-7, "{value}");
        }
    }
}
