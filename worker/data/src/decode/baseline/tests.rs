//! Pixels are libjpeg-turbo's, bit by bit, and nothing that it would not decode is decoded.

use r2o_types::Keyed;
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use crate::decode::jpeg::both_ways;
use crate::simd::Level;

fn fixtures(folder: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A picture of waves and noise.
fn made(dice: &mut Keyed, side_max: u64) -> Vec<u8> {
    let [width, height] = [1, 2].map(|_| 1 + dice.below(side_max) as usize);
    let (noise, wave) = (dice.uniform() * 128.0, dice.uniform());
    let pixels: Vec<u8> = (0..3 * width * height)
        .map(|at| (128.0 + 127.0 * (at as f64 * wave).sin() + noise * (dice.uniform() - 0.5)).clamp(0.0, 255.0) as u8)
        .collect();
    let mut compressor = Compressor::new().unwrap();
    let subsamp = [Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2, Subsamp::Gray][dice.below(4) as usize];
    compressor.set_subsamp(subsamp).unwrap();
    compressor.set_quality(1 + dice.below(100) as i32).unwrap();
    compressor.set_optimize(dice.below(2) == 0).unwrap();
    let image = Image { pixels: &pixels[..], width, pitch: 3 * width, height, format: PixelFormat::RGB };
    compressor.compress_to_vec(image).unwrap()
}

#[test]
fn photographs_have_the_pixels_of_libjpeg_turbo_on_every_processor() {
    let (photos, mut usual) = (fixtures("photos"), 0);
    for photo in &photos {
        for level in Level::all() {
            let [ours, theirs] = both_ways(level, photo);
            usual += usize::from(ours.is_some());
            assert!(ours.is_none_or(|ours| Some(ours) == theirs), "{level:?}");
        }
    }
    let levels = Level::all().count();
    assert!(usual > photos.len() * levels * 9 / 10, "{usual} of {} times {levels}", photos.len());
}

#[test]
fn pictures_of_all_samplings_sizes_and_qualities_have_the_pixels_of_libjpeg_turbo() {
    let mut dice = Keyed::new("jpegs", &[]);
    let mut usual = 0;
    for number in 0..600 {
        let jpeg = made(&mut dice, if number % 10 == 0 { 700 } else { 70 });
        let [ours, theirs] = both_ways(Level::best(), &jpeg);
        usual += usize::from(ours.is_some());
        assert!(ours.is_none_or(|ours| Some(ours) == theirs), "picture {number}");
    }
    assert!(usual > 500, "{usual} of 600");
}

#[test]
fn unusual_pictures_are_left_to_others() {
    let usual = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/formats").join(name);
        let [ours, theirs] = both_ways(Level::best(), &std::fs::read(path).unwrap());
        assert!(ours.is_none() || ours == theirs, "{name}");
        ours.is_some()
    };
    assert!(
        ["baseline.jpg", "full-chroma.jpg", "grey.jpg", "restarts.jpg", "turned.jpg"].iter().all(|name| usual(name))
    );
    assert!(!["progressive.jpg", "cmyk.jpg", "named-wrongly.jpg"].iter().any(|name| usual(name)));
}

#[test]
fn what_damage_leaves_is_decoded_alike_or_by_others() {
    let mut dice = Keyed::new("damaged", &[]);
    let restarts = fixtures("formats").into_iter().filter(|jpeg| jpeg.windows(2).any(|pair| pair == [0xff, 0xd3]));
    let mut whole: Vec<Vec<u8>> = restarts.collect();
    assert!(!whole.is_empty());
    whole.extend((0..12).map(|_| made(&mut dice, 60)));
    let mut usual = 0;
    for number in 0..6000 {
        let mut jpeg = whole[number % whole.len()].clone();
        for _ in 0..=dice.below(3) {
            let at = dice.below(jpeg.len() as u64) as usize;
            match dice.below(8) {
                0 => jpeg.truncate(at + 1),
                1 => jpeg[at] = dice.below(256) as u8,
                // A restart marker where there is none.
                2 => drop(jpeg.splice(at..at, [0xff, 0xd0])),
                _ => jpeg[at] ^= 1 << dice.below(8),
            }
        }
        let [ours, theirs] = both_ways(Level::best(), &jpeg);
        usual += usize::from(ours.is_some());
        assert!(ours.is_none_or(|ours| Some(ours) == theirs), "damage {number}");
    }
    println!("{usual} of 6000 decoded");
    assert!(usual > 300, "{usual} of 6000");
}
