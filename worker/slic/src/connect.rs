//! Connectivity (skimage's `_enforce_label_connectivity_cython`): each connected piece becomes a region of its own; pieces
//! below the smallest size join a neighbour, and none grows beyond the largest.

use crate::Labels;

/// Marks a pixel whose region is known, beside the region's number. Without it: the label that the pixel came with.
const SEEN: u32 = 1 << 31;

/// A label that no pixel has: that of the frame around the picture.
const FRAME: u32 = SEEN - 1;

pub(crate) fn enforce(labels: &[u32], width: usize, height: usize, size_min: usize, size_max: usize) -> Labels {
    let size_max = size_max.max(1);
    // A frame of one pixel, whose label is nobody's, stands for all questions about borders.
    let stride = width + 2;
    let mut framed = vec![FRAME; stride * (height + 2)];
    for (row, labels) in framed[stride..].chunks_exact_mut(stride).zip(labels.chunks_exact(width)) {
        row[1..=width].copy_from_slice(labels);
    }
    let mut piece: Vec<usize> = Vec::with_capacity(size_max);
    let mut next = 0_u32;
    for start in stride..stride * (height + 1) {
        if framed[start] >= FRAME {
            continue;
        }
        let adjacent = gather(&mut framed, stride, (start, next), size_max, &mut piece);
        if piece.len() < size_min {
            piece.iter().for_each(|&pixel| framed[pixel] = SEEN | adjacent);
        } else {
            next += 1;
        }
    }
    // A picture of one small piece has no neighbour to join: it is region 0.
    let count = next.max(1);
    let rows = framed[stride..].chunks_exact(stride).take(height);
    let region = |&state: &u32| u16::try_from(state & !SEEN).unwrap_or(u16::MAX);
    Labels {
        labels: rows.flat_map(|row| row[1..=width].iter().map(region)).collect(),
        count: u16::try_from(count).unwrap_or(u16::MAX),
    }
}

/// Marks the pixels that hang together with `start` as region `next`, at most `size_max` of them, lists them in `piece`, and
/// gives back the region beside them that was seen last (0: none).
fn gather(
    framed: &mut [u32],
    stride: usize,
    (start, next): (usize, u32),
    size_max: usize,
    piece: &mut Vec<usize>,
) -> u32 {
    let (label, mine) = (framed[start], SEEN | next);
    let mut adjacent = 0;
    framed[start] = mine;
    piece.clear();
    piece.push(start);
    let mut visited = 0;
    while visited < piece.len() && piece.len() < size_max {
        let at = piece[visited];
        // Right, left, below, above: the order decides which neighbour a small piece joins.
        for neighbour in [at + 1, at - 1, at + stride, at - stride] {
            let state = framed[neighbour];
            if state == label {
                framed[neighbour] = mine;
                piece.push(neighbour);
                if piece.len() >= size_max {
                    break;
                }
            } else if state >= SEEN && state != mine {
                adjacent = state & !SEEN;
            }
        }
        visited += 1;
    }
    adjacent
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
