//! Recipes are functions of their keys with the method's chances; pixels are those that were recorded.

use r2o_types::pixels::{DEVIATION, MEAN};

use super::*;

#[test]
fn a_recipe_is_a_function_of_its_key() {
    let draw = |epoch, sample, view| Recipe::draw(1, epoch, sample, view, 300, 200);
    assert_eq!(draw(2, 3, View::First), draw(2, 3, View::First));
    assert_ne!(draw(2, 3, View::First), draw(2, 3, View::Second));
    assert_ne!(draw(2, 3, View::First), draw(2, 4, View::First));
    assert_ne!(draw(2, 3, View::First), draw(3, 3, View::First));
}

#[test]
fn chances_are_those_of_the_method() {
    let recipes = |view| (0..4000).map(move |sample| Recipe::draw(0, 0, sample, view, 300, 200));
    let share = |view, holds: fn(&Recipe) -> bool| recipes(view).filter(holds).count() as f64 / 4000.0;
    let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 0.03, "{found} is not {wanted}");
    close(share(View::First, |r| r.flip), 0.5);
    close(share(View::First, |r| r.look.jitter.is_some()), 0.8);
    close(share(View::First, |r| r.look.grey), 0.2);
    close(share(View::First, |r| r.look.blur.is_some()), 1.0);
    close(share(View::First, |r| r.look.solarise), 0.0);
    close(share(View::Second, |r| r.look.blur.is_some()), 0.1);
    close(share(View::Second, |r| r.look.solarise), 0.2);
}

#[test]
fn the_corners_are_the_crop_in_the_unit_square() {
    for sample in 0..500 {
        let recipe = Recipe::draw(0, 0, sample, View::First, 320, 180);
        let [y0, x0, y1, x1] = recipe.corners;
        assert!(0.0 <= y0 && y0 < y1 && y1 <= 1.0 && 0.0 <= x0 && x0 < x1 && x1 <= 1.0, "{:?}", recipe.corners);
    }
}

const SIDE: u32 = 64;

fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn studio_with(name: &str, level: Level) -> Studio {
    let mut studio = Studio::with_level(level);
    studio.decoder.decode(&std::fs::read(fixture(name)).unwrap()).unwrap();
    studio
}

/// The look's picture of torchvision's crop, as bytes' values (0 to 255), pixel by pixel.
fn looked(look: Look) -> Vec<f32> {
    let mut studio = studio_with("augment/enlarged.png", Level::best());
    let crop = Crop::whole(studio.decoder.canvas());
    painted(&mut studio, &Recipe { crop, corners: [0.0; 4], flip: false, look })
}

fn painted(studio: &mut Studio, recipe: &Recipe) -> Vec<f32> {
    let pixels = (SIDE * SIDE) as usize;
    let mut planes = vec![0.0; 3 * pixels];
    let mut easel = studio.easel();
    easel.resize(recipe.crop, recipe.flip, SIDE);
    easel.paint(recipe, SIDE, &mut Sheet::Float32(&mut planes));
    let value =
        |at: usize, channel: usize| 255.0 * (planes[channel * pixels + at] * DEVIATION[channel] + MEAN[channel]);
    (0..pixels)
        .flat_map(|at| (0..3).map(move |channel| (at, channel)))
        .map(|(at, channel)| value(at, channel))
        .collect()
}

/// Holds the mean and the largest difference from torchvision's picture, in levels of 255, below the bounds.
fn assert_twin(name: &str, ours: &[f32], mean_most: f32, most: f32) {
    let theirs = crate::decode(&std::fs::read(fixture("augment").join(format!("{name}.png"))).unwrap()).unwrap();
    let apart: Vec<f32> = ours.iter().zip(&theirs.rgb).map(|(a, &b)| (a - f32::from(b)).abs()).collect();
    let mean = apart.iter().sum::<f32>() / apart.len() as f32;
    let largest = apart.iter().fold(0.0_f32, |a, &b| a.max(b));
    println!("{name}: {mean:.3} on the mean, {largest:.2} at most");
    assert!(mean <= mean_most && largest <= most, "{name}: {mean:.3} on the mean, {largest:.2} at most");
}

