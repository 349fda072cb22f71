//! Random numbers that depend on a key and on nothing else.
//!
//! A [`Keyed`] generator is made from a domain (what the numbers are for) and the coordinates of their use (seed, epoch,
//! sample, ...). The algorithms are written out here, because a library may change its streams between versions, and a run
//! must be the same for ever: xoshiro256++ (Blackman and Vigna, 2019), seeded by XXH3-128 of the key through SplitMix64.

use xxhash_rust::xxh3::Xxh3Default;

/// A generator whose stream is a function of its key.
#[derive(Debug, Clone)]
pub struct Keyed {
    state: [u64; 4],
}

impl Keyed {
    /// The generator of `domain` at `coordinates`. Different keys give unrelated streams.
    #[must_use]
    pub fn new(domain: &str, coordinates: &[u64]) -> Self {
        let mut key = Xxh3Default::new();
        key.update(domain.as_bytes());
        // Ends the domain, so that no coordinate can be taken for a part of it.
        key.update(&[0]);
        for coordinate in coordinates {
            key.update(&coordinate.to_le_bytes());
        }
        let hash = key.digest128();
        let (low, high) = (hash as u64, (hash >> 64) as u64);
        let mut first = low;
        let mut second = high;
        Self { state: [split_mix(&mut first), split_mix(&mut first), split_mix(&mut second), split_mix(&mut second)] }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number in [low, high).
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// A number in 0..n without bias; 0 when `n` is 0 (Lemire, 2019).
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// A number from the standard normal distribution (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        // 1 - u is in (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts a slice into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_key_never_changes() {
        // A change of these values changes every run: make it a new domain instead.
        let mut keyed = Keyed::new("golden", &[0, 1, 2]);
        let values: Vec<u64> = (0..4).map(|_| keyed.next_u64()).collect();
        assert_eq!(values, GOLDEN);
    }

    const GOLDEN: [u64; 4] = [5904586515785843676, 12585543621029709843, 4705527633167230116, 892554327221688635];

    #[test]
    fn keys_do_not_run_into_each_other() {
        let first = |domain: &str, at: &[u64]| Keyed::new(domain, at).next_u64();
        assert_ne!(first("a", &[1]), first("a", &[2]));
        assert_ne!(first("a", &[1]), first("b", &[1]));
        assert_ne!(first("a", &[]), first("a", &[0]));
        assert_eq!(first("a", &[7, 8]), first("a", &[7, 8]));
    }

    #[test]
    fn below_is_even_and_in_range() {
        let mut keyed = Keyed::new("below", &[]);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[keyed.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
        assert_eq!(keyed.below(0), 0);
        assert_eq!(keyed.below(1), 0);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut keyed = Keyed::new("moments", &[]);
        let n = 100_000;
        let mean = (0..n).map(|_| keyed.uniform()).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let square = (0..n).map(|_| keyed.normal().powi(2)).sum::<f64>() / f64::from(n);
        assert!((square - 1.0).abs() < 0.02, "{square}");
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..100).collect();
        Keyed::new("shuffle", &[]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
