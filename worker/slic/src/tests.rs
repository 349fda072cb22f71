//! Beside scikit-image's label maps of the same pictures (tests/parity/slic_fixtures.py writes them).

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use super::*;

const SIDE: usize = 224;
const PHOTOS: [&str; 3] =
    ["animal_explore_farm_animals_cow", "fish_categorization_fish9", "renewable_categorization_dam1"];
/// Segments asked for, and what scikit-image finds in each photograph. Flat pictures have fewer.
const COUNTS: [(u32, [u16; 3]); 3] = [(50, [39, 15, 45]), (100, [83, 48, 93]), (200, [170, 122, 183])];
const SCENES: [&str; 4] = ["scene0", "scene1", "scene2", "scene3"];

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/slic").join(name);
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
    let mut out = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut out).unwrap();
    out
}

fn ours(name: &str) -> Vec<u16> {
    segment(&read(&format!("{name}.png")), SIDE, SIDE, &Options::default()).labels
}

fn theirs(name: &str) -> Vec<u16> {
    read(&format!("{name}.labels.png")).into_iter().map(u16::from).collect()
}

/// Share of pixels whose region, matched by greatest overlap, is the same.
fn agreement(a: &[u16], b: &[u16]) -> f64 {
    let mut overlap: HashMap<(u16, u16), usize> = HashMap::new();
    for pair in a.iter().zip(b) {
        *overlap.entry((*pair.0, *pair.1)).or_default() += 1;
    }
    let mut best: HashMap<u16, usize> = HashMap::new();
    for ((label, _), count) in overlap {
        let entry = best.entry(label).or_default();
        *entry = (*entry).max(count);
    }
    best.values().sum::<usize>() as f64 / a.len() as f64
}

fn edges(labels: &[u16]) -> Vec<bool> {
    let differs = |at: usize, other: usize| labels[at] != labels[other];
    (0..labels.len())
        .map(|at| {
            let (y, x) = (at / SIDE, at % SIDE);
            (x + 1 < SIDE && differs(at, at + 1)) || (y + 1 < SIDE && differs(at, at + SIDE))
        })
        .collect()
}

/// Share of the mask's boundary pixels that have a boundary of the regions within two pixels.
fn boundary_recall(labels: &[u16], mask: &[u16]) -> f64 {
    let (found, wanted) = (edges(labels), edges(mask));
    let near = |at: usize| {
        let (y, x) = (at / SIDE, at % SIDE);
        let span = |c: usize| c.saturating_sub(2)..(c + 3).min(SIDE);
        span(y).any(|y| span(x).any(|x| found[y * SIDE + x]))
    };
    let boundary: Vec<usize> = (0..wanted.len()).filter(|&at| wanted[at]).collect();
    boundary.iter().filter(|&&at| near(at)).count() as f64 / boundary.len() as f64
}

/// Under-segmentation error (Neubert and Protzel, 2012): what regions leak over the masks' borders, per pixel.
fn under_segmentation(labels: &[u16], mask: &[u16]) -> f64 {
    let mut sizes: HashMap<u16, usize> = HashMap::new();
    let mut parts: HashMap<(u16, u16), usize> = HashMap::new();
    for (&label, &object) in labels.iter().zip(mask) {
        *sizes.entry(label).or_default() += 1;
        *parts.entry((label, object)).or_default() += 1;
    }
    let leak: usize = parts.iter().map(|((label, _), &inside)| inside.min(sizes[label] - inside)).sum();
    leak as f64 / labels.len() as f64
}

#[test]
fn the_regions_are_scikit_images() {
    for name in PHOTOS.into_iter().chain(SCENES) {
        let share = agreement(&ours(name), &theirs(name));
        println!("{name}: {:.2} % of pixels agree", 100.0 * share);
        assert!(share >= 0.99, "{name}: {share}");
    }
}

#[test]
fn boundaries_and_leaks_are_as_good_as_scikit_images() {
    for name in SCENES {
        let mask: Vec<u16> = read(&format!("{name}.mask.png")).into_iter().map(u16::from).collect();
        let (a, b) = (ours(name), theirs(name));
        let recall = (boundary_recall(&a, &mask), boundary_recall(&b, &mask));
        let leak = (under_segmentation(&a, &mask), under_segmentation(&b, &mask));
        println!("{name}: boundary recall {recall:?}, under-segmentation error {leak:?}");
        assert!(recall.0 >= 0.98 * recall.1, "{name}: boundary recall {recall:?}");
        assert!(leak.0 <= 1.02 * leak.1, "{name}: under-segmentation error {leak:?}");
    }
}

