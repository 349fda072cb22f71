//! Sums of products of 16-bit integers, as transforms of pictures have them: exact in 32 bits, then rounded.

use super::registers::{WORDS, Words};

/// Registers of 16-bit integers with such sums.
pub(crate) trait Dot: Words {
    /// As many 32-bit integers, in an order of their own.
    type Longs: Copy;
    fn add(self, other: Self) -> Self;
    /// The product's lower half.
    fn product(self, other: Self) -> Self;
    /// How far each is from zero; of negative ones one less.
    fn size(self) -> Self;
    fn max(self, other: Self) -> Self;
    /// Each multiplied by the first factor, and its neighbour of `other` by the second; their sum.
    fn dot(self, other: Self, by: [i16; 2]) -> Self::Longs;
    fn longs_add(a: Self::Longs, b: Self::Longs) -> Self::Longs;
    fn longs_sub(a: Self::Longs, b: Self::Longs) -> Self::Longs;
    /// Without the lowest bits, rounded; what does not fit into 16 bits is the nearest that does.
    fn rounded<const BITS: u32>(longs: Self::Longs) -> Self;
    /// From 0 to 255 each: the first ones of all, one after another, then the second ones, and so on.
    fn bytes(values: [Self; 8], target: &mut [[u8; 8]; WORDS]);
}

