//! The hot loops for the processor at hand: one source, compiled plainly and for AVX2. Neither fuses multiplications with
//! additions, so both give the same labels.
#![allow(unsafe_code)]

use crate::colour::Planes;
use crate::grid::Grid;
use crate::iterate;

pub(crate) fn assign(image: &Planes, width: usize, height: usize, grid: &Grid, iterations: u32) -> Vec<u32> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { assign_avx2(image, width, height, grid, iterations) };
    }
    iterate::assign(image, width, height, grid, iterations)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn assign_avx2(image: &Planes, width: usize, height: usize, grid: &Grid, iterations: u32) -> Vec<u32> {
    iterate::assign(image, width, height, grid, iterations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{colour, grid};

    #[test]
    fn both_ways_give_the_same_labels() {
        let rgb: Vec<u8> = (0..97 * 61 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let image = colour::lab(&rgb, 0.1);
        let grid = grid::centres(97, 61, 40);
        assert_eq!(assign(&image, 97, 61, &grid, 5), iterate::assign(&image, 97, 61, &grid, 5));
    }
}
