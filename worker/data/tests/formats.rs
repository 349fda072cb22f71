//! Formats and colours that image files come in, beside what Pillow makes of the same files
//! (tests/parity/format_fixtures.py writes them).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use r2o_data::{decode, dimensions};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/formats")
}

/// Largest and mean difference of two pictures' bytes.
fn difference(ours: &[u8], theirs: &[u8]) -> (u8, f64) {
    assert_eq!(ours.len(), theirs.len());
    let apart: Vec<u8> = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: u64 = apart.iter().map(|&d| u64::from(d)).sum();
    (apart.iter().copied().max().unwrap_or(0), sum as f64 / apart.len() as f64)
}

/// Most that a file's pixels may differ: at all, and on the mean.
fn bound(name: &str) -> (u8, f64) {
    let jpeg = name.ends_with(".jpg") && name != "named-wrongly.jpg";
    match (jpeg, cfg!(feature = "turbojpeg")) {
        (false, _) => (0, 0.0),
        // The same library as Pillow's, though perhaps another release of it.
        (true, true) => (1, 0.05),
        // Another way to enlarge chroma, and with inks another way to light.
        (true, false) => (25, 1.5),
    }
}

#[test]
fn every_format_gives_pillows_pixels() {
    let mut seen = 0;
    let mut names: Vec<_> = fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| !name.ends_with(".rgb.png")) {
        let bytes = fs::read(folder().join(name)).unwrap();
        let ours = decode(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let theirs = decode(&fs::read(folder().join(format!("{name}.rgb.png"))).unwrap()).unwrap();
        assert_eq!((ours.width, ours.height), (theirs.width, theirs.height), "{name}");
        assert_eq!(dimensions(&bytes).unwrap(), (ours.width, ours.height), "{name}");
        let (most, mean) = difference(&ours.rgb, &theirs.rgb);
        println!("{name}: differs by {most} at most, {mean:.3} on the mean");
        let wanted = bound(name);
        assert!(most <= wanted.0 && mean <= wanted.1, "{name}: differs by {most}, {mean:.3} on the mean");
        seen += 1;
    }
    assert_eq!(seen, 17, "formats");
}

/// Found by fuzzing: the general decoder refuses its Huffman table. Packing would have left out what a loader decodes.
#[test]
fn what_can_be_decoded_has_dimensions() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/samples/image/odd-huffman-table.jpg");
    let bytes = fs::read(sample).unwrap();
    match decode(&bytes) {
        Ok(picture) => assert_eq!(dimensions(&bytes).unwrap(), (picture.width, picture.height)),
        Err(error) if cfg!(feature = "turbojpeg") => panic!("libjpeg-turbo reads it: {error}"),
        Err(_) => {}
    }
}

/// A PNG of one colour, made here: Pillow writes none of 16 bits in colour.
fn png(colour: png::ColorType, depth: png::BitDepth, pixel: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, 20, 10);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(&pixel.repeat(200)).unwrap();
    out
}

#[test]
fn sixteen_bits_become_the_nearest_eight() {
    use png::{BitDepth::Sixteen, ColorType};
    let colour = decode(&png(ColorType::Rgb, Sixteen, &[0x80, 0x80, 0x01, 0x00, 0xff, 0xff])).unwrap();
    assert_eq!(colour.rgb[..3], [128, 1, 255]);
    let grey = decode(&png(ColorType::Grayscale, Sixteen, &[0x40, 0x40])).unwrap();
    assert_eq!(grey.rgb[..3], [64, 64, 64]);
    let clear = decode(&png(ColorType::Rgba, Sixteen, &[0x10, 0x10, 0x20, 0x20, 0x30, 0x30, 0, 0])).unwrap();
    assert_eq!(clear.rgb[..3], [16, 32, 48]);
}

#[cfg(feature = "turbojpeg")]
#[test]
fn inks_behind_a_colour_transform_become_the_same_light() {
    // libjpeg-turbo writes CMYK as YCCK, inverted as Adobe's programs do.
    let pixel = [200_u8, 100, 50, 180];
    let image = turbojpeg::Image {
        pixels: pixel.repeat(64 * 64),
        width: 64,
        pitch: 4 * 64,
        height: 64,
        format: turbojpeg::PixelFormat::CMYK,
    };
    let bytes = turbojpeg::compress(image.as_deref(), 95, turbojpeg::Subsamp::None).unwrap();
    let picture = decode(&bytes).unwrap();
    let light = |ink: u8| (f64::from(ink) * f64::from(pixel[3]) / 255.0).round() as u8;
    let wanted = [light(200), light(100), light(50)];
    for found in picture.rgb.chunks_exact(3) {
        assert!(found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 3), "{found:?} is not {wanted:?}");
    }
}
