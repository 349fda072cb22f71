//! JPEGs by libjpeg-turbo, whose pixels are those of Pillow, and usual ones by ourselves with the same pixels.

use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Image, PixelFormat};

use super::Canvas;
use super::baseline::Baseline;
use crate::bench::processor_seconds;
use crate::error::DecodeError;
use crate::simd::Level;

pub(super) const NAME: &str = "libjpeg-turbo-3";

/// Scans of a progressive JPEG at most: usual files have some ten, and each costs a pass over the picture.
const SCANS_MAX: u32 = 100;

/// Warnings after which the picture is whole, or as whole as Pillow takes it; libjpeg-turbo tells only the first. That data
/// ended too early is not among them.
const HARMLESS: [&str; 7] = [
    "Corrupt JPEG data",
    "Warning: unknown JFIF revision",
    "Unknown Adobe color transform",
    "Inconsistent progression sequence",
    "Invalid SOS parameters",
    "Application transferred too many scanlines",
    "Invalid ICC",
];

/// Our own decoder for usual JPEGs, and a decompressor that is made when the first other one comes.
#[derive(Default)]
pub(super) struct Jpeg {
    baseline: Baseline,
    decompressor: Option<Decompressor>,
}

fn broken(error: &turbojpeg::Error) -> DecodeError {
    DecodeError::Broken(error.to_string())
}

fn sides(header: &DecompressHeader) -> Result<(u32, u32), DecodeError> {
    let side = |side| u32::try_from(side).map_err(|_| DecodeError::Broken("a side beyond 65,535 pixels".to_owned()));
    Ok((side(header.width)?, side(header.height)?))
}

impl Jpeg {
    fn decompressor(&mut self) -> Result<&mut Decompressor, DecodeError> {
        Ok(match &mut self.decompressor {
            Some(decompressor) => decompressor,
            empty => {
                let mut fresh = Decompressor::new().map_err(|e| broken(&e))?;
                fresh.set_scan_limit(SCANS_MAX).map_err(|e| broken(&e))?;
                empty.insert(fresh)
            }
        })
    }

    /// Width and height by the header.
    pub(super) fn dimensions(&mut self, bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
        sides(&self.decompressor()?.read_header(bytes).map_err(|e| broken(&e))?)
    }

    pub(super) fn decode(&mut self, level: Level, bytes: &[u8], canvas: &mut Canvas) -> Result<(), DecodeError> {
        if self.baseline.decode(level, bytes, canvas)? { Ok(()) } else { self.decompress(bytes, canvas) }
    }

    fn decompress(&mut self, bytes: &[u8], canvas: &mut Canvas) -> Result<(), DecodeError> {
        let decompressor = self.decompressor()?;
        let header = decompressor.read_header(bytes).map_err(|e| broken(&e))?;
        let (width, height) = sides(&header)?;
        let pixels = canvas.take(width, height)?;
        let inks = matches!(header.colorspace, Colorspace::CMYK | Colorspace::YCCK);
        let format = if inks { PixelFormat::CMYK } else { PixelFormat::RGBX };
        let image =
            Image { pixels: &mut *pixels, width: header.width, pitch: 4 * header.width, height: header.height, format };
        if let Err(error) = decompressor.decompress(bytes, image) {
            let text = error.to_string();
            let ends = bytes.windows(2).rev().any(|pair| pair == super::END_OF_IMAGE);
            if !ends || !HARMLESS.iter().any(|warning| text.contains(warning)) {
                return Err(DecodeError::Broken(text));
            }
        }
        if inks {
            to_rgb(pixels);
        }
        Ok(())
    }
}

/// What our own decoder makes of a file, if it is a usual one, and what libjpeg-turbo makes of it: width and pixels.
pub(super) fn both_ways(level: Level, bytes: &[u8]) -> [Option<(u32, Vec<u8>)>; 2] {
    let pixels = |canvas: &Canvas| (canvas.width, canvas.pixels().to_vec());
    let (mut jpeg, mut ours, mut theirs) = (Jpeg::default(), Canvas::default(), Canvas::default());
    let usual = jpeg.baseline.decode(level, bytes, &mut ours).unwrap_or(false);
    let whole = jpeg.decompress(bytes, &mut theirs).is_ok();
    [usual.then(|| pixels(&ours)), whole.then(|| pixels(&theirs))]
}

/// Whether a file that our own decoder takes has libjpeg-turbo's pixels: for fuzzing.
#[doc(hidden)]
#[must_use]
pub fn jpeg_decoders_agree(bytes: &[u8]) -> bool {
    let [ours, theirs] = both_ways(Level::best(), bytes);
    ours.is_none_or(|ours| Some(ours) == theirs)
}

/// Seconds of processor time that our own decoder takes for some files, and that libjpeg-turbo takes for the same: for the
/// benchmark. `None`: the system does not tell.
#[doc(hidden)]
#[must_use]
pub fn jpeg_decoders_seconds(files: &[Vec<u8>]) -> Option<[f64; 2]> {
    let (mut jpeg, mut canvas, level) = (Jpeg::default(), Canvas::default(), Level::best());
    let start = processor_seconds()?;
    for file in files {
        let _usual_or_not = jpeg.baseline.decode(level, file, &mut canvas);
    }
    let between = processor_seconds()?;
    for file in files {
        let _whole_or_not = jpeg.decompress(file, &mut canvas);
    }
    Some([between - start, processor_seconds()? - between])
}

/// Inks to light as Pillow does: inks are stored inverted, as Adobe's programs write them.
fn to_rgb(pixels: &mut [u8]) {
    for pixel in pixels.chunks_exact_mut(4) {
        let black = u16::from(pixel[3]);
        for ink in &mut pixel[..3] {
            let product = u32::from(255 - *ink) * u32::from(black) + 128;
            let dark = (((product >> 8) + product) >> 8) as u16;
            *ink = black.saturating_sub(dark) as u8;
        }
    }
}
