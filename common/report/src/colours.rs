//! Colours that stay with a region over the epochs.
//!
//! K-means numbers its clusters afresh each time, so label 3 of one epoch says nothing about label 3 of the next. Regions
//! are matched between neighbouring epochs by the pixels that they share, from the last epoch (few, large regions: the most
//! distinct colours) back to the first, where what is new gets the colours that are free.

use std::collections::{BTreeMap, BTreeSet};

/// The first colours: distinct, of similar weight, told apart with the common kinds of colour blindness (after Okabe and
/// Ito, and Tol's "muted").
const FIRST: [[u8; 3]; 16] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [204, 121, 167],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [136, 34, 85],
    [153, 153, 51],
    [51, 34, 136],
    [136, 204, 238],
    [68, 170, 153],
    [204, 102, 119],
    [221, 204, 119],
    [170, 68, 153],
    [17, 119, 51],
];

/// The colour of a number: the fixed ones, then hues by the golden angle with changing lightness.
pub(crate) fn colour(index: usize) -> [u8; 3] {
    if let Some(colour) = FIRST.get(index) {
        return *colour;
    }
    let i = index - FIRST.len();
    let hue = (i as f64 * 0.618_033_988_749_895).fract() * 6.0;
    let (saturation, value) = ([0.85, 0.55, 0.7][i % 3], [0.9, 0.7, 0.55][i / 3 % 3]);
    // HSV to RGB, by the distance of each primary's hue.
    [5.0, 3.0, 1.0].map(|n: f64| {
        let k = (n + hue) % 6.0;
        let level = value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0);
        (level * 255.0).round() as u8
    })
}

/// Numbers the regions of one image's label maps consistently: equal numbers are the same region over the epochs. All maps
/// have the same length; the result has a map from label to colour number for each.
pub(crate) fn match_over_time(maps: &[&[u8]]) -> Vec<BTreeMap<u8, usize>> {
    let mut matched: Vec<BTreeMap<u8, usize>> = vec![BTreeMap::new(); maps.len()];
    for i in (0..maps.len()).rev() {
        let (now, later) = matched.split_at_mut(i + 1);
        let known = match (later.first(), maps.get(i + 1)) {
            (Some(colours), Some(map)) if map.len() == maps[i].len() => by_overlap(maps[i], map, colours),
            _ => BTreeMap::new(),
        };
        now[i] = with_new(maps[i], known);
    }
    matched
}

/// The largest overlaps first, each colour and each region once.
fn by_overlap(map: &[u8], later: &[u8], colours: &BTreeMap<u8, usize>) -> BTreeMap<u8, usize> {
    let mut shared: BTreeMap<(u8, u8), usize> = BTreeMap::new();
    for pair in map.iter().copied().zip(later.iter().copied()) {
        *shared.entry(pair).or_default() += 1;
    }
    let mut pairs: Vec<_> = shared.into_iter().collect();
    pairs.sort_by_key(|((a, b), pixels)| (std::cmp::Reverse(*pixels), *a, *b));
    let mut known = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for ((label, other), _) in pairs {
        if let Some(colour) = colours.get(&other)
            && !known.contains_key(&label)
            && taken.insert(*colour)
        {
            known.insert(label, *colour);
        }
    }
    known
}

/// Gives the regions without a colour the lowest free ones, large regions first.
fn with_new(map: &[u8], mut known: BTreeMap<u8, usize>) -> BTreeMap<u8, usize> {
    let mut areas: BTreeMap<u8, usize> = BTreeMap::new();
    for label in map {
        *areas.entry(*label).or_default() += 1;
    }
    let mut new: Vec<_> = areas.into_iter().filter(|(label, _)| !known.contains_key(label)).collect();
    new.sort_by_key(|(label, area)| (std::cmp::Reverse(*area), *label));
    let taken: BTreeSet<usize> = known.values().copied().collect();
    let free = (0..).filter(|n| !taken.contains(n));
    known.extend(new.into_iter().map(|(label, _)| label).zip(free));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renumbered_regions_keep_their_colours() {
        let first = [7, 7, 7, 7, 2, 2, 2, 0, 0, 1];
        let second = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1];
        let last = [5, 5, 5, 5, 5, 9, 9, 9, 9, 9];
        let matched = match_over_time(&[&first, &second, &last]);
        assert_eq!(matched[1][&0], matched[2][&5]);
        assert_eq!(matched[1][&1], matched[2][&9]);
        assert_eq!(matched[0][&7], matched[1][&0]);
        assert_eq!(matched[0][&2], matched[1][&1], "the larger part inherits");
        let distinct: BTreeSet<_> = matched[0].values().collect();
        assert_eq!(distinct.len(), 4, "no two regions of one image share a colour");
        assert_eq!(matched[2].values().copied().max(), Some(1), "few regions get the first colours");
    }

    #[test]
    fn colours_are_distinct() {
        let all: BTreeSet<_> = (0..256).map(colour).collect();
        assert!(all.len() > 250, "{}", all.len());
    }
}
