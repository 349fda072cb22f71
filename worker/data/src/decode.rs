//! From an image file's bytes to RGB.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::DecodeError;

/// Most pixels that are decoded: some 8 times a 24-megapixel photograph. A header beyond is a bomb or damage.
const PIXELS_MAX: u64 = 200_000_000;

/// Last bytes of a JPEG (ITU-T T.81, B.1.1.3: EOI).
const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// An RGB picture, 8 bits a channel, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// 3 * width * height bytes.
    pub rgb: Vec<u8>,
}

/// Width and height of an image by its header, as it is shown (after EXIF rotation is *not* applied: training sees the
/// stored pixels).
///
/// # Errors
/// As [`decode`].
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let format = format(bytes)?;
    let size = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
    let (width, height) = size.map_err(|e| DecodeError::Broken(e.to_string()))?;
    within_limits(width, height)?;
    Ok((width, height))
}

/// Decodes a JPEG, PNG or WebP, told apart by content and not by name. Grey becomes RGB; transparency is dropped.
///
/// # Errors
/// When the bytes are empty, of another format, too large by their header, or broken.
pub fn decode(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let format = format(bytes)?;
    if format == ImageFormat::Jpeg
        && let Ok(picture) = jpeg(bytes)
    {
        return Ok(picture);
    }
    if format == ImageFormat::Jpeg && !bytes.windows(2).rev().any(|pair| pair == END_OF_IMAGE) {
        return Err(DecodeError::Broken("the JPEG is truncated: it has no end marker".to_owned()));
    }
    // What the fast decoder refuses (or never decodes: PNG, WebP, CMYK) goes the general way, which is lenient.
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(PIXELS_MAX * 4);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| DecodeError::Broken(e.to_string()))?;
    let (width, height) = decoder.dimensions();
    within_limits(width, height)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| DecodeError::Broken(e.to_string()))?;
    Ok(Picture { width, height, rgb: decoded.into_rgb8().into_raw() })
}

fn format(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        _ => Err(DecodeError::Unknown),
    }
}

fn within_limits(width: u32, height: u32) -> Result<(), DecodeError> {
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(DecodeError::TooLarge { width, height, max: PIXELS_MAX });
    }
    Ok(())
}

fn jpeg(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let broken = |e: zune_jpeg::errors::DecodeErrors| DecodeError::Broken(e.to_string());
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let Some((width, height)) = decoder.dimensions() else { return Err(DecodeError::Unknown) };
    let (width, height) = (width as u32, height as u32);
    within_limits(width, height)?;
    if decoder.input_colorspace().is_some_and(|c| matches!(c, ColorSpace::CMYK | ColorSpace::YCCK)) {
        return Err(DecodeError::Broken("CMYK goes the general way".to_owned()));
    }
    let rgb = decoder.decode().map_err(broken)?;
    if rgb.len() as u64 != 3 * u64::from(width) * u64::from(height) {
        return Err(DecodeError::Broken("the decoder returned another size".to_owned()));
    }
    Ok(Picture { width, height, rgb })
}
