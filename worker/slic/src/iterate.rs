//! Assignment of pixels to centres and update of centres.

use std::ops::Range;

use crate::grid::Grid;
use crate::simd::Lanes;
use crate::tile::{Group, LANES, Pixels, Reach, SIDE, Tile, Tiles, Worthwhile};

/// Tiles along the side of a square that shares a list of candidates.
const SQUARE: usize = 8;

/// A centre: place in pixels and scaled Lab; and the pixels that are compared with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) label: u32,
    pub(crate) y: f32,
    pub(crate) x: f32,
    pub(crate) lab: [f32; 3],
    /// First row, and the one after the last.
    pub(crate) rows: [f32; 2],
    /// First column, and the one after the last.
    pub(crate) columns: [f32; 2],
}

impl Candidate {
    /// Nobody's.
    pub(crate) const NONE: Self =
        Self { label: 0, y: f32::INFINITY, x: f32::INFINITY, lab: [0.0; 3], rows: [0.0; 2], columns: [0.0; 2] };
}

/// Sums over a centre's pixels: l, a, b, y, x and their number. Float64, so that their order does not show in float32.
type Sums = [f64; 6];

/// What is worked out for a square of tiles.
#[derive(Default)]
struct Room {
    groups: Vec<Group>,
    /// Of each tile: how far its pixels can be from the nearest centre.
    bounds: Vec<f32>,
    /// For each group, for each tile.
    plan: Vec<Worthwhile>,
}

/// The state between rounds.
struct Clusters<'a> {
    picture: &'a Tiles,
    grid: &'a Grid,
    centres: Vec<Candidate>,
    sums: Vec<Sums>,
    /// Of each tile's pixels.
    labels: Vec<[u32; LANES]>,
}

/// Labels, row-major, by nearest centre after so many rounds. Inlined into each processor's version.
#[inline(always)]
pub(crate) fn assign<V: Lanes>(picture: &Tiles, grid: &Grid, iterations: u32) -> Vec<u32> {
    let mut clusters = Clusters::start(picture, grid);
    let step = grid.step_y.max(grid.step_x) as f32;
    let nearness = 1.0 / (step * step);
    let mut room = Room::default();
    for _ in 0..iterations {
        clusters.round::<V>(nearness, &mut room);
        clusters.update();
    }
    clusters.flat()
}

impl<'a> Clusters<'a> {
    /// Every pixel at the centre of its place in the grid: the guess that the first round starts from.
    fn start(picture: &'a Tiles, grid: &'a Grid) -> Self {
        let centres = (0_u32..).zip(&grid.centres).map(|(label, &(y, x))| Candidate { label, y, x, ..Candidate::NONE });
        let guess = |top: usize, left: usize| std::array::from_fn(|i| grid.nearest(top + i / SIDE, left + i % SIDE));
        let places = (0..picture.tiles.len()).map(|at| picture.place(at));
        let mut clusters = Self {
            picture,
            grid,
            centres: centres.collect(),
            sums: vec![Sums::default(); grid.centres.len()],
            labels: places.map(|(top, left)| guess(top, left)).collect(),
        };
        for (at, tile) in picture.tiles.iter().enumerate() {
            let (place, labels) = (picture.place(at), clusters.labels[at]);
            for lane in (0..LANES).filter(|&lane| picture.holds(place, lane)) {
                add(&mut clusters.sums[labels[lane] as usize], tile, place, lane, 1.0);
            }
        }
        clusters.look();
        clusters
    }

    /// Sets what each centre is compared with.
    fn look(&mut self) {
        let (grid, picture) = (self.grid, self.picture);
        for centre in &mut self.centres {
            centre.rows = window(centre.y, 2 * grid.step_y, picture.height);
            centre.columns = window(centre.x, 2 * grid.step_x, picture.width);
        }
    }

    #[inline(always)]
    fn round<V: Lanes>(&mut self, nearness: f32, room: &mut Room) {
        let (across, down) = (self.picture.across, self.picture.tiles.len() / self.picture.across);
        for top in (0..down).step_by(SQUARE) {
            let rows = top..(top + SQUARE).min(down);
            for left in (0..across).step_by(SQUARE) {
                let columns = left..(left + SQUARE).min(across);
                gather(&self.centres, &rows, &columns, &mut room.groups);
                // First what to compare, for all tiles, then the comparisons: the processor foresees the one, hardly the other.
                self.plan::<V>(&rows, &columns, nearness, room);
                let places = rows.clone().flat_map(|row| columns.clone().map(move |column| row * across + column));
                for (index, at) in places.enumerate() {
                    self.settle::<V>(at, nearness, &room.groups, &room.plan[index..], rows.len() * columns.len());
                }
            }
        }
    }

    #[inline(always)]
    fn pixels<V: Lanes>(&self, at: usize, nearness: f32) -> Pixels<V> {
        let picture = self.picture;
        Pixels::new(&picture.tiles[at], picture.place(at), (picture.height - 1, picture.width - 1), nearness)
    }

    /// Lists what the pixels of each tile must be compared with.
    #[inline(always)]
    fn plan<V: Lanes>(&self, rows: &Range<usize>, columns: &Range<usize>, nearness: f32, room: &mut Room) {
        let Tiles { width, height, across, tiles } = self.picture;
        room.bounds.clear();
        for row in rows.clone() {
            for column in columns.clone() {
                room.bounds.push(self.bound::<V>(row * across + column, nearness));
            }
        }
        room.plan.clear();
        for group in &room.groups {
            let mut reach = [Reach::<V>::of_column(group, SIDE * columns.start, width - 1); SQUARE];
            for (reach, column) in reach.iter_mut().zip(columns.clone()) {
                *reach = Reach::of_column(group, SIDE * column, width - 1);
            }
            let mut bounds = room.bounds.iter();
            for row in rows.clone() {
                let down = Reach::<V>::of_row(group, SIDE * row, height - 1);
                for ((tile, reach), &bound) in
                    tiles[row * across..][columns.clone()].iter().zip(&reach).zip(&mut bounds)
                {
                    room.plan.push(Worthwhile::new(tile, group, (&down, reach), nearness, bound));
                }
            }
        }
    }

