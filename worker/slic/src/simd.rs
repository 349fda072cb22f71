//! The hot loops for the processor at hand: plainly, for AVX2 and for AVX-512. None fuses multiplications with additions and
//! all take the same steps, so all give the same labels.
#![allow(unsafe_code)]

use crate::grid::Grid;
use crate::tile::LANES;
use crate::{colour, iterate};

/// A picture to segment.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    /// 3 * width * height bytes.
    pub(crate) rgb: &'a [u8],
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Of colours, beside places.
    pub(crate) weight: f32,
    pub(crate) grid: &'a Grid,
    pub(crate) iterations: u32,
}

impl Task<'_> {
    /// Labels by nearest centre, row-major.
    pub(crate) fn run(self) -> Vec<u32> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX-512.
            return unsafe { x86::run_avx512(self) };
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { x86::run_avx2(self) };
        }
        self.run_as::<[f32; LANES]>()
    }

    #[inline(always)]
    fn run_as<V: Lanes>(self) -> Vec<u32> {
        let picture = colour::lab::<V>(self.rgb, self.width, self.height, self.weight);
        iterate::assign::<V>(&picture, self.grid, self.iterations)
    }
}

/// A tile's numbers, in the processor's registers.
pub(crate) trait Lanes: Copy {
    /// Yes or no for each.
    type Mask: Copy;

    fn load(values: &[f32; LANES]) -> Self;
    fn store(self) -> [f32; LANES];
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn less(self, other: Self) -> Self::Mask;
    fn at_most(self, other: Self) -> Self::Mask;
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// The first number's answer in the lowest bit.
    fn bits(mask: Self::Mask) -> u16;
    fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Which numbers have other bits.
    fn differ(self, other: Self) -> u16;

    #[inline(always)]
    fn least(self) -> f32 {
        self.store().into_iter().fold(f32::INFINITY, |a, b| if a > b { b } else { a })
    }
    #[inline(always)]
    fn greatest(self) -> f32 {
        self.store().into_iter().fold(f32::NEG_INFINITY, |a, b| if a < b { b } else { a })
    }
}

