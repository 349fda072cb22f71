//! A picture cut into small squares, whose pixels are near one another in place and mostly in colour.

use crate::iterate::Candidate;
use crate::simd::Lanes;

/// Pixels along a tile's side.
pub(crate) const SIDE: usize = 4;
/// Pixels of a tile: they stay in registers while centres pass.
pub(crate) const LANES: usize = SIDE * SIDE;

/// Rows and columns of a tile's pixels.
const DOWN: [f32; LANES] = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0];
const ACROSS: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0];

/// A tile's scaled Lab, row by row. What lies beyond the picture's edge is the nearest pixel inside once more.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tile {
    pub(crate) lab: [[f32; LANES]; 3],
    /// Least and greatest of each plane.
    bounds: [[f32; 2]; 3],
}

impl Tile {
    #[inline(always)]
    pub(crate) fn new<V: Lanes>(lab: [[f32; LANES]; 3]) -> Self {
        Self { bounds: [bounds::<V>(&lab[0]), bounds::<V>(&lab[1]), bounds::<V>(&lab[2])], lab }
    }
}

#[inline(always)]
fn bounds<V: Lanes>(values: &[f32; LANES]) -> [f32; 2] {
    let values = V::load(values);
    [values.least(), values.greatest()]
}

/// A picture's tiles, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tiles {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Tiles in a row.
    pub(crate) across: usize,
    pub(crate) tiles: Vec<Tile>,
}

impl Tiles {
    /// First row and column of a tile.
    #[inline(always)]
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        (SIDE * (at / self.across), SIDE * (at % self.across))
    }

    /// Whether a pixel of the tile at `place` is the picture's.
    #[inline(always)]
    pub(crate) fn holds(&self, (top, left): (usize, usize), lane: usize) -> bool {
        top + lane / SIDE < self.height && left + lane % SIDE < self.width
    }
}

/// Candidates side by side, for comparisons with a whole tile.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// y, x, l, a, b.
    centre: [[f32; LANES]; 5],
    rows: [[f32; LANES]; 2],
    columns: [[f32; LANES]; 2],
    pub(crate) members: [Candidate; LANES],
}

impl Group {
    /// Up to [`LANES`] candidates. Empty places are infinitely far away.
    pub(crate) fn new(candidates: &[Candidate]) -> Self {
        let members = std::array::from_fn(|i| candidates.get(i).copied().unwrap_or(Candidate::NONE));
        let of = |value: fn(&Candidate) -> f32| std::array::from_fn(|i| value(&members[i]));
        Self {
            centre: [of(|c| c.y), of(|c| c.x), of(|c| c.lab[0]), of(|c| c.lab[1]), of(|c| c.lab[2])],
            rows: [of(|c| c.rows[0]), of(|c| c.rows[1])],
            columns: [of(|c| c.columns[0]), of(|c| c.columns[1])],
            members,
        }
    }
}

/// A tile with the places of its pixels, in registers.
pub(crate) struct Pixels<V> {
    y: V,
    x: V,
    lab: [V; 3],
    nearness: V,
    /// First and last.
    rows: [f32; 2],
    columns: [f32; 2],
}

// No closures here: they would not be compiled for the processor of whoever inlines these.
impl<V: Lanes> Pixels<V> {
    /// `bottom` and `right` are the picture's last row and column.
    #[inline(always)]
    pub(crate) fn new(
        tile: &Tile,
        (top, left): (usize, usize),
        (bottom, right): (usize, usize),
        nearness: f32,
    ) -> Self {
        let (rows, columns) = (span(top, bottom), span(left, right));
        Self {
            y: V::splat(rows[0]).add(V::load(&DOWN)).min(V::splat(rows[1])),
            x: V::splat(columns[0]).add(V::load(&ACROSS)).min(V::splat(columns[1])),
            lab: [V::load(&tile.lab[0]), V::load(&tile.lab[1]), V::load(&tile.lab[2])],
            nearness: V::splat(nearness),
            rows,
            columns,
        }
    }

    /// Each pixel's distance from a centre.
    #[inline(always)]
    pub(crate) fn distance(&self, centre: &Candidate) -> V {
        let dy = V::splat(centre.y).sub(self.y);
        let dx = V::splat(centre.x).sub(self.x);
        let dl = self.lab[0].sub(V::splat(centre.lab[0]));
        let da = self.lab[1].sub(V::splat(centre.lab[1]));
        let db = self.lab[2].sub(V::splat(centre.lab[2]));
        weigh(dy.mul(dy).add(dx.mul(dx)), self.nearness, [dl, da, db])
    }

