//! The registers of x86-64 processors. Only code that runs behind the detection of these instructions names the types.

use std::arch::x86_64::*;

use bytemuck::Pod;

use super::registers::{LANES, Numbers, Registers, WORDS, Words};
use super::{Kernel, LINE, Past};

#[target_feature(enable = "avx2,bmi1,bmi2")]
pub(super) fn avx2(kernel: impl Kernel, past: &Past) {
    kernel.run::<Avx2>(past);
}

#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn avx512(kernel: impl Kernel, past: &Past) {
    kernel.run::<Avx512>(past);
}

/// Copies all that fills cache lines, when the target begins with one, and gives back the rest: parts of lines would be slow.
/// By registers of 16 bytes, which every such processor has.
#[inline(always)]
pub(super) fn stream<'a, 'b, T: Pod>(target: &'a mut [T], values: &'b [T]) -> (&'a mut [T], &'b [T]) {
    const REGISTERS: usize = LINE / size_of::<__m128i>();
    let aligned = (target.as_ptr() as usize).is_multiple_of(LINE);
    let lines = if aligned { size_of_val(values) / LINE } else { 0 };
    let (whole, rest) = target.split_at_mut(lines * LINE / size_of::<T>());
    let (from, others) = values.split_at(whole.len());
    let (to, from) = (whole.as_mut_ptr().cast::<[__m128i; REGISTERS]>(), from.as_ptr().cast::<[__m128i; REGISTERS]>());
    for line in 0..lines {
        for register in 0..REGISTERS {
            // SAFETY: both are so many lines long, the target is aligned and nobody else's, any bits are a `T`, and [`Past`]
            // makes them visible before anybody looks.
            unsafe {
                let values = _mm_loadu_si128(from.add(line).cast::<__m128i>().add(register));
                _mm_stream_si128(to.add(line).cast::<__m128i>().add(register), values);
            }
        }
    }
    (rest, others)
}

/// Has a cache line fetched that is needed soon.
#[inline(always)]
pub(super) fn fetch(from: &u8) {
    // SAFETY: every x86-64 processor has the instruction, which is but a hint.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(from).cast()) };
}

/// Makes what was streamed visible to all.
pub(super) fn fence() {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { _mm_sfence() };
}

/// Registers of 64 bytes.
pub(super) struct Avx512;

impl Registers for Avx512 {
    type Words = __m512i;
    type Numbers = __m512;
}

// SAFETY, for all of these: the type is named behind the detection of the instructions, and references are as long as registers.
impl Words for __m512i {
    #[inline(always)]
    fn load(values: &[i16; WORDS]) -> Self {
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, target: &mut [i16; WORDS]) {
        unsafe { _mm512_storeu_si512(target.as_mut_ptr().cast(), self) }
    }
    #[inline(always)]
    fn splat(value: i16) -> Self {
        unsafe { _mm512_set1_epi16(value) }
    }
    #[inline(always)]
    fn centred(bytes: &[u8; WORDS]) -> Self {
        unsafe {
            let wide = _mm512_slli_epi16::<8>(_mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.as_ptr().cast())));
            _mm512_xor_si512(wide, _mm512_set1_epi16(i16::MIN))
        }
    }
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        unsafe { _mm512_add_epi16(self, _mm512_mulhi_epi16(a, b)) }
    }
    #[inline(always)]
    fn clamp(self, least: Self, most: Self) -> Self {
        unsafe { _mm512_min_epi16(_mm512_max_epi16(self, least), most) }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_epi16(self, other) }
    }
    #[inline(always)]
    fn times_four(self) -> Self {
        unsafe { _mm512_slli_epi16::<2>(self) }
    }
    #[inline(always)]
    fn dealt([a, b, c, d, e, f, g, h]: [Self; 8]) -> [Self; 8] {
        unsafe {
            let even = [
                _mm512_unpacklo_epi64(a, b),
                _mm512_unpacklo_epi64(c, d),
                _mm512_unpacklo_epi64(e, f),
                _mm512_unpacklo_epi64(g, h),
            ];
            let odd = [
                _mm512_unpackhi_epi64(a, b),
                _mm512_unpackhi_epi64(c, d),
                _mm512_unpackhi_epi64(e, f),
                _mm512_unpackhi_epi64(g, h),
            ];
            let ([a, c, e, g], [b, d, f, h]) = (quarters_dealt(even), quarters_dealt(odd));
            [a, b, c, d, e, f, g, h]
        }
    }
}