impl Lanes for [f32; LANES] {
    type Mask = [bool; LANES];

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        *values
    }
    #[inline(always)]
    fn store(self) -> [f32; LANES] {
        self
    }
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
    #[inline(always)]
    fn less(self, other: Self) -> Self::Mask {
        std::array::from_fn(|i| self[i] < other[i])
    }
    #[inline(always)]
    fn at_most(self, other: Self) -> Self::Mask {
        std::array::from_fn(|i| self[i] <= other[i])
    }
    #[inline(always)]
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn bits(mask: Self::Mask) -> u16 {
        (0..LANES).fold(0, |bits, i| bits | u16::from(mask[i]) << i)
    }
    #[inline(always)]
    fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self {
        std::array::from_fn(|i| if mask[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn differ(self, other: Self) -> u16 {
        Self::bits(std::array::from_fn(|i| self[i].to_bits() != other[i].to_bits()))
    }
}

/// Only code that runs behind the detection of these instructions names the two types.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes, Task};

    #[target_feature(enable = "avx2")]
    pub(super) fn run_avx2(task: Task<'_>) -> Vec<u32> {
        task.run_as::<Avx2>()
    }

    #[target_feature(enable = "avx2,avx512f")]
    pub(super) fn run_avx512(task: Task<'_>) -> Vec<u32> {
        task.run_as::<Avx512>()
    }

    /// Two registers of eight.
    #[derive(Clone, Copy)]
    struct Avx2([__m256; 2]);

    /// One register of sixteen.
    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    /// `$wide` of each half.
    macro_rules! halves {
        ($wide:expr, $a:expr, $b:expr) => {
            // SAFETY: the processor has AVX2.
            unsafe { [$wide($a.0[0], $b.0[0]), $wide($a.0[1], $b.0[1])] }
        };
    }

    impl Lanes for Avx2 {
        type Mask = [__m256; 2];

        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: the processor has AVX2, and sixteen values are there.
            Self(unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] })
        }
        #[inline(always)]
        fn store(self) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            // SAFETY: the processor has AVX2, and there is room for sixteen values.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), self.0[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), self.0[1]);
            }
            out
        }
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: the processor has AVX2.
            Self(unsafe { [_mm256_set1_ps(value); 2] })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(halves!(_mm256_add_ps, self, other))
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Self(halves!(_mm256_sub_ps, self, other))
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Self(halves!(_mm256_mul_ps, self, other))
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Self(halves!(_mm256_min_ps, self, other))
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Self(halves!(_mm256_max_ps, self, other))
        }
        #[inline(always)]
        fn less(self, other: Self) -> Self::Mask {
            halves!(_mm256_cmp_ps::<_CMP_LT_OQ>, self, other)
        }
        #[inline(always)]
        fn at_most(self, other: Self) -> Self::Mask {
            halves!(_mm256_cmp_ps::<_CMP_LE_OQ>, self, other)
        }
        #[inline(always)]
        fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
            halves!(_mm256_and_ps, Self(a), Self(b))
        }
        #[inline(always)]
        fn bits(mask: Self::Mask) -> u16 {
            // SAFETY: the processor has AVX2.
            let (low, high) = unsafe { (_mm256_movemask_ps(mask[0]), _mm256_movemask_ps(mask[1])) };
            (low | high << 8) as u16
        }
        #[inline(always)]
        fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self {
            // SAFETY: the processor has AVX2.
            Self(unsafe {
                [_mm256_blendv_ps(no.0[0], yes.0[0], mask[0]), _mm256_blendv_ps(no.0[1], yes.0[1], mask[1])]
            })
        }
        #[inline(always)]
        fn differ(self, other: Self) -> u16 {
            let ([a, b], [c, d]) = (self.0, other.0);
            // SAFETY: the processor has AVX2.
            let same = unsafe {
                [
                    _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_castps_si256(a), _mm256_castps_si256(c))),
                    _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_castps_si256(b), _mm256_castps_si256(d))),
                ]
            };
            !Self::bits(same)
        }
    }

    impl Lanes for Avx512 {
        type Mask = __mmask16;

        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: the processor has AVX-512, and sixteen values are there.
            Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
        }
        #[inline(always)]
        fn store(self) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            // SAFETY: the processor has AVX-512, and there is room for sixteen values.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) };
            out
        }
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: the processor has AVX-512.
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: the processor has AVX-512.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: the processor has AVX-512.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: the processor has AVX-512.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            // SAFETY: the processor has AVX-512.
            Self(unsafe { _mm512_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: the processor has AVX-512.
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn less(self, other: Self) -> Self::Mask {
            // SAFETY: the processor has AVX-512.
            unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
        }
        #[inline(always)]
        fn at_most(self, other: Self) -> Self::Mask {
            // SAFETY: the processor has AVX-512.
            unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, other.0) }
        }
        #[inline(always)]
        fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
            a & b
        }
        #[inline(always)]
        fn bits(mask: Self::Mask) -> u16 {
            mask
        }
        #[inline(always)]
        fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self {
            // SAFETY: the processor has AVX-512.
            Self(unsafe { _mm512_mask_mov_ps(no.0, mask, yes.0) })
        }
        #[inline(always)]
        fn differ(self, other: Self) -> u16 {
            // SAFETY: the processor has AVX-512.
            unsafe { _mm512_cmpneq_epi32_mask(_mm512_castps_si512(self.0), _mm512_castps_si512(other.0)) }
        }
        #[inline(always)]
        fn least(self) -> f32 {
            // SAFETY: the processor has AVX-512.
            unsafe { _mm512_reduce_min_ps(self.0) }
        }
        #[inline(always)]
        fn greatest(self) -> f32 {
            // SAFETY: the processor has AVX-512.
            unsafe { _mm512_reduce_max_ps(self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid;

    #[test]
    fn all_ways_give_the_same_labels() {
        // 97 and 61 pixels end inside a tile; 700 segments make lists of candidates long.
        let rgb: Vec<u8> = (0..97 * 61 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for segments in [40, 700] {
            let grid = grid::centres(97, 61, segments);
            let task = Task { rgb: &rgb, width: 97, height: 61, weight: 0.1, grid: &grid, iterations: 5 };
            let plain = task.run_as::<[f32; LANES]>();
            assert_eq!(task.run(), plain);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                assert_eq!(unsafe { x86::run_avx2(task) }, plain);
            }
        }
    }
}
