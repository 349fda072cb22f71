//! Who computes which lanes.

/// Deals `lanes` lanes to `workers` workers: contiguous runs in rank order, whose sizes differ by as little as possible.
///
/// Where each worker can be given whole groups of `norm_group` lanes without making the deal more uneven than one group,
/// groups are kept whole, because a group inside one worker needs no communication for its batch statistics.
///
/// Properties (tested): every lane is dealt exactly once, in order; with `lanes >= workers` nobody goes empty; sizes
/// differ by at most one unit, a unit being a whole group when groups are kept whole and one lane otherwise. Workers beyond
/// `lanes` get none.
#[must_use]
pub fn deal_lanes(lanes: u32, workers: usize, norm_group: u32) -> Vec<Vec<u32>> {
    if workers == 0 {
        return Vec::new();
    }
    let groups = if norm_group > 0 && lanes.is_multiple_of(norm_group) { lanes / norm_group } else { 0 };
    // Whole groups are worth keeping only where every worker gets equally many: else a lane's time is lost per step.
    let whole = groups > 0 && (groups as usize).is_multiple_of(workers);
    let unit = if whole { norm_group } else { 1 };
    let units = (lanes / unit) as usize;
    let (each, extra) = (units / workers, units % workers);
    let mut next = 0_u32;
    (0..workers)
        .map(|rank| {
            let count = (each + usize::from(rank < extra)) as u32 * unit;
            let dealt = (next..next + count).collect();
            next += count;
            dealt
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn four_lanes_on_three_workers() {
        assert_eq!(deal_lanes(4, 3, 4), [vec![0, 1], vec![2], vec![3]]);
    }

    #[test]
    fn groups_stay_whole_when_they_divide_evenly() {
        assert_eq!(deal_lanes(8, 2, 4), [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    }

    proptest! {
        #[test]
        fn every_lane_once_in_order_and_evenly(lanes in 1_u32..300, workers in 1_usize..40, group in 1_u32..20) {
            let dealt = deal_lanes(lanes, workers, group);
            prop_assert_eq!(dealt.len(), workers);
            let all: Vec<u32> = dealt.iter().flatten().copied().collect();
            prop_assert_eq!(all, (0..lanes).collect::<Vec<_>>());
            let sizes: Vec<usize> = dealt.iter().map(Vec::len).collect();
            let spread = sizes.iter().max().unwrap() - sizes.iter().min().unwrap();
            prop_assert!(spread <= 1, "sizes {sizes:?}");
        }
    }
}