#[test]
fn each_operation_is_its_torchvision_twins() {
    use colour::Operation::{Brightness, Contrast, Hue, Saturation};
    let plain = Look::default();
    let jitter = |brightness, contrast, saturation, hue| {
        let order = [Brightness, Contrast, Saturation, Hue];
        Look { jitter: Some(Jitter { order, brightness, contrast, saturation, hue }), ..plain }
    };
    // Pillow rounds and clips to bytes after each pass of a resize, which shows most where a sharp edge overshoots.
    let mut studio = studio_with("formats/plain.png", Level::best());
    let crop = Crop { left: 10, top: 5, width: 40, height: 30 };
    for (name, flip) in [("enlarged", false), ("mirrored", true)] {
        let recipe = Recipe { crop, corners: [0.0; 4], flip, look: plain };
        assert_twin(name, &painted(&mut studio, &recipe), 0.4, 6.0);
    }
    let mut studio = studio_with("photos/animal_explore_farm_animals_cow.jpg", Level::best());
    let crop = Crop::whole(studio.decoder.canvas());
    let recipe = Recipe { crop, corners: [0.0; 4], flip: false, look: plain };
    let bound = if cfg!(feature = "turbojpeg") { (0.4, 6.0) } else { (1.0, 12.0) };
    assert_twin("reduced", &painted(&mut studio, &recipe), bound.0, bound.1);

    // Pillow cuts brightness, contrast and saturation down to whole levels, and rounds greys.
    assert_twin("brightness", &looked(jitter(1.3, 1.0, 1.0, 0.0)), 0.6, 1.01);
    assert_twin("contrast", &looked(jitter(1.0, 0.7, 1.0, 0.0)), 0.7, 1.5);
    assert_twin("saturation", &looked(jitter(1.0, 1.0, 1.2, 0.0)), 0.6, 1.5);
    // It turns hues in 255 steps of a circle.
    assert_twin("hue", &looked(jitter(1.0, 1.0, 1.0, 0.08)), 0.5, 4.0);
    assert_twin("grey", &looked(Look { grey: true, ..plain }), 0.5, 1.01);
    assert_twin("blur", &looked(Look { blur: Some(1.5), ..plain }), 0.5, 1.01);
    assert_twin("solarise", &looked(Look { solarise: true, ..plain }), 0.01, 0.01);
}

/// XXH3 of a view's bits, which depend on (seed, epoch, sample, view) and on nothing else: not on the processor, and not on a
/// release of this program. Another hash means that runs that go on from a checkpoint train on other pixels.
#[test]
fn pixels_are_those_that_were_recorded() {
    const GOLDEN: [(u64, u64, u64, View, u64); 4] = [
        (0, 0, 0, View::First, 0x2d93_ec38_5775_c84e),
        (0, 0, 0, View::Second, 0xfeeb_2e4d_8daf_d327),
        (7, 3, 1_000_000, View::First, 0xe87d_f965_54d2_c8d4),
        (7, 3, 1_000_001, View::Second, 0x390e_eb70_8cb4_14e4),
    ];
    for level in Level::all() {
        // Lossless, so that all decoders give the same.
        let mut studio = studio_with("formats/plain.png", level);
        let found = GOLDEN.map(|(seed, epoch, sample, view, _)| {
            let recipe = Recipe::draw(seed, epoch, sample, view, 67, 51);
            let mut planes = vec![0.0; 3 * (SIDE * SIDE) as usize];
            let mut easel = studio.easel();
            easel.resize(recipe.crop, recipe.flip, SIDE);
            easel.paint(&recipe, SIDE, &mut Sheet::Float32(&mut planes));
            let bytes: Vec<u8> = planes.iter().flat_map(|value| value.to_le_bytes()).collect();
            xxhash_rust::xxh3::xxh3_64(&bytes)
        });
        assert_eq!(
            found.map(|hash| format!("{hash:#x}")),
            GOLDEN.map(|golden| format!("{:#x}", golden.4)),
            "{level:?}"
        );
    }
}