    /// The same, of those pixels that are compared with it.
    #[inline(always)]
    pub(crate) fn near(&self, centre: &Candidate) -> V {
        let covers = |[from, to]: [f32; 2], [first, last]: [f32; 2]| from <= first && last < to;
        let distance = self.distance(centre);
        if covers(centre.rows, self.rows) && covers(centre.columns, self.columns) {
            return distance;
        }
        V::choose(self.inside(centre), distance, V::splat(f32::MAX))
    }

    /// The pixels that a centre is compared with.
    #[inline(always)]
    pub(crate) fn inside(&self, centre: &Candidate) -> V::Mask {
        V::both(within(self.y, centre.rows), within(self.x, centre.columns))
    }
}

/// How far a group's members are from a row or a column of tiles.
#[derive(Clone, Copy)]
pub(crate) struct Reach<V: Lanes> {
    /// Squared.
    gap: V,
    /// The members that are compared with some of the pixels.
    touches: V::Mask,
    /// With all of them.
    covers: V::Mask,
}

impl<V: Lanes> Reach<V> {
    /// `at` and `window` are the members' coordinates and what they are compared with; `tiles` the first and the last pixel.
    #[inline(always)]
    fn new(at: &[f32; LANES], [from, to]: &[[f32; LANES]; 2], [first, last]: [f32; 2]) -> Self {
        let (gap, from, to) = (gap::<V>(at, [first, last]), V::load(from), V::load(to));
        Self {
            gap: gap.mul(gap),
            touches: V::both(from.at_most(V::splat(last)), V::splat(first).less(to)),
            covers: V::both(from.at_most(V::splat(first)), V::splat(last).less(to)),
        }
    }

    #[inline(always)]
    pub(crate) fn of_row(group: &Group, top: usize, bottom: usize) -> Self {
        Self::new(&group.centre[0], &group.rows, span(top, bottom))
    }

    #[inline(always)]
    pub(crate) fn of_column(group: &Group, left: usize, right: usize) -> Self {
        Self::new(&group.centre[1], &group.columns, span(left, right))
    }
}

/// Members of a group that a tile's pixels must be compared with, bit by bit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worthwhile {
    pub(crate) all: u16,
    /// Those whose window ends inside the tile, and others.
    pub(crate) partial: u16,
}

impl Worthwhile {
    /// The members to which a pixel of the tile can be as near as `bound`.
    ///
    /// No pixel is nearer to a centre than the box around all of them is: rounding keeps order, and both distances take the
    /// same steps, so this holds to the last bit.
    #[inline(always)]
    pub(crate) fn new<V: Lanes>(
        tile: &Tile,
        group: &Group,
        (row, column): (&Reach<V>, &Reach<V>),
        nearness: f32,
        bound: f32,
    ) -> Self {
        let [_, _, l, a, b] = &group.centre;
        let [dl, da, db] = [gap::<V>(l, tile.bounds[0]), gap::<V>(a, tile.bounds[1]), gap::<V>(b, tile.bounds[2])];
        let least = weigh(row.gap.add(column.gap), V::splat(nearness), [dl, da, db]);
        let touches = V::both(row.touches, column.touches);
        Self {
            all: V::bits(V::both(touches, least.at_most(V::splat(bound)))),
            partial: !V::bits(V::both(row.covers, column.covers)),
        }
    }
}

/// Squared distances from squares of those in place and of those in colour.
#[inline(always)]
fn weigh<V: Lanes>(place: V, nearness: V, [dl, da, db]: [V; 3]) -> V {
    place.mul(nearness).add(dl.mul(dl).add(da.mul(da)).add(db.mul(db)))
}

/// The first and the last row or column of a tile.
#[inline(always)]
fn span(first: usize, most: usize) -> [f32; 2] {
    [first as f32, (first + SIDE - 1).min(most) as f32]
}

#[inline(always)]
fn within<V: Lanes>(at: V, [from, to]: [f32; 2]) -> V::Mask {
    V::both(V::splat(from).at_most(at), at.less(V::splat(to)))
}

/// How far values lie outside a range.
#[inline(always)]
fn gap<V: Lanes>(values: &[f32; LANES], [low, high]: [f32; 2]) -> V {
    let at = V::load(values);
    V::splat(low).sub(at).max(at.sub(V::splat(high))).max(V::splat(0.0))
}
