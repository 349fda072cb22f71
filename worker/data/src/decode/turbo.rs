//! JPEGs by libjpeg-turbo, whose pixels are those of Pillow.

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use super::Canvas;
use crate::error::DecodeError;

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

/// A decompressor, made when the first JPEG comes.
#[derive(Default)]
pub(super) struct Jpeg {
    decompressor: Option<Decompressor>,
}

fn broken(error: &turbojpeg::Error) -> DecodeError {
    DecodeError::Broken(error.to_string())
}

impl Jpeg {
    pub(super) fn decode(&mut self, bytes: &[u8], canvas: &mut Canvas) -> Result<(), DecodeError> {
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            empty => {
                let mut fresh = Decompressor::new().map_err(|e| broken(&e))?;
                fresh.set_scan_limit(SCANS_MAX).map_err(|e| broken(&e))?;
                empty.insert(fresh)
            }
        };
        let header = decompressor.read_header(bytes).map_err(|e| broken(&e))?;
        let large = || DecodeError::Broken("a side beyond 65,535 pixels".to_owned());
        let width = u32::try_from(header.width).map_err(|_| large())?;
        let height = u32::try_from(header.height).map_err(|_| large())?;
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
