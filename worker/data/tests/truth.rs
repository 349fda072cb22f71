//! Ground truth of a packed set.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::Path;

use r2o_data::pack::{PackOptions, pack};
use r2o_data::{Dataset, truth};

const WIDTH: u32 = 80;
const HEIGHT: u32 = 48;

fn grey(file: &Path, (width, height): (u32, u32), label: impl Fn(u32, u32) -> u8) {
    let mut encoder = png::Encoder::new(File::create(file).unwrap(), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let labels: Vec<u8> = (0..width * height).map(|i| label(i % width, i / width)).collect();
    encoder.write_header().unwrap().write_image_data(&labels).unwrap();
}

/// The right half is object 3.
fn right(x: u32, _y: u32) -> u8 {
    if x < WIDTH / 2 { 0 } else { 3 }
}

#[test]
fn objects_come_at_the_size_of_the_view_and_what_does_not_fit_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("images")).unwrap();
    fs::create_dir(path("masks")).unwrap();
    for (n, name) in ["drawn.png", "plain.png", "wrong.png"].into_iter().enumerate() {
        grey(&path("images").join(name), (WIDTH, HEIGHT), |x, y| (x * y) as u8 ^ n as u8);
    }
    grey(&path("masks").join("drawn.png"), (WIDTH, HEIGHT), right);
    grey(&path("masks").join("wrong.png"), (HEIGHT, WIDTH), right);
    let text = |name: &str| path(name).display().to_string();
    let options = PackOptions { masks: Some(text("masks")), ..PackOptions::new(text("images"), text("set")) };
    pack(&options, &()).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let set = runtime.block_on(Dataset::open(&text("set"))).unwrap();
    let found = truth(&set, &[0, 1, 2], 8).unwrap();
    // In the order of their names.
    assert_eq!(found, [Some([0, 0, 0, 0, 3, 3, 3, 3].repeat(8)), None, None]);
}
