//! Connectivity (skimage's `_enforce_label_connectivity_cython`): each connected piece becomes a region of its own; pieces
//! below the smallest size join a neighbour, and none grows beyond the largest.

use crate::Labels;

const UNSEEN: u32 = u32::MAX;

pub(crate) fn enforce(labels: &[u32], width: usize, height: usize, size_min: usize, size_max: usize) -> Labels {
    let size_max = size_max.max(1);
    let mut found = vec![UNSEEN; labels.len()];
    let mut piece: Vec<usize> = Vec::with_capacity(size_max);
    let mut next = 0_u32;
    for start in 0..labels.len() {
        if found[start] != UNSEEN {
            continue;
        }
        let label = labels[start];
        let mut adjacent = 0;
        found[start] = next;
        piece.clear();
        piece.push(start);
        let mut visited = 0;
        while visited < piece.len() && piece.len() < size_max {
            let at = piece[visited];
            for neighbour in neighbours(at, width, height).into_iter().flatten() {
                if labels[neighbour] == label && found[neighbour] == UNSEEN {
                    found[neighbour] = next;
                    piece.push(neighbour);
                    if piece.len() >= size_max {
                        break;
                    }
                } else if found[neighbour] != UNSEEN && found[neighbour] != next {
                    adjacent = found[neighbour];
                }
            }
            visited += 1;
        }
        if piece.len() < size_min {
            piece.iter().for_each(|&pixel| found[pixel] = adjacent);
        } else {
            next += 1;
        }
    }
    // A picture of one small piece has no neighbour to join: it is region 0.
    let count = next.max(1);
    Labels {
        labels: found.into_iter().map(|label| u16::try_from(label).unwrap_or(u16::MAX)).collect(),
        count: u16::try_from(count).unwrap_or(u16::MAX),
    }
}

/// Right, left, below, above: the order decides which neighbour a small piece joins.
#[inline(always)]
fn neighbours(at: usize, width: usize, height: usize) -> [Option<usize>; 4] {
    // In 32 bits: the division is this loop's most costly step, and pictures are not that large.
    let (y, x) = ((at as u32 / width as u32) as usize, (at as u32 % width as u32) as usize);
    [
        (x + 1 < width).then(|| at + 1),
        (x > 0).then(|| at - 1),
        (y + 1 < height).then(|| at + width),
        (y > 0).then(|| at - width),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speck_joins_its_neighbour_and_pieces_are_told_apart() {
        #[rustfmt::skip]
        let labels = [
            0, 0, 1, 0, 0,
            0, 0, 1, 0, 0,
            0, 2, 1, 0, 0,
        ];
        let joined = enforce(&labels, 5, 3, 2, 100);
        assert_eq!(joined.count, 3, "two pieces of label 0, one of label 1; label 2 is a speck");
        assert_ne!(joined.labels[0], joined.labels[4]);
        assert!(joined.labels[11] == joined.labels[10] || joined.labels[11] == joined.labels[12]);
    }

    #[test]
    fn a_lonely_small_picture_is_one_region() {
        assert_eq!(enforce(&[5, 5], 2, 1, 10, 20), Labels { labels: vec![0, 0], count: 1 });
    }
}