#[test]
fn regions_are_connected_numbered_and_about_as_many_as_asked() {
    for (segments, counts) in COUNTS {
        for (name, count) in PHOTOS.into_iter().zip(counts) {
            let found = segment(&read(&format!("{name}.png")), SIDE, SIDE, &Options { segments, ..Options::default() });
            let share = f64::from(found.count) / f64::from(count);
            assert!((0.95..=1.05).contains(&share), "{name}: {} of {segments}, scikit-image {count}", found.count);
            let distinct: std::collections::BTreeSet<u16> = found.labels.iter().copied().collect();
            assert_eq!(distinct, (0..found.count).collect(), "labels are 0..count");
            let again: Vec<u32> = found.labels.iter().map(|&l| u32::from(l)).collect();
            // Enforcing connectivity again without limits finds one piece per label.
            assert_eq!(connect::enforce(&again, SIDE, SIDE, 0, SIDE * SIDE).count, found.count, "{name} at {segments}");
        }
    }
}

#[test]
fn odd_pictures_are_segmented_without_trouble() {
    assert_eq!(segment(&[], 0, 0, &Options::default()).count, 0);
    assert_eq!(segment(&[1, 2, 3], 1, 1, &Options::default()).labels, [0]);
    let flat = vec![9; 40 * 30 * 3];
    let found = segment(&flat, 40, 30, &Options::default());
    assert!(found.count > 20, "a flat picture is cut into squares, not {}", found.count);
}

/// The definition, pixel by pixel: nothing is left out, and sums are made anew in each round.
fn by_definition(task: &simd::Task<'_>) -> Vec<u32> {
    let picture = colour::lab::<[f32; tile::LANES]>(task.rgb, task.width, task.height, task.weight);
    let pixel = |y: usize, x: usize| {
        let tile = &picture.tiles[y / tile::SIDE * picture.across + x / tile::SIDE];
        tile.lab.map(|plane| plane[y % tile::SIDE * tile::SIDE + x % tile::SIDE])
    };
    let step = task.grid.step_y.max(task.grid.step_x) as f32;
    let nearness = 1.0 / (step * step);
    let reach = |at: f32, step: usize, size: usize| {
        let far = 2.0 * step as f32;
        (at - far).max(0.0) as usize..(at + far + 1.0).min(size as f32) as usize
    };
    let mut centres: Vec<_> = task.grid.centres.iter().map(|&(y, x)| (y, x, [0.0; 3])).collect();
    let mut labels = vec![0; task.width * task.height];
    for _ in 0..task.iterations {
        let mut least = vec![f32::MAX; labels.len()];
        for (label, &(cy, cx, [cl, ca, cb])) in (0..).zip(&centres) {
            for y in reach(cy, task.grid.step_y, task.height) {
                for x in reach(cx, task.grid.step_x, task.width) {
                    let ([l, a, b], at) = (pixel(y, x), y * task.width + x);
                    let (dy, dx, dl, da, db) = (cy - y as f32, cx - x as f32, l - cl, a - ca, b - cb);
                    let distance = (dy * dy + dx * dx) * nearness + (dl * dl + da * da + db * db);
                    if distance < least[at] {
                        (least[at], labels[at]) = (distance, label);
                    }
                }
            }
        }
        let mut sums = vec![[0.0; 6]; centres.len()];
        for (at, &label) in labels.iter().enumerate() {
            let (y, x) = (at / task.width, at % task.width);
            let [l, a, b] = pixel(y, x);
            for (sum, value) in sums[label as usize].iter_mut().zip([y as f32, x as f32, l, a, b, 1.0]) {
                *sum += f64::from(value);
            }
        }
        for (centre, [y, x, l, a, b, count]) in centres.iter_mut().zip(sums).filter(|(_, sums)| sums[5] > 0.0) {
            let mean = |sum: f64| (sum / count) as f32;
            *centre = (mean(y), mean(x), [mean(l), mean(a), mean(b)]);
        }
    }
    labels
}

#[test]
fn no_centre_that_is_left_out_is_the_nearest() {
    // Noise, whose tiles have all colours; a flat picture, where many centres are equally near; and a photograph.
    let noise: Vec<u8> = (0..97 * 61 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let flat = vec![9; 130 * 77 * 3];
    let photo = read(&format!("{}.png", PHOTOS[0]));
    for (rgb, width, height) in [(&noise, 97, 61), (&flat, 130, 77), (&photo, SIDE, SIDE)] {
        for segments in [40, 300] {
            let grid = grid::centres(width, height, segments);
            let task = simd::Task { rgb, width, height, weight: 0.1, grid: &grid, iterations: 5 };
            assert!(task.run() == by_definition(&task), "{width} x {height}, {segments} segments");
        }
    }
}
