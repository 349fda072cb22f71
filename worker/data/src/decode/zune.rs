//! JPEGs by zune-jpeg, which needs no C.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Canvas;
use crate::error::DecodeError;
use crate::simd::Level;

pub(super) const NAME: &str = "zune-jpeg-0.5";

/// It keeps nothing from one picture to the next.
#[derive(Default)]
pub(super) struct Jpeg;

fn broken(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Broken(error.to_string())
}

/// A decoder that has read the header, with width and height.
fn begun(bytes: &[u8]) -> Result<(JpegDecoder<ZCursor<&[u8]>>, u32, u32), DecodeError> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGBA)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().ok_or(DecodeError::Unknown)?;
    Ok((decoder, width as u32, height as u32))
}

impl Jpeg {
    /// Width and height by the header.
    pub(super) fn dimensions(&mut self, bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
        begun(bytes).map(|(_, width, height)| (width, height))
    }

    pub(super) fn decode(&mut self, _: Level, bytes: &[u8], canvas: &mut Canvas) -> Result<(), DecodeError> {
        let (mut decoder, width, height) = begun(bytes)?;
        let pixels = canvas.take(width, height)?;
        if decoder.input_colorspace().is_some_and(|c| matches!(c, ColorSpace::CMYK | ColorSpace::YCCK)) {
            return Err(DecodeError::Broken("CMYK goes the general way".to_owned()));
        }
        decoder.decode_into(pixels).map_err(broken)
    }
}
