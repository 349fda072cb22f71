//! The centres to start from (skimage.util.regular_grid).

/// First centres and the distance between them.
pub(crate) struct Grid {
    /// (y, x) of each centre, row by row.
    pub(crate) centres: Vec<(f32, f32)>,
    /// Rows between centres.
    pub(crate) step_y: usize,
    /// Columns between centres.
    pub(crate) step_x: usize,
    /// Centres in a row.
    across: usize,
}

impl Grid {
    /// About the nearest centre of a pixel.
    pub(crate) fn nearest(&self, y: usize, x: usize) -> u32 {
        let row = (y / self.step_y).min(self.centres.len() / self.across - 1);
        let column = (x / self.step_x).min(self.across - 1);
        (row * self.across + column) as u32
    }
}

pub(crate) fn centres(width: usize, height: usize, segments: u32) -> Grid {
    let (short, long) = (width.min(height), width.max(height));
    let ((first_short, step_short), (first_long, step_long)) = axes(short, long, segments);
    let ((first_y, step_y), (first_x, step_x)) = if height <= width {
        ((first_short, step_short), (first_long, step_long))
    } else {
        ((first_long, step_long), (first_short, step_short))
    };
    let rows = (first_y..height).step_by(step_y);
    let centres = rows.flat_map(|y| (first_x..width).step_by(step_x).map(move |x| (y as f32, x as f32))).collect();
    Grid { centres, step_y, step_x, across: (first_x..width).step_by(step_x).len() }
}

/// (first, step) along the shorter and the longer side.
fn axes(short: usize, long: usize, segments: u32) -> ((usize, usize), (usize, usize)) {
    let segments = f64::from(segments);
    if (short * long) as f64 <= segments {
        return ((0, 1), (0, 1));
    }
    let even = ((short * long) as f64 / segments).sqrt();
    let (step_short, step_long) =
        if even <= short as f64 { (even, even) } else { (short as f64, long as f64 / segments) };
    let axis = |step: f64| ((step / 2.0).floor() as usize, (step.round_ties_even() as usize).max(1));
    (axis(step_short), axis(step_long))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_of_a_square() {
        let grid = centres(224, 224, 100);
        assert_eq!((grid.centres.len(), grid.step_y, grid.step_x), (100, 22, 22));
        assert_eq!(grid.centres[0], (11.0, 11.0));
        assert_eq!(centres(64, 64, 100).centres.len(), 121);
    }

    #[test]
    fn tiny_and_long_pictures_have_centres() {
        for (width, height) in [(1, 1), (3, 200), (200, 3), (5, 5)] {
            assert!(!centres(width, height, 100).centres.is_empty(), "{width} x {height}");
        }
    }
}
