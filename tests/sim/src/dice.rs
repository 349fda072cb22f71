//! Everything that a seed decides.

use r2o_types::Keyed;

/// Random numbers of one seed.
#[derive(Debug)]
pub(crate) struct Dice(Keyed);

impl Dice {
    pub(crate) fn new(domain: &str, seed: u64) -> Self {
        Self(Keyed::new(domain, &[seed]))
    }

    /// A number in `low..high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high.saturating_sub(low))
    }

    /// True so often in a thousand times.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.0.below(1_000) < per_mille
    }

    /// An index below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.0.below(n as u64)).unwrap_or(0)
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }
}

/// Mixes two words into one; the same everywhere and for ever.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(b);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