/// The quarters of four registers, dealt to four: the first ones to the first.
#[inline(always)]
pub(super) fn quarters_dealt([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: as above.
    unsafe {
        let (low, high) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
        let (next_low, next_high) = (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d));
        [
            _mm512_shuffle_i64x2::<0x88>(low, next_low),
            _mm512_shuffle_i64x2::<0xdd>(low, next_low),
            _mm512_shuffle_i64x2::<0x88>(high, next_high),
            _mm512_shuffle_i64x2::<0xdd>(high, next_high),
        ]
    }
}

impl Numbers for __m512 {
    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, target: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(target.as_mut_ptr(), self) }
    }
    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mul_ps(self, other) }
    }
}

/// Two registers of 32 bytes.
#[derive(Clone, Copy)]
pub(super) struct Two<T>(pub(super) T, pub(super) T);

pub(super) struct Avx2;

impl Registers for Avx2 {
    type Words = Two<__m256i>;
    type Numbers = Two<__m256>;
}

// SAFETY, for all of these: as above.
impl Words for Two<__m256i> {
    #[inline(always)]
    fn load(values: &[i16; WORDS]) -> Self {
        let at = values.as_ptr().cast::<__m256i>();
        unsafe { Self(_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))) }
    }
    #[inline(always)]
    fn store(self, target: &mut [i16; WORDS]) {
        let at = target.as_mut_ptr().cast::<__m256i>();
        unsafe {
            _mm256_storeu_si256(at, self.0);
            _mm256_storeu_si256(at.add(1), self.1);
        }
    }
    #[inline(always)]
    fn splat(value: i16) -> Self {
        let both = unsafe { _mm256_set1_epi16(value) };
        Self(both, both)
    }
    #[inline(always)]
    fn centred(bytes: &[u8; WORDS]) -> Self {
        let at = bytes.as_ptr().cast::<__m128i>();
        unsafe {
            let zero = _mm256_set1_epi16(i16::MIN);
            let first = _mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(_mm_loadu_si128(at)));
            let second = _mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(_mm_loadu_si128(at.add(1))));
            Self(_mm256_xor_si256(first, zero), _mm256_xor_si256(second, zero))
        }
    }
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        unsafe {
            Self(
                _mm256_add_epi16(self.0, _mm256_mulhi_epi16(a.0, b.0)),
                _mm256_add_epi16(self.1, _mm256_mulhi_epi16(a.1, b.1)),
            )
        }
    }
    #[inline(always)]
    fn clamp(self, least: Self, most: Self) -> Self {
        unsafe {
            Self(
                _mm256_min_epi16(_mm256_max_epi16(self.0, least.0), most.0),
                _mm256_min_epi16(_mm256_max_epi16(self.1, least.1), most.1),
            )
        }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm256_sub_epi16(self.0, other.0), _mm256_sub_epi16(self.1, other.1)) }
    }
    #[inline(always)]
    fn times_four(self) -> Self {
        unsafe { Self(_mm256_slli_epi16::<2>(self.0), _mm256_slli_epi16::<2>(self.1)) }
    }
    #[inline(always)]
    fn dealt([a, b, c, d, e, f, g, h]: [Self; 8]) -> [Self; 8] {
        let (first, second) = (groups_dealt([a.0, b.0, c.0, d.0]), groups_dealt([e.0, f.0, g.0, h.0]));
        let (third, fourth) = (groups_dealt([a.1, b.1, c.1, d.1]), groups_dealt([e.1, f.1, g.1, h.1]));
        let both =
            |a: [__m256i; 4], b: [__m256i; 4]| [Self(a[0], b[0]), Self(a[1], b[1]), Self(a[2], b[2]), Self(a[3], b[3])];
        let ([a, b, c, d], [e, f, g, h]) = (both(first, second), both(third, fourth));
        [a, b, c, d, e, f, g, h]
    }
}

/// The groups of four of four registers, dealt to four.
#[inline(always)]
fn groups_dealt([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: as above.
    unsafe {
        let (even, odd) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        let (next_even, next_odd) = (_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
        [
            _mm256_permute2x128_si256::<0x20>(even, next_even),
            _mm256_permute2x128_si256::<0x20>(odd, next_odd),
            _mm256_permute2x128_si256::<0x31>(even, next_even),
            _mm256_permute2x128_si256::<0x31>(odd, next_odd),
        ]
    }
}

impl Numbers for Two<__m256> {
    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        unsafe { Self(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(LANES / 2))) }
    }
    #[inline(always)]
    fn store(self, target: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(target.as_mut_ptr(), self.0);
            _mm256_storeu_ps(target.as_mut_ptr().add(LANES / 2), self.1);
        }
    }
    #[inline(always)]
    fn splat(value: f32) -> Self {
        let both = unsafe { _mm256_set1_ps(value) };
        Self(both, both)
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
}
