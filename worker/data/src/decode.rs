//! From an image file's bytes to pixels.
//!
//! JPEGs are decoded by libjpeg-turbo (feature `turbojpeg`, the default) or by zune-jpeg, which needs no C; the two differ by
//! a few levels. Other formats, and what those refuse, go through the `image` crate. Nothing is allocated for an image before
//! the size that its header declares is known to be within limits.

use std::io::Cursor;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::error::DecodeError;
use crate::simd::Level;

#[cfg(feature = "turbojpeg")]
mod baseline;
#[cfg(feature = "turbojpeg")]
#[path = "decode/turbo.rs"]
mod jpeg;
#[cfg(not(feature = "turbojpeg"))]
#[path = "decode/zune.rs"]
mod jpeg;

#[cfg(feature = "turbojpeg")]
#[doc(hidden)]
pub use jpeg::{jpeg_decoders_agree, jpeg_decoders_seconds};

/// The JPEG decoder of this build. Another one gives other pixels, so label maps name it.
pub const DECODER: &str = jpeg::NAME;

/// Most pixels that are decoded: above the largest photograph of the usual sets. A header beyond is a bomb or damage.
pub const PIXELS_MAX: u64 = 100_000_000;

/// Most bytes of an image file that are looked at.
pub const FILE_MAX: u64 = 128 << 20;

/// Above so many pixels one image is decoded at a time, so that memory does not grow with the number of threads.
const PIXELS_LARGE: u64 = 16_000_000;

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

/// Width and height of an image by its header (EXIF rotation is *not* applied: training sees the stored pixels).
///
/// # Errors
/// As [`decode`].
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let format = format(bytes)?;
    // Of whoever will decode it: what one reads of an odd header, another refuses.
    let fast = (format == ImageFormat::Jpeg).then(|| jpeg::Jpeg::default().dimensions(bytes));
    let (width, height) = match fast {
        Some(Ok(size)) => size,
        _ => {
            let size = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
            size.map_err(|e| DecodeError::Broken(e.to_string()))?
        }
    };
    within_limits(width, height)?;
    Ok((width, height))
}

/// Decodes a JPEG, PNG or WebP, told apart by content and not by name. Grey, palettes and CMYK become RGB, 16 bits become 8,
/// transparency is dropped, EXIF rotation is not applied.
///
/// # Errors
/// When the bytes are empty, of another format, too large by their header, or broken.
pub fn decode(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let mut decoder = Decoder::new();
    let canvas = decoder.decode(bytes)?;
    let rgb = canvas.pixels().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    Ok(Picture { width: canvas.width, height: canvas.height, rgb })
}

/// Decoded pixels, four bytes each: red, green, blue and one without meaning.
#[derive(Debug, Default)]
pub(crate) struct Canvas {
    pub(crate) width: u32,
    pub(crate) height: u32,
    bytes: Vec<u8>,
    /// Held while the canvas is large.
    permit: Option<MutexGuard<'static, ()>>,
}

/// Bytes beyond the last pixel, so that readers of whole registers stay inside.
pub(crate) const MARGIN: usize = 64;

impl Canvas {
    /// Room for a picture within limits; what it holds has no meaning yet.
    fn take(&mut self, width: u32, height: u32) -> Result<&mut [u8], DecodeError> {
        within_limits(width, height)?;
        static LARGE: Mutex<()> = Mutex::new(());
        self.rest();
        if u64::from(width) * u64::from(height) > PIXELS_LARGE {
            self.permit = Some(LARGE.lock().unwrap_or_else(PoisonError::into_inner));
        }
        (self.width, self.height) = (width, height);
        let length = 4 * width as usize * height as usize;
        self.bytes.resize(length + MARGIN, 0);
        Ok(&mut self.bytes[..length])
    }

    /// Gives the memory of a large picture back.
    fn rest(&mut self) {
        if self.permit.is_some() {
            self.bytes = Vec::new();
            (self.width, self.height) = (0, 0);
            self.permit = None;
        }
    }

    /// 4 * width * height bytes.
    pub(crate) fn pixels(&self) -> &[u8] {
        &self.bytes[..self.bytes.len().saturating_sub(MARGIN)]
    }

    /// The pixels, and [`MARGIN`] bytes more.
    pub(crate) fn with_margin(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(test)]
    pub(crate) fn filled(width: u32, height: u32, mut colour: impl FnMut(u32, u32) -> [u8; 3]) -> Self {
        let mut canvas = Self::default();
        let pixels = canvas.take(width, height).unwrap();
        for (at, pixel) in (0_u32..).zip(pixels.chunks_exact_mut(4)) {
            pixel[..3].copy_from_slice(&colour(at % width, at / width));
        }
        canvas
    }
}

/// A decoder with its buffers, one per thread.
pub(crate) struct Decoder {
    level: Level,
    jpeg: jpeg::Jpeg,
    canvas: Canvas,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self::with_level(Level::best())
    }

    pub(crate) fn with_level(level: Level) -> Self {
        Self { level, jpeg: jpeg::Jpeg::default(), canvas: Canvas::default() }
    }

    /// As [`decode`]; the pixels stay until the next call.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<&Canvas, DecodeError> {
        let format = format(bytes)?;
        if format == ImageFormat::Jpeg {
            match self.jpeg.decode(self.level, bytes, &mut self.canvas) {
                Ok(()) => return Ok(&self.canvas),
                Err(error @ DecodeError::TooLarge { .. }) => return Err(error),
                Err(_) if !bytes.windows(2).rev().any(|pair| pair == END_OF_IMAGE) => {
                    return Err(DecodeError::Broken("the JPEG is truncated: it has no end marker".to_owned()));
                }
                Err(_) => {}
            }
        }
        // What the fast decoder refuses (or never decodes: PNG, WebP) goes the general way, which is lenient.
        general(bytes, format, &mut self.canvas)?;
        Ok(&self.canvas)
    }

    /// The picture that was decoded last.
    pub(crate) fn canvas(&self) -> &Canvas {
        &self.canvas
    }

    /// Gives the memory of a large picture back.
    pub(crate) fn rest(&mut self) {
        self.canvas.rest();
    }
}

fn general(bytes: &[u8], format: ImageFormat, canvas: &mut Canvas) -> Result<(), DecodeError> {
    let broken = |e: image::ImageError| DecodeError::Broken(e.to_string());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(PIXELS_MAX * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    // Before the decoder gets its memory: the permit covers both.
    canvas.take(width, height)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(broken)?.into_rgb8();
    let target = canvas.bytes.chunks_exact_mut(4);
    for (target, pixel) in target.zip(decoded.as_raw().chunks_exact(3)) {
        target[..3].copy_from_slice(pixel);
    }
    Ok(())
}

fn format(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() as u64 > FILE_MAX {
        return Err(DecodeError::TooLong { bytes: bytes.len() as u64, max: FILE_MAX });
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        _ => Err(DecodeError::Unknown),
    }
}

fn within_limits(width: u32, height: u32) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::Broken(format!("the header says {width} x {height} pixels")));
    }
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(DecodeError::TooLarge { width, height, max: PIXELS_MAX });
    }
    Ok(())
}