impl Dot for [i16; WORDS] {
    type Longs = [i32; WORDS];

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for (a, b) in self.iter_mut().zip(other) {
            *a = a.wrapping_add(b);
        }
        self
    }
    #[inline(always)]
    fn product(mut self, other: Self) -> Self {
        for (a, b) in self.iter_mut().zip(other) {
            *a = a.wrapping_mul(b);
        }
        self
    }
    #[inline(always)]
    fn size(mut self) -> Self {
        for a in &mut self {
            *a ^= *a >> 15;
        }
        self
    }
    #[inline(always)]
    fn max(mut self, other: Self) -> Self {
        for (a, b) in self.iter_mut().zip(other) {
            *a = (*a).max(b);
        }
        self
    }
    #[inline(always)]
    fn dot(self, other: Self, by: [i16; 2]) -> [i32; WORDS] {
        let mut sums = [0; WORDS];
        for ((sum, a), b) in sums.iter_mut().zip(self).zip(other) {
            *sum = i32::from(a) * i32::from(by[0]) + i32::from(b) * i32::from(by[1]);
        }
        sums
    }
    #[inline(always)]
    fn longs_add(mut a: [i32; WORDS], b: [i32; WORDS]) -> [i32; WORDS] {
        for (a, b) in a.iter_mut().zip(b) {
            *a = a.wrapping_add(b);
        }
        a
    }
    #[inline(always)]
    fn longs_sub(mut a: [i32; WORDS], b: [i32; WORDS]) -> [i32; WORDS] {
        for (a, b) in a.iter_mut().zip(b) {
            *a = a.wrapping_sub(b);
        }
        a
    }
    #[inline(always)]
    fn rounded<const BITS: u32>(longs: [i32; WORDS]) -> Self {
        let mut words = [0; WORDS];
        for (word, long) in words.iter_mut().zip(longs) {
            let value = long.wrapping_add(1 << (BITS - 1)) >> BITS;
            *word = value.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        }
        words
    }
    #[inline(always)]
    fn bytes(values: [Self; 8], target: &mut [[u8; 8]; WORDS]) {
        for (at, values) in values.iter().enumerate() {
            for (target, &value) in target.iter_mut().zip(values) {
                target[at] = value as u8;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::x86::{Two, quarters_dealt};
    use super::*;

    /// Two factors side by side.
    #[inline(always)]
    fn both([first, second]: [i16; 2]) -> i32 {
        i32::from(second) << 16 | i32::from(first as u16)
    }

    // SAFETY, for all of these: the type is named behind the detection of the instructions, and stores are as long as the target.
    impl Dot for __m512i {
        type Longs = [__m512i; 2];

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { _mm512_add_epi16(self, other) }
        }
        #[inline(always)]
        fn product(self, other: Self) -> Self {
            unsafe { _mm512_mullo_epi16(self, other) }
        }
        #[inline(always)]
        fn size(self) -> Self {
            unsafe { _mm512_xor_si512(self, _mm512_srai_epi16::<15>(self)) }
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe { _mm512_max_epi16(self, other) }
        }
        #[inline(always)]
        fn dot(self, other: Self, by: [i16; 2]) -> Self::Longs {
            unsafe {
                let by = _mm512_set1_epi32(both(by));
                let low = _mm512_madd_epi16(_mm512_unpacklo_epi16(self, other), by);
                [low, _mm512_madd_epi16(_mm512_unpackhi_epi16(self, other), by)]
            }
        }
        #[inline(always)]
        fn longs_add(a: Self::Longs, b: Self::Longs) -> Self::Longs {
            unsafe { [_mm512_add_epi32(a[0], b[0]), _mm512_add_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn longs_sub(a: Self::Longs, b: Self::Longs) -> Self::Longs {
            unsafe { [_mm512_sub_epi32(a[0], b[0]), _mm512_sub_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn rounded<const BITS: u32>([low, high]: Self::Longs) -> Self {
            unsafe {
                let half = _mm512_set1_epi32(1 << (BITS - 1));
                let low = _mm512_srai_epi32::<BITS>(_mm512_add_epi32(low, half));
                _mm512_packs_epi32(low, _mm512_srai_epi32::<BITS>(_mm512_add_epi32(high, half)))
            }
        }
        #[inline(always)]
        fn bytes([a, b, c, d, e, f, g, h]: [Self; 8], target: &mut [[u8; 8]; WORDS]) {
            unsafe {
                let pair = |low, high| _mm512_or_si512(low, _mm512_slli_epi16::<8>(high));
                let (ab, cd, ef, gh) = (pair(a, b), pair(c, d), pair(e, f), pair(g, h));
                let (left, next_left) = (_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd));
                let (right, next_right) = (_mm512_unpacklo_epi16(ef, gh), _mm512_unpackhi_epi16(ef, gh));
                let eight = quarters_dealt([
                    _mm512_unpacklo_epi32(left, right),
                    _mm512_unpackhi_epi32(left, right),
                    _mm512_unpacklo_epi32(next_left, next_right),
                    _mm512_unpackhi_epi32(next_left, next_right),
                ]);
                for (target, eight) in target.as_chunks_mut::<8>().0.iter_mut().zip(eight) {
                    _mm512_storeu_si512(target.as_mut_ptr().cast(), eight);
                }
            }
        }
    }

    impl Dot for Two<__m256i> {
        type Longs = [__m256i; 4];

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_epi16(self.0, other.0), _mm256_add_epi16(self.1, other.1)) }
        }
        #[inline(always)]
        fn product(self, other: Self) -> Self {
            unsafe { Self(_mm256_mullo_epi16(self.0, other.0), _mm256_mullo_epi16(self.1, other.1)) }
        }
        #[inline(always)]
        fn size(self) -> Self {
            unsafe {
                let (first, second) = (_mm256_srai_epi16::<15>(self.0), _mm256_srai_epi16::<15>(self.1));
                Self(_mm256_xor_si256(self.0, first), _mm256_xor_si256(self.1, second))
            }
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe { Self(_mm256_max_epi16(self.0, other.0), _mm256_max_epi16(self.1, other.1)) }
        }
        #[inline(always)]
        fn dot(self, other: Self, by: [i16; 2]) -> Self::Longs {
            unsafe {
                let by = _mm256_set1_epi32(both(by));
                [
                    _mm256_madd_epi16(_mm256_unpacklo_epi16(self.0, other.0), by),
                    _mm256_madd_epi16(_mm256_unpackhi_epi16(self.0, other.0), by),
                    _mm256_madd_epi16(_mm256_unpacklo_epi16(self.1, other.1), by),
                    _mm256_madd_epi16(_mm256_unpackhi_epi16(self.1, other.1), by),
                ]
            }
        }
        #[inline(always)]
        fn longs_add([a, b, c, d]: Self::Longs, [e, f, g, h]: Self::Longs) -> Self::Longs {
            unsafe { [_mm256_add_epi32(a, e), _mm256_add_epi32(b, f), _mm256_add_epi32(c, g), _mm256_add_epi32(d, h)] }
        }
        #[inline(always)]
        fn longs_sub([a, b, c, d]: Self::Longs, [e, f, g, h]: Self::Longs) -> Self::Longs {
            unsafe { [_mm256_sub_epi32(a, e), _mm256_sub_epi32(b, f), _mm256_sub_epi32(c, g), _mm256_sub_epi32(d, h)] }
        }
        #[inline(always)]
        fn rounded<const BITS: u32>([a, b, c, d]: Self::Longs) -> Self {
            unsafe {
                let (half, bits) = (_mm256_set1_epi32(1 << (BITS - 1)), _mm256_set1_epi32(BITS as i32));
                let shifted = |longs| _mm256_srav_epi32(_mm256_add_epi32(longs, half), bits);
                Self(_mm256_packs_epi32(shifted(a), shifted(b)), _mm256_packs_epi32(shifted(c), shifted(d)))
            }
        }
        #[inline(always)]
        fn bytes(values: [Self; 8], target: &mut [[u8; 8]; WORDS]) {
            let (first, second) = target.split_at_mut(WORDS / 2);
            half_bytes(values.map(|value| value.0), first);
            half_bytes(values.map(|value| value.1), second);
        }
    }

    #[inline(always)]
    fn half_bytes([a, b, c, d, e, f, g, h]: [__m256i; 8], target: &mut [[u8; 8]]) {
        // SAFETY: as above.
        unsafe {
            let pair = |low, high| _mm256_or_si256(low, _mm256_slli_epi16::<8>(high));
            let (ab, cd, ef, gh) = (pair(a, b), pair(c, d), pair(e, f), pair(g, h));
            let (left, next_left) = (_mm256_unpacklo_epi16(ab, cd), _mm256_unpackhi_epi16(ab, cd));
            let (right, next_right) = (_mm256_unpacklo_epi16(ef, gh), _mm256_unpackhi_epi16(ef, gh));
            let (one, two) = (_mm256_unpacklo_epi32(left, right), _mm256_unpackhi_epi32(left, right));
            let three = _mm256_unpacklo_epi32(next_left, next_right);
            let four = _mm256_unpackhi_epi32(next_left, next_right);
            let eight = [
                _mm256_permute2x128_si256::<0x20>(one, two),
                _mm256_permute2x128_si256::<0x20>(three, four),
                _mm256_permute2x128_si256::<0x31>(one, two),
                _mm256_permute2x128_si256::<0x31>(three, four),
            ];
            for (target, four) in target.as_chunks_mut::<4>().0.iter_mut().zip(eight) {
                _mm256_storeu_si256(target.as_mut_ptr().cast(), four);
            }
        }
    }
}
