//! Assignment of pixels to centres and update of centres.

use crate::colour::Planes;
use crate::grid::Grid;

/// A centre: place in pixels and scaled Lab.
#[derive(Debug, Clone, Copy)]
struct Centre {
    y: f32,
    x: f32,
    lab: [f32; 3],
}

/// Sums over a centre's pixels. Float64, so that their order does not show in float32.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    lab: [f64; 3],
    y: f64,
    x: f64,
    pixels: f64,
}

/// Labels by nearest centre after so many rounds. Inlined into each processor's version.
#[inline(always)]
pub(crate) fn assign(image: &Planes, width: usize, height: usize, grid: &Grid, iterations: u32) -> Vec<u32> {
    let mut centres: Vec<Centre> = grid.centres.iter().map(|&(y, x)| Centre { y, x, lab: [0.0; 3] }).collect();
    let step = grid.step_y.max(grid.step_x) as f32;
    let nearness = 1.0 / (step * step);
    let mut labels = vec![0_u32; width * height];
    let mut distances = vec![0.0_f32; width * height];
    let columns: Vec<f32> = (0..width).map(|x| x as f32).collect();
    for _ in 0..iterations {
        distances.fill(f32::MAX);
        for (label, centre) in centres.iter().enumerate() {
            let rows = window(centre.y, 2 * grid.step_y, height);
            let span = window(centre.x, 2 * grid.step_x, width);
            for y in rows {
                let dy = centre.y - y as f32;
                let line = y * width + span.start..y * width + span.end;
                nearer(
                    Row {
                        l: &image.l[line.clone()],
                        a: &image.a[line.clone()],
                        b: &image.b[line.clone()],
                        x: &columns[span.clone()],
                    },
                    centre,
                    dy * dy,
                    nearness,
                    label as u32,
                    &mut distances[line.clone()],
                    &mut labels[line],
                );
            }
        }
        update(image, width, &labels, &mut centres);
    }
    labels
}

/// Pixels within `reach` of a centre's coordinate, inside the picture.
fn window(at: f32, reach: usize, size: usize) -> std::ops::Range<usize> {
    let from = (at - reach as f32).max(0.0) as usize;
    let to = (at + reach as f32 + 1.0).min(size as f32) as usize;
    from..to.max(from)
}

#[derive(Clone, Copy)]
struct Row<'a> {
    l: &'a [f32],
    a: &'a [f32],
    b: &'a [f32],
    x: &'a [f32],
}

/// Takes over the pixels of a row that are nearer to `centre` than to any centre before.
#[inline(always)]
fn nearer(
    row: Row<'_>,
    centre: &Centre,
    dy2: f32,
    nearness: f32,
    label: u32,
    distances: &mut [f32],
    labels: &mut [u32],
) {
    let n = distances.len();
    let (l, a, b, x, labels) = (&row.l[..n], &row.a[..n], &row.b[..n], &row.x[..n], &mut labels[..n]);
    let [cl, ca, cb] = centre.lab;
    for i in 0..n {
        let dx = centre.x - x[i];
        let (dl, da, db) = (l[i] - cl, a[i] - ca, b[i] - cb);
        let distance = (dy2 + dx * dx) * nearness + (dl * dl + da * da + db * db);
        let closer = distance < distances[i];
        distances[i] = if closer { distance } else { distances[i] };
        labels[i] = if closer { label } else { labels[i] };
    }
}

/// Moves every centre to the mean of its pixels; one without pixels stays. Runs of equal labels are summed first.
#[inline(always)]
fn update(image: &Planes, width: usize, labels: &[u32], centres: &mut [Centre]) {
    let mut sums = vec![Sums::default(); centres.len()];
    for (y, row) in labels.chunks_exact(width).enumerate() {
        let mut from = 0;
        while from < width {
            let label = row[from];
            let length = row[from..].iter().take_while(|&&other| other == label).count();
            let run = y * width + from..y * width + from + length;
            let sum = &mut sums[label as usize];
            for (total, plane) in sum.lab.iter_mut().zip([&image.l, &image.a, &image.b]) {
                *total += f64::from(plane[run.clone()].iter().sum::<f32>());
            }
            sum.pixels += length as f64;
            sum.y += (y * length) as f64;
            sum.x += (length * from + length * (length - 1) / 2) as f64;
            from += length;
        }
    }
    for (centre, sum) in centres.iter_mut().zip(&sums).filter(|(_, sum)| sum.pixels > 0.0) {
        *centre = Centre {
            y: (sum.y / sum.pixels) as f32,
            x: (sum.x / sum.pixels) as f32,
            lab: sum.lab.map(|total| (total / sum.pixels) as f32),
        };
    }
}