    /// The farthest that a tile's pixel can be from the nearest centre: what was nearest before is near now.
    #[inline(always)]
    fn bound<V: Lanes>(&self, at: usize, nearness: f32) -> f32 {
        let pixels = self.pixels::<V>(at, nearness);
        let [first, .., last] = self.labels[at];
        let (first, last) = (&self.centres[first as usize], &self.centres[last as usize]);
        pixels.near(first).min(pixels.near(last)).greatest()
    }

    /// Labels a tile's pixels, and moves those with another label than before from sum to sum.
    #[inline(always)]
    fn settle<V: Lanes>(&mut self, at: usize, nearness: f32, groups: &[Group], plan: &[Worthwhile], step: usize) {
        let before = self.labels[at];
        let (old, pixels) = (V::load(&before.map(f32::from_bits)), self.pixels::<V>(at, nearness));
        let new = nearest(&pixels, old, groups, plan, step);
        let mut moved = new.differ(old);
        if moved == 0 {
            return;
        }
        let after = new.store().map(f32::to_bits);
        self.labels[at] = after;
        let (picture, place) = (self.picture, self.picture.place(at));
        while moved != 0 {
            let lane = moved.trailing_zeros() as usize;
            moved &= moved - 1;
            if picture.holds(place, lane) {
                add(&mut self.sums[before[lane] as usize], &picture.tiles[at], place, lane, -1.0);
                add(&mut self.sums[after[lane] as usize], &picture.tiles[at], place, lane, 1.0);
            }
        }
    }

    /// Moves every centre to the mean of its pixels; one without pixels stays.
    fn update(&mut self) {
        for (centre, &[l, a, b, y, x, pixels]) in self.centres.iter_mut().zip(&self.sums) {
            if pixels > 0.0 {
                let mean = |total: f64| (total / pixels) as f32;
                *centre = Candidate { y: mean(y), x: mean(x), lab: [mean(l), mean(a), mean(b)], ..*centre };
            }
        }
        self.look();
    }

    /// The labels, row by row.
    fn flat(&self) -> Vec<u32> {
        let Tiles { width, height, across, .. } = *self.picture;
        let mut out = Vec::with_capacity(width * height);
        for y in 0..height {
            let row = &self.labels[y / SIDE * across..][..across];
            out.extend(row.iter().flat_map(|labels| &labels[y % SIDE * SIDE..][..SIDE]).take(width));
        }
        out
    }
}

/// The candidates of a square of tiles, in the order of their labels.
fn gather(centres: &[Candidate], rows: &Range<usize>, columns: &Range<usize>, groups: &mut Vec<Group>) {
    let overlap = |[from, to]: [f32; 2], tiles: &Range<usize>| {
        from < (SIDE * tiles.end) as f32 && ((SIDE * tiles.start) as f32) < to
    };
    let (mut some, mut count) = ([Candidate::NONE; LANES], 0);
    groups.clear();
    for centre in centres.iter().filter(|c| overlap(c.rows, rows) && overlap(c.columns, columns)) {
        some[count] = *centre;
        count += 1;
        if count == LANES {
            groups.push(Group::new(&some));
            count = 0;
        }
    }
    if count > 0 {
        groups.push(Group::new(&some[..count]));
    }
}

/// Labels of a tile's pixels; of equally near centres the first. A pixel that no centre reaches keeps its label.
#[inline(always)]
fn nearest<V: Lanes>(pixels: &Pixels<V>, before: V, groups: &[Group], plan: &[Worthwhile], step: usize) -> V {
    let (mut least, mut found) = (V::splat(f32::MAX), before);
    for (group, &Worthwhile { mut all, partial }) in groups.iter().zip(plan.iter().step_by(step)) {
        while all != 0 {
            let at = all.trailing_zeros() as usize;
            all &= all - 1;
            let centre = &group.members[at];
            let distance = pixels.distance(centre);
            let mut closer = distance.less(least);
            if partial >> at & 1 == 1 {
                closer = V::both(closer, pixels.inside(centre));
            }
            least = V::choose(closer, distance, least);
            found = V::choose(closer, V::splat(f32::from_bits(centre.label)), found);
        }
    }
    found
}

/// Pixels within `reach` of a centre's coordinate, inside the picture: the first, and the one after the last.
fn window(at: f32, reach: usize, size: usize) -> [f32; 2] {
    let from = (at - reach as f32).max(0.0).trunc();
    let to = (at + reach as f32 + 1.0).min(size as f32).trunc();
    [from, to]
}

/// Adds a pixel to a sum, `sign` times.
fn add(sum: &mut Sums, tile: &Tile, (top, left): (usize, usize), lane: usize, sign: f64) {
    let [l, a, b] = tile.lab.each_ref().map(|plane| f64::from(plane[lane]));
    let pixel = [l, a, b, (top + lane / SIDE) as f64, (left + lane % SIDE) as f64, 1.0];
    for (total, value) in sum.iter_mut().zip(pixel) {
        *total += sign * value;
    }
}
