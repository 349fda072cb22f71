//! Assignment of pixels to centres and update of centres.

use std::ops::Range;

use crate::colour::Planes;
use crate::grid::Grid;

/// A centre: place in pixels and scaled Lab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Centre {
    pub(crate) y: f32,
    pub(crate) x: f32,
    pub(crate) lab: [f32; 3],
}

/// Sums over a centre's pixels: l, a, b, y, x and their number. Float64, so that their order does not show in float32.
type Sums = [f64; 6];

/// Pixels of a row that are compared together: they stay in registers while centres pass.
pub(crate) const BLOCK: usize = 16;
/// Rows that share a list of centres.
const BAND: usize = 16;
/// Sums that pixels of a row take turns with, so that one need not wait for the one before.
const TURNS: usize = 4;

/// Labels by nearest centre after so many rounds. Inlined into each processor's version.
#[inline(always)]
pub(crate) fn assign(
    image: &Planes,
    (width, height): (usize, usize),
    grid: &Grid,
    iterations: u32,
    nearest: impl Fn(&mut Block, &[Candidate], usize, f32),
) -> Vec<u32> {
    let mut centres: Vec<Centre> = grid.centres.iter().map(|&(y, x)| Centre { y, x, lab: [0.0; 3] }).collect();
    let step = grid.step_y.max(grid.step_x) as f32;
    let nearness = 1.0 / (step * step);
    let mut labels = vec![0_u32; width * height];
    let (mut in_band, mut in_tile): (Vec<Candidate>, Vec<Candidate>) = (Vec::new(), Vec::new());
    for _ in 0..iterations {
        for top in (0..height).step_by(BAND) {
            let band = top..(top + BAND).min(height);
            in_band.clear();
            for (label, &centre) in (0_u32..).zip(&centres) {
                let rows = window(centre.y, 2 * grid.step_y, height);
                let columns = window(centre.x, 2 * grid.step_x, width);
                if overlap(rows, &band) {
                    in_band.push(Candidate { label, centre, rows, columns });
                }
            }
            for left in (0..width).step_by(BLOCK) {
                let block = left..(left + BLOCK).min(width);
                in_tile.clear();
                for candidate in &in_band {
                    if overlap(candidate.columns, &block) {
                        in_tile.push(*candidate);
                    }
                }
                for y in band.clone() {
                    let line = y * width + block.start..y * width + block.end;
                    let mut pixels = Block::load(image, &line, block.start, &labels[line.clone()]);
                    nearest(&mut pixels, &in_tile, y, nearness);
                    match labels[line.clone()].first_chunk_mut() {
                        Some(whole) => *whole = pixels.labels,
                        None => labels[line.clone()].copy_from_slice(&pixels.labels[..line.len()]),
                    }
                }
            }
        }
        update(image, width, &labels, &mut centres);
    }
    labels
}

/// A centre, and the pixels that are compared with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) label: u32,
    pub(crate) centre: Centre,
    /// First row, and the one after the last.
    pub(crate) rows: [f32; 2],
    /// First column, and the one after the last.
    pub(crate) columns: [f32; 2],
}

impl Candidate {
    #[inline(always)]
    pub(crate) fn reaches(&self, row: f32) -> bool {
        (row >= self.rows[0]) & (row < self.rows[1])
    }
}

/// Neighbours in a row: colour, column and label. What lies beyond the picture's edge has any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) lab: [[f32; BLOCK]; 3],
    pub(crate) x: [f32; BLOCK],
    pub(crate) labels: [u32; BLOCK],
}

impl Block {
    #[inline(always)]
    fn load(image: &Planes, line: &Range<usize>, left: usize, labels: &[u32]) -> Self {
        let load = |plane: &[f32]| filled(&plane[line.clone()]);
        let x = std::array::from_fn(|i| (left + i) as f32);
        Self { lab: [load(&image.l), load(&image.a), load(&image.b)], x, labels: filled(labels) }
    }
}

/// Up to a block of values, as a block.
#[inline(always)]
fn filled<T: Copy + Default>(values: &[T]) -> [T; BLOCK] {
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut block = [T::default(); BLOCK];
        block[..values.len()].copy_from_slice(values);
        block
    })
}

#[inline(always)]
fn overlap([from, to]: [f32; 2], pixels: &Range<usize>) -> bool {
    from < pixels.end as f32 && (pixels.start as f32) < to
}

/// Pixels within `reach` of a centre's coordinate, inside the picture: the first, and the one after the last.
#[inline(always)]
fn window(at: f32, reach: usize, size: usize) -> [f32; 2] {
    let from = (at - reach as f32).max(0.0).trunc();
    let to = (at + reach as f32 + 1.0).min(size as f32).trunc();
    [from, to]
}

/// Labels of a block in row `y`; of equally near centres the first. A pixel that no centre reaches keeps its label. simd.rs has
/// the same in the processor's own words.
#[inline(always)]
pub(crate) fn nearest(block: &mut Block, candidates: &[Candidate], y: usize, nearness: f32) {
    let mut least = [f32::MAX; BLOCK];
    let row = y as f32;
    for candidate in candidates.iter().filter(|c| c.reaches(row)) {
        let Centre { y: cy, x: cx, lab: [cl, ca, cb] } = candidate.centre;
        let [from, to] = candidate.columns;
        let dy = cy - row;
        for (i, least) in least.iter_mut().enumerate() {
            let (x, [l, a, b]) = (block.x[i], block.lab.map(|plane| plane[i]));
            let (dx, dl, da, db) = (cx - x, l - cl, a - ca, b - cb);
            let distance = (dy * dy + dx * dx) * nearness + (dl * dl + da * da + db * db);
            if distance < *least && x >= from && x < to {
                *least = distance;
                block.labels[i] = candidate.label;
            }
        }
    }
}

/// Moves every centre to the mean of its pixels; one without pixels stays.
#[inline(always)]
fn update(image: &Planes, width: usize, labels: &[u32], centres: &mut [Centre]) {
    let mut sums = vec![[Sums::default(); TURNS]; centres.len()];
    let rows = labels.chunks_exact(width).zip(image.l.chunks_exact(width)).zip(image.a.chunks_exact(width));
    for (y, (((labels, l), a), b)) in rows.zip(image.b.chunks_exact(width)).enumerate() {
        for (x, (((&label, &l), &a), &b)) in labels.iter().zip(l).zip(a).zip(b).enumerate() {
            let sum = &mut sums[label as usize][x % TURNS];
            let pixel = [l, a, b, y as f32, x as f32, 1.0];
            for (total, value) in sum.iter_mut().zip(pixel) {
                *total += f64::from(value);
            }
        }
    }
    for (centre, turns) in centres.iter_mut().zip(&sums) {
        let [l, a, b, y, x, pixels] = std::array::from_fn(|i| turns.iter().map(|sum| sum[i]).sum::<f64>());
        if pixels == 0.0 {
            continue;
        }
        let mean = |total: f64| (total / pixels) as f32;
        *centre = Centre { y: mean(y), x: mean(x), lab: [mean(l), mean(a), mean(b)] };
    }
}
