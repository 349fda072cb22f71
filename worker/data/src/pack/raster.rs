//! Masks as COCO keeps them (polygons, run lengths, compressed run lengths), pixel for pixel as pycocotools draws them.
//!
//! Source: cocoapi, common/maskApi.c (rleFrPoly, rleFrString).

/// Coordinates beyond are no part of any image.
const FAR: f64 = 1e6;
/// Points of an outline at most, in fifths of a pixel: a thousand times what the largest images need.
const OUTLINE_MAX: u64 = 50_000_000;
/// pycocotools draws outlines on a grid that is so many times as fine.
const FINE: f64 = 5.0;

/// A mask's pixels, column by column: how many are outside, how many then inside, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Runs(pub(super) Vec<u32>);

impl Runs {
    /// The inside of a polygon, x and y by turns. One of fewer than three points has none.
    pub(super) fn of_polygon(xy: &[f64], width: u32, height: u32) -> Result<Self, String> {
        if xy.iter().any(|v| !v.is_finite() || v.abs() > FAR) {
            return Err(format!("a polygon has coordinates beyond {FAR}"));
        }
        let points: Vec<[i32; 2]> = xy.chunks_exact(2).map(|p| [fine(p[0]), fine(p[1])]).collect();
        if points.len() < 3 {
            return Ok(Self(vec![width * height]));
        }
        let outline = outline(&points)?;
        let mut crossings = crossings(&outline, width, height);
        crossings.push(width * height);
        crossings.sort_unstable();
        Ok(Self(lengths(crossings)))
    }

    /// Run lengths in COCO's text: six bits a character, and from the third on the difference to the last but one.
    pub(super) fn of_text(text: &str) -> Result<Self, String> {
        let mut runs: Vec<u32> = Vec::new();
        let mut bytes = text.bytes();
        while let Some(first) = bytes.next() {
            let (mut value, mut shift, mut next) = (0_i64, 0_u32, Some(first));
            loop {
                let wrong = || format!("`{text}` is no text of run lengths");
                let bits = next.and_then(|b| b.checked_sub(48)).filter(|b| *b < 64).ok_or_else(wrong)?;
                if shift > 30 {
                    return Err(wrong());
                }
                value |= i64::from(bits & 0x1f) << shift;
                shift += 5;
                if bits & 0x20 == 0 {
                    value |= if bits & 0x10 == 0 { 0 } else { -1 << shift };
                    break;
                }
                next = bytes.next();
            }
            if let Some(before) = runs.len().checked_sub(2).filter(|_| runs.len() > 2) {
                value += i64::from(runs[before]);
            }
            runs.push(u32::try_from(value).map_err(|_| format!("`{text}` has a run of {value} pixels"))?);
        }
        Ok(Self(runs))
    }

    /// Pixels inside.
    pub(super) fn area(&self) -> u64 {
        self.0.iter().skip(1).step_by(2).map(|&run| u64::from(run)).sum()
    }

    /// Gives the pixels inside a value. `map` has `width` pixels a row.
    pub(super) fn paint(&self, map: &mut [u8], width: u32, value: u8) -> Result<(), String> {
        let width = width as usize;
        let (height, all) = (map.len() / width.max(1), map.len() as u64);
        let mut start = 0_u64;
        for (number, &run) in self.0.iter().enumerate() {
            let end = start + u64::from(run);
            if end > all {
                return Err(format!("its runs are longer than the image of {all} pixels"));
            }
            if number % 2 == 1 {
                (start as usize..end as usize).for_each(|at| map[at % height * width + at / height] = value);
            }
            start = end;
        }
        Ok(())
    }
}

fn fine(v: f64) -> i32 {
    (FINE * v + 0.5) as i32
}

/// All points of the closed outline on the fine grid.
fn outline(points: &[[i32; 2]]) -> Result<Vec<[i32; 2]>, String> {
    let sides = || points.iter().zip(points.iter().cycle().skip(1));
    let longer = |(a, b): (&[i32; 2], &[i32; 2])| u64::from(a[0].abs_diff(b[0]).max(a[1].abs_diff(b[1]))) + 1;
    if sides().map(longer).sum::<u64>() > OUTLINE_MAX {
        return Err("a polygon's outline is too long".to_owned());
    }
    let mut outline = Vec::new();
    for (&from, &to) in sides() {
        let (dx, dy) = ((to[0] - from[0]).abs(), (to[1] - from[1]).abs());
        // Along the longer axis, always forwards, so that a side has the same points from both ends.
        let long = usize::from(dx < dy);
        let flip = from[long] > to[long];
        let (start, end) = if flip { (to, from) } else { (from, to) };
        let steps = dx.max(dy);
        let slope = f64::from(end[1 - long] - start[1 - long]) / f64::from(steps);
        for step in 0..=steps {
            let t = if flip { steps - step } else { step };
            let mut point = start;
            point[long] += t;
            point[1 - long] = (f64::from(start[1 - long]) + slope * f64::from(t) + 0.5) as i32;
            outline.push(point);
        }
    }
    Ok(outline)
}

