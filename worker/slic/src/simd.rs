//! The hot loop for the processor at hand: plainly, for AVX2 and for AVX-512. None fuses multiplications with additions and
//! all take the same steps, so all give the same labels.
#![allow(unsafe_code)]

use crate::colour::{self, Planes};
use crate::grid::Grid;
use crate::iterate;

pub(crate) fn assign(image: &Planes, width: usize, height: usize, grid: &Grid, iterations: u32) -> Vec<u32> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512.
        return unsafe { x86::assign_avx512(image, width, height, grid, iterations) };
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { x86::assign_avx2(image, width, height, grid, iterations) };
    }
    iterate::assign(image, (width, height), grid, iterations, iterate::nearest)
}

/// The picture's colours, as [`colour::lab`] has them.
pub(crate) fn lab(rgb: &[u8], weight: f32) -> Planes {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { x86::lab_avx2(rgb, weight) };
    }
    colour::lab(rgb, weight)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;
    use crate::iterate::{BLOCK, Block, Candidate};

    #[target_feature(enable = "avx2")]
    pub(super) fn lab_avx2(rgb: &[u8], weight: f32) -> Planes {
        colour::lab(rgb, weight)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn assign_avx2(image: &Planes, width: usize, height: usize, grid: &Grid, iterations: u32) -> Vec<u32> {
        iterate::assign(image, (width, height), grid, iterations, |block, candidates, y, nearness| {
            nearest_avx2(block, candidates, y, nearness);
        })
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn assign_avx512(image: &Planes, width: usize, height: usize, grid: &Grid, iterations: u32) -> Vec<u32> {
        iterate::assign(image, (width, height), grid, iterations, |block, candidates, y, nearness| {
            nearest_avx512(block, candidates, y, nearness);
        })
    }

    /// Half a block at a time: eight pixels fill a register.
    #[target_feature(enable = "avx2")]
    fn nearest_avx2(block: &mut Block, candidates: &[Candidate], y: usize, nearness: f32) {
        const HALF: usize = BLOCK / 2;
        for half in [0, HALF] {
            let load = |values: &[f32; BLOCK]| {
                let values: &[f32; HALF] = values[half..].first_chunk().expect("half a block");
                // SAFETY: eight values are there.
                unsafe { _mm256_loadu_ps(values.as_ptr()) }
            };
            let ([l, a, b], x) = (block.lab.each_ref().map(load), load(&block.x));
            let labels: &mut [u32; HALF] = block.labels[half..].first_chunk_mut().expect("half a block");
            // SAFETY: eight values are there.
            let mut found = unsafe { _mm256_loadu_si256(labels.as_ptr().cast()) };
            let mut least = _mm256_set1_ps(f32::MAX);
            let (weight, row) = (_mm256_set1_ps(nearness), y as f32);
            for candidate in candidates.iter().filter(|c| c.reaches(row)) {
                let centre = &candidate.centre;
                let dy = centre.y - row;
                let dx = _mm256_sub_ps(_mm256_set1_ps(centre.x), x);
                let dl = _mm256_sub_ps(l, _mm256_set1_ps(centre.lab[0]));
                let da = _mm256_sub_ps(a, _mm256_set1_ps(centre.lab[1]));
                let db = _mm256_sub_ps(b, _mm256_set1_ps(centre.lab[2]));
                let place = _mm256_add_ps(_mm256_set1_ps(dy * dy), _mm256_mul_ps(dx, dx));
                let colour = _mm256_add_ps(_mm256_mul_ps(dl, dl), _mm256_mul_ps(da, da));
                let colour = _mm256_add_ps(colour, _mm256_mul_ps(db, db));
                let distance = _mm256_add_ps(_mm256_mul_ps(place, weight), colour);
                let from = _mm256_set1_ps(candidate.columns[0]);
                let to = _mm256_set1_ps(candidate.columns[1]);
                let inside = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x, from), _mm256_cmp_ps::<_CMP_LT_OQ>(x, to));
                let closer = _mm256_and_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(distance, least), inside);
                least = _mm256_blendv_ps(least, distance, closer);
                let label = _mm256_set1_epi32(candidate.label.cast_signed());
                found = _mm256_blendv_epi8(found, label, _mm256_castps_si256(closer));
            }
            // SAFETY: there is room for eight values.
            unsafe { _mm256_storeu_si256(labels.as_mut_ptr().cast(), found) };
        }
    }

    #[target_feature(enable = "avx512f")]
    fn nearest_avx512(block: &mut Block, candidates: &[Candidate], y: usize, nearness: f32) {
        // SAFETY: sixteen values are there.
        let load = |values: &[f32; BLOCK]| unsafe { _mm512_loadu_ps(values.as_ptr()) };
        let ([l, a, b], x) = (block.lab.each_ref().map(load), load(&block.x));
        // SAFETY: as above.
        let mut found = unsafe { _mm512_loadu_epi32(block.labels.as_ptr().cast()) };
        let mut least = _mm512_set1_ps(f32::MAX);
        let weight = _mm512_set1_ps(nearness);
        let row = y as f32;
        for candidate in candidates.iter().filter(|c| c.reaches(row)) {
            let centre = &candidate.centre;
            let dy = centre.y - row;
            let dx = _mm512_sub_ps(_mm512_set1_ps(centre.x), x);
            let dl = _mm512_sub_ps(l, _mm512_set1_ps(centre.lab[0]));
            let da = _mm512_sub_ps(a, _mm512_set1_ps(centre.lab[1]));
            let db = _mm512_sub_ps(b, _mm512_set1_ps(centre.lab[2]));
            let place = _mm512_add_ps(_mm512_set1_ps(dy * dy), _mm512_mul_ps(dx, dx));
            let colour = _mm512_add_ps(_mm512_mul_ps(dl, dl), _mm512_mul_ps(da, da));
            let colour = _mm512_add_ps(colour, _mm512_mul_ps(db, db));
            let distance = _mm512_add_ps(_mm512_mul_ps(place, weight), colour);
            let from = _mm512_set1_ps(candidate.columns[0]);
            let to = _mm512_set1_ps(candidate.columns[1]);
            let inside = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, from), x, to);
            let closer = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(inside, distance, least);
            least = _mm512_mask_mov_ps(least, closer, distance);
            found = _mm512_mask_set1_epi32(found, closer, candidate.label.cast_signed());
        }
        // SAFETY: there is room for sixteen values.
        unsafe { _mm512_storeu_epi32(block.labels.as_mut_ptr().cast(), found) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid;

    #[test]
    fn all_ways_give_the_same_labels() {
        let rgb: Vec<u8> = (0..97 * 61 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let image = colour::lab(&rgb, 0.1);
        let fast = lab(&rgb, 0.1);
        assert_eq!((&fast.l, &fast.a, &fast.b), (&image.l, &image.a, &image.b));
        let grid = grid::centres(97, 61, 40);
        let plain = iterate::assign(&image, (97, 61), &grid, 5, iterate::nearest);
        assert_eq!(assign(&image, 97, 61, &grid, 5), plain);
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            assert_eq!(unsafe { x86::assign_avx2(&image, 97, 61, &grid, 5) }, plain);
        }
    }
}
