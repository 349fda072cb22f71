//! Short fingerprints of what was trained on.

use xxhash_rust::xxh3::Xxh3Default;

/// XXH3-64 of sample ordinals as little-endian 64-bit integers.
#[must_use]
pub fn sample_digest(samples: &[u64]) -> u64 {
    let mut hasher = Xxh3Default::new();
    for sample in samples {
        hasher.update(&sample.to_le_bytes());
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_matter() {
        assert_eq!(sample_digest(&[1, 2]), sample_digest(&[1, 2]));
        assert_ne!(sample_digest(&[1, 2]), sample_digest(&[2, 1]));
        assert_ne!(sample_digest(&[1]), sample_digest(&[1, 1]));
    }
}
