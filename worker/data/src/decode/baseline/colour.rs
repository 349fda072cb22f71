//! From luma and chroma to red, green and blue: libjpeg's `jdsample.c` (smooth upsampling) and `jdcolor.c`.

use super::Plane;
use super::header::{COMPONENTS, Frame};

/// Fraction bits of the constants.
const BITS: u32 = 16;
const HALF: i32 = 1 << (BITS - 1);
/// 1.402, 1.772, 0.34414 and 0.71414.
const RED: i32 = 91881;
const BLUE: i32 = 116_130;
const GREEN_OF_BLUE: i32 = -22554;
const GREEN_OF_RED: i32 = -46802;

/// Room for a row of each chroma at its full width, in pairs of samples.
#[derive(Default)]
pub(super) struct Rows {
    sums: Vec<u16>,
    pairs: [Vec<u16>; 2],
}

impl Rows {
    /// Paints all pixels: four bytes each, of which the last has no meaning.
    #[inline(always)]
    pub(super) fn paint(&mut self, frame: &Frame, planes: &[Plane; COMPONENTS], pixels: &mut [u8]) {
        let Self { sums, pairs } = self;
        let [across, down] = frame.sampling();
        let (width, height) = (frame.width.div_ceil(across), frame.height.div_ceil(down));
        let [luma, chroma @ ..] = planes;
        sums.resize(width, 0);
        pairs.iter_mut().for_each(|pairs| pairs.resize(width, 0));
        for (y, pixels) in pixels.chunks_exact_mut(4 * frame.width).enumerate() {
            let luma = &luma.samples[y * luma.stride..][..frame.width];
            if frame.components().len() == 1 {
                grey(luma, pixels);
                continue;
            }
            let row = |plane: &'_ Plane, row: usize| row * plane.stride..row * plane.stride + width;
            let [blue, red] = chroma;
            match [across, down] {
                [1, _] => colour(luma, &blue.samples[row(blue, y)], &red.samples[row(red, y)], pixels),
                [_, down] => {
                    for (plane, pairs) in chroma.iter().zip(&mut *pairs) {
                        let near = &plane.samples[row(plane, y / down)];
                        if down == 1 {
                            for (sum, &near) in sums.iter_mut().zip(near) {
                                *sum = u16::from(near);
                            }
                            widen::<2>([1, 2], sums, pairs);
                        } else {
                            // Rows lie a quarter above and below the middle between two of the image.
                            let far = if y % 2 == 0 { (y / 2).saturating_sub(1) } else { (y / 2 + 1).min(height - 1) };
                            let far = &plane.samples[row(plane, far)];
                            for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
                                *sum = 3 * u16::from(near) + u16::from(far);
                            }
                            widen::<4>([8, 7], sums, pairs);
                        }
                    }
                    let [blue, red] = &*pairs;
                    colour(
                        luma,
                        &bytemuck::cast_slice(blue)[..luma.len()],
                        &bytemuck::cast_slice(red)[..luma.len()],
                        pixels,
                    );
                }
            }
        }
    }
}

/// Two samples for each: three quarters of it and a quarter of its neighbour, with `BITS` fraction bits in all.
#[inline(always)]
fn widen<const BITS: u32>(rounding: [u16; 2], sums: &[u16], pairs: &mut [u16]) {
    let last = sums.len() - 1;
    // What has no neighbour is its own.
    pairs[0] = pair::<BITS>(rounding, sums[0], sums[0], sums[1]);
    pairs[last] = pair::<BITS>(rounding, sums[last - 1], sums[last], sums[last]);
    for (((pair_of, &before), &sum), &after) in pairs[1..].iter_mut().zip(sums).zip(&sums[1..]).zip(&sums[2..]) {
        *pair_of = pair::<BITS>(rounding, before, sum, after);
    }
}

#[inline(always)]
fn pair<const BITS: u32>(rounding: [u16; 2], before: u16, sum: u16, after: u16) -> u16 {
    let [first, second] = [(3 * sum + before + rounding[0]) >> BITS, (3 * sum + after + rounding[1]) >> BITS];
    // The first one lies first.
    (first | second << 8).to_le()
}

#[inline(always)]
fn grey(luma: &[u8], pixels: &mut [u8]) {
    for (pixel, &y) in pixels.as_chunks_mut::<4>().0.iter_mut().zip(luma) {
        *pixel = [y, y, y, 255];
    }
}

#[inline(always)]
fn colour(luma: &[u8], blue: &[u8], red: &[u8], pixels: &mut [u8]) {
    let pixels = pixels.as_chunks_mut::<4>().0;
    for (((pixel, &y), &blue), &red) in pixels.iter_mut().zip(luma).zip(blue).zip(red) {
        let (y, blue, red) = (i32::from(y), i32::from(blue) - 128, i32::from(red) - 128);
        let r = y + ((RED * red + HALF) >> BITS);
        let g = y + ((GREEN_OF_BLUE * blue + GREEN_OF_RED * red + HALF) >> BITS);
        let b = y + ((BLUE * blue + HALF) >> BITS);
        let level = |v: i32| v.clamp(0, 255) as u32;
        *pixel = (level(r) | level(g) << 8 | level(b) << 16 | 255 << 24).to_le_bytes();
    }
}