/// Where the outline crosses the middles of columns, as places in the image column by column.
fn crossings(outline: &[[i32; 2]], width: u32, height: u32) -> Vec<u32> {
    let mut crossings = Vec::new();
    for pair in outline.windows(2) {
        let ([before_x, before_y], [x, y]) = (pair[0], pair[1]);
        if x == before_x {
            continue;
        }
        let column = (f64::from(if x < before_x { x } else { x - 1 }) + 0.5) / FINE - 0.5;
        if column.floor() != column || column < 0.0 || column > f64::from(width) - 1.0 {
            continue;
        }
        let row = ((f64::from(y.min(before_y)) + 0.5) / FINE - 0.5).clamp(0.0, f64::from(height)).ceil();
        crossings.push(column as u32 * height + row as u32);
    }
    crossings
}

/// Sorted places at which inside and outside change, as lengths of runs; two at one place undo each other.
fn lengths(crossings: Vec<u32>) -> Vec<u32> {
    let mut before = 0;
    let differences: Vec<u32> = crossings.into_iter().map(|at| at - std::mem::replace(&mut before, at)).collect();
    let mut runs = vec![differences[0]];
    let mut rest = differences[1..].iter();
    while let Some(&run) = rest.next() {
        match (run, runs.last_mut()) {
            (0, Some(last)) => *last += rest.next().copied().unwrap_or(0),
            _ => runs.push(run),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        height: u32,
        width: u32,
        polygons: Vec<Vec<f64>>,
        compressed: String,
        counts: Vec<u32>,
        pixels: String,
    }

    fn cases() -> Vec<Case> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pack/masks.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn painted(case: &Case, runs: &[Runs]) -> String {
        let mut map = vec![0; (case.width * case.height) as usize];
        runs.iter().for_each(|runs| runs.paint(&mut map, case.width, 1).unwrap());
        map.iter().map(|pixel| pixel.to_string()).collect()
    }

    #[test]
    fn polygons_are_drawn_as_by_pycocotools() {
        let cases = cases();
        for (number, case) in cases.iter().enumerate() {
            let draw = |xy: &Vec<f64>| Runs::of_polygon(xy, case.width, case.height).unwrap();
            let runs: Vec<Runs> = case.polygons.iter().map(draw).collect();
            assert_eq!(painted(case, &runs), case.pixels, "case {number}: {:?}", case.polygons);
        }
        assert_eq!(cases.len(), 60);
        assert!(cases.iter().filter(|case| case.pixels.contains('1')).count() > 50);
    }

    #[test]
    fn run_lengths_are_read_as_by_pycocotools() {
        for case in cases() {
            let runs = Runs::of_text(&case.compressed).unwrap();
            assert_eq!(painted(&case, std::slice::from_ref(&runs)), case.pixels, "{}", case.compressed);
            assert_eq!(painted(&case, &[Runs(case.counts.clone())]), case.pixels);
            assert_eq!(runs.area() as usize, case.pixels.matches('1').count());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Runs::of_polygon(&[0.0, 0.0, 1e9, 0.0, 1.0, 1.0], 9, 9).is_err());
        assert!(Runs::of_polygon(&[0.0, f64::NAN, 1.0, 0.0, 1.0, 1.0], 9, 9).is_err());
        let zigzag: Vec<f64> = (0..1000).flat_map(|n| [f64::from(n % 2) * 9e5, 0.0]).collect();
        assert!(Runs::of_polygon(&zigzag, 9, 9).is_err());
        assert_eq!(Runs::of_polygon(&[1.0, 1.0, 5.0, 5.0], 9, 9).unwrap().area(), 0);
        for text in ["\u{1}", "oooooooooo", "é", "o"] {
            assert!(Runs::of_text(text).is_err(), "{text}");
        }
        assert!(Runs(vec![5, 77]).paint(&mut [0; 81], 9, 1).is_err());
        assert!(Runs(vec![u32::MAX, u32::MAX]).paint(&mut [0; 81], 9, 1).is_err());
    }
}
