//! Numbers that are worked on together, in the processor's registers.

use std::array::from_fn;

use super::dot::Dot;

/// 16-bit integers of a [`Words`].
pub(crate) const WORDS: usize = 32;
/// float32 numbers of a [`Numbers`].
pub(crate) const LANES: usize = 16;

/// A kind of registers.
pub(crate) trait Registers {
    type Words: Dot;
    type Numbers: Numbers;
}

/// 16-bit integers.
pub(crate) trait Words: Copy {
    fn load(values: &[i16; WORDS]) -> Self;
    fn store(self, target: &mut [i16; WORDS]);
    fn splat(value: i16) -> Self;
    /// Bytes shifted by eight, as numbers around zero.
    fn centred(bytes: &[u8; WORDS]) -> Self;
    /// The product's higher half is added.
    fn add_product(self, a: Self, b: Self) -> Self;
    fn clamp(self, least: Self, most: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// Shifted by two bits, towards the higher ones.
    fn times_four(self) -> Self;
    /// Each register's groups of four, dealt to eight registers: the first ones to the first.
    fn dealt(registers: [Self; 8]) -> [Self; 8];
}

/// float32 numbers.
pub(crate) trait Numbers: Copy {
    fn load(values: &[f32; LANES]) -> Self;
    fn store(self, target: &mut [f32; LANES]);
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
}

/// Arrays, which the compiler lays into such registers as there are.
pub(crate) struct Plain;

impl Registers for Plain {
    type Words = [i16; WORDS];
    type Numbers = [f32; LANES];
}

impl Words for [i16; WORDS] {
    #[inline(always)]
    fn load(values: &[i16; WORDS]) -> Self {
        *values
    }
    #[inline(always)]
    fn store(self, target: &mut [i16; WORDS]) {
        *target = self;
    }
    #[inline(always)]
    fn splat(value: i16) -> Self {
        [value; WORDS]
    }
    #[inline(always)]
    fn centred(bytes: &[u8; WORDS]) -> Self {
        from_fn(|i| (i16::from(bytes[i]) - 128) << 8)
    }
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        from_fn(|i| self[i].wrapping_add(((i32::from(a[i]) * i32::from(b[i])) >> 16) as i16))
    }
    #[inline(always)]
    fn clamp(self, least: Self, most: Self) -> Self {
        from_fn(|i| self[i].max(least[i]).min(most[i]))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        from_fn(|i| self[i].wrapping_sub(other[i]))
    }
    #[inline(always)]
    fn times_four(self) -> Self {
        from_fn(|i| self[i] << 2)
    }
    #[inline(always)]
    fn dealt(registers: [Self; 8]) -> [Self; 8] {
        from_fn(|group| from_fn(|i| registers[i / 4][4 * group + i % 4]))
    }
}

impl Numbers for [f32; LANES] {
    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        *values
    }
    #[inline(always)]
    fn store(self, target: &mut [f32; LANES]) {
        *target = self;
    }
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        from_fn(|i| self[i] + other[i])
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        from_fn(|i| self[i] * other[i])
    }
}
