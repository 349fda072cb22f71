//! sRGB bytes to scaled CIE Lab planes (skimage.color.rgb2lab: D65, 2 degrees).

/// L, a and b of every pixel, each times the colour weight, in planes.
pub(crate) struct Planes {
    pub(crate) l: Vec<f32>,
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
}

/// Rows: X, Y, Z, each divided by D65's white.
const XYZ: [[f32; 3]; 3] = [
    [0.412_453 / 0.950_47, 0.357_580 / 0.950_47, 0.180_423 / 0.950_47],
    [0.212_671, 0.715_160, 0.072_169],
    [0.019_334 / 1.088_83, 0.119_193 / 1.088_83, 0.950_227 / 1.088_83],
];

/// Inlined into each processor's version.
#[inline(always)]
pub(crate) fn lab(rgb: &[u8], weight: f32) -> Planes {
    let low = rgb.iter().copied().min().unwrap_or(0);
    let high = rgb.iter().copied().max().unwrap_or(0);
    let range = f64::from(high.saturating_sub(low).max(1));
    // Stretching and gamma depend on the byte alone.
    let linear: [f32; 256] = std::array::from_fn(|byte| {
        let value = ((byte as f64 - f64::from(low)) / range).clamp(0.0, 1.0);
        (if value > 0.040_45 { ((value + 0.055) / 1.055).powf(2.4) } else { value / 12.92 }) as f32
    });
    let pixels = rgb.len() / 3;
    let mut planes = Planes { l: vec![0.0; pixels], a: vec![0.0; pixels], b: vec![0.0; pixels] };
    for (((pixel, red), green), blue) in rgb.chunks_exact(3).zip(&mut planes.l).zip(&mut planes.a).zip(&mut planes.b) {
        *red = linear[usize::from(pixel[0])];
        *green = linear[usize::from(pixel[1])];
        *blue = linear[usize::from(pixel[2])];
    }
    // In place, and without a branch or a look-up, so that many pixels go at once.
    for ((l, a), b) in planes.l.iter_mut().zip(&mut planes.a).zip(&mut planes.b) {
        let (red, green, blue) = (*l, *a, *b);
        let of = |row: [f32; 3]| compress(row[0] * red + row[1] * green + row[2] * blue);
        let (x, y, z) = (of(XYZ[0]), of(XYZ[1]), of(XYZ[2]));
        *l = weight * (116.0 * y - 16.0);
        *a = weight * 500.0 * (x - y);
        *b = weight * 200.0 * (y - z);
    }
    planes
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
        let planes = lab(&[255, 255, 255, 0, 0, 0, 255, 0, 0], 1.0);
        let close = |found: f32, wanted: f32| assert!((found - wanted).abs() < 0.02, "{found} is not {wanted}");
        close(planes.l[0], 100.0);
        close(planes.l[1], 0.0);
        close(planes.l[2], 53.2406);
        close(planes.a[2], 80.0923);
        close(planes.b[2], 67.2028);
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
