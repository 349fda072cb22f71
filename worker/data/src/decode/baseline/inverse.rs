//! The inverse cosine transform of many blocks at a time: libjpeg's `jidctint.c` (Loeffler, Ligtenberg and Moschytz 1989), whose
//! integers all of its implementations share. Each block is a lane, so that nothing is transposed between the passes.

use super::{Group, LANES, SIDE, VALUES};
use crate::simd::{Dot, Registers, Words};

/// Fraction bits of the constants.
const CONST_BITS: u32 = 13;
/// Bits that the first pass keeps beyond a whole number's.
const PASS1_BITS: u32 = 2;

const FIX_0_298631336: i16 = 2446;
const FIX_0_390180644: i16 = 3196;
const FIX_0_541196100: i16 = 4433;
const FIX_0_765366865: i16 = 6270;
const FIX_0_899976223: i16 = 7373;
const FIX_1_175875602: i16 = 9633;
const FIX_1_501321110: i16 = 12299;
const FIX_1_847759065: i16 = 15137;
const FIX_1_961570560: i16 = 16069;
const FIX_2_053119869: i16 = 16819;
const FIX_2_562915447: i16 = 20995;
const FIX_3_072711026: i16 = 25172;

/// The greatest coefficient, multiplied, of a picture of 8 bits, with much to spare.
const COEFFICIENT_MAX: i16 = 4095;
/// The greatest value between the passes, likewise. Beyond, libjpeg's vector code begins to differ from its plain one.
const BETWEEN_MAX: i16 = 16383;

/// What a component's coefficients are multiplied by, in the order of rows, and the greatest ones that there may be.
pub(super) struct Quantisation {
    factors: [i16; VALUES],
    most: [i16; VALUES],
}

impl Quantisation {
    pub(super) fn new(factors: [u8; VALUES]) -> Self {
        Self {
            factors: factors.map(i16::from),
            // A factor of 0 makes everything 0.
            most: factors.map(|factor| COEFFICIENT_MAX / i16::from(factor.max(1))),
        }
    }
}

/// How far blocks were beyond what is usual, each lane for itself.
pub(super) struct Beyond<R: Registers>(R::Words);

impl<R: Registers> Beyond<R> {
    #[inline(always)]
    pub(super) fn none() -> Self {
        Self(R::Words::splat(0))
    }

    #[inline(always)]
    fn note(&mut self, value: R::Words, most: i16) {
        self.0 = self.0.max(value.size().sub(R::Words::splat(most)));
    }

    /// Whether nothing was.
    #[inline(always)]
    pub(super) fn is_none(&self) -> bool {
        let mut all = [0; LANES];
        self.0.store(&mut all);
        all == [0; LANES]
    }
}

/// Eight values in a row to eight others, rounded by `SHIFT` bits.
#[inline(always)]
fn pass<R: Registers, const SHIFT: u32>(
    [in0, in1, in2, in3, in4, in5, in6, in7]: [R::Words; SIDE],
) -> [R::Words; SIDE] {
    let (add, sub) = (R::Words::longs_add, R::Words::longs_sub);
    const ONE: i16 = 1 << CONST_BITS;
    let tmp0 = in0.dot(in4, [ONE, ONE]);
    let tmp1 = in0.dot(in4, [ONE, -ONE]);
    let tmp2 = in2.dot(in6, [FIX_0_541196100, FIX_0_541196100 - FIX_1_847759065]);
    let tmp3 = in2.dot(in6, [FIX_0_541196100 + FIX_0_765366865, FIX_0_541196100]);
    let (even0, even3) = (add(tmp0, tmp3), sub(tmp0, tmp3));
    let (even1, even2) = (add(tmp1, tmp2), sub(tmp1, tmp2));

    let (z3, z4) = (in3.add(in7), in1.add(in5));
    let odd3 = z3.dot(z4, [FIX_1_175875602 - FIX_1_961570560, FIX_1_175875602]);
    let odd4 = z3.dot(z4, [FIX_1_175875602, FIX_1_175875602 - FIX_0_390180644]);
    let odd0 = add(in7.dot(in1, [-FIX_0_899976223, FIX_1_501321110 - FIX_0_899976223]), odd4);
    let odd1 = add(in5.dot(in3, [-FIX_2_562915447, FIX_3_072711026 - FIX_2_562915447]), odd3);
    let odd2 = add(in5.dot(in3, [FIX_2_053119869 - FIX_2_562915447, -FIX_2_562915447]), odd4);
    let odd3 = add(in7.dot(in1, [FIX_0_298631336 - FIX_0_899976223, -FIX_0_899976223]), odd3);
    [
        R::Words::rounded::<SHIFT>(add(even0, odd0)),
        R::Words::rounded::<SHIFT>(add(even1, odd1)),
        R::Words::rounded::<SHIFT>(add(even2, odd2)),
        R::Words::rounded::<SHIFT>(add(even3, odd3)),
        R::Words::rounded::<SHIFT>(sub(even3, odd3)),
        R::Words::rounded::<SHIFT>(sub(even2, odd2)),
        R::Words::rounded::<SHIFT>(sub(even1, odd1)),
        R::Words::rounded::<SHIFT>(sub(even0, odd0)),
    ]
}

/// Turns the coefficients of blocks beside each other into samples.
#[inline(always)]
pub(super) fn transform<R: Registers>(
    group: &mut Group,
    quantisation: &Quantisation,
    samples: &mut [u8],
    stride: usize,
    beyond: &mut Beyond<R>,
) {
    for column in 0..SIDE {
        let mut values = [R::Words::splat(0); SIDE];
        for (row, value) in values.iter_mut().enumerate() {
            let at = row * SIDE + column;
            let coefficient = R::Words::load(&group[at]);
            beyond.note(coefficient, quantisation.most[at]);
            *value = coefficient.product(R::Words::splat(quantisation.factors[at]));
        }
        for (row, value) in pass::<R, { CONST_BITS - PASS1_BITS }>(values).into_iter().enumerate() {
            beyond.note(value, BETWEEN_MAX);
            value.store(&mut group[row * SIDE + column]);
        }
    }
    let (least, most) = (R::Words::splat(-128), R::Words::splat(127));
    for (row, line) in group.as_chunks::<SIDE>().0.iter().enumerate() {
        let mut values = [R::Words::splat(0); SIDE];
        for (value, line) in values.iter_mut().zip(line) {
            *value = R::Words::load(line);
        }
        let mut levels = pass::<R, { CONST_BITS + PASS1_BITS + 3 }>(values);
        for level in &mut levels {
            *level = level.clamp(least, most).sub(least);
        }
        let line = samples.get_mut(row * stride..).and_then(|line| line.first_chunk_mut::<{ LANES * SIDE }>());
        if let Some(blocks) = line.and_then(|line| line.as_chunks_mut::<SIDE>().0.first_chunk_mut()) {
            R::Words::bytes(levels, blocks);
        }
    }
}
