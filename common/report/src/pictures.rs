//! PNGs in and out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use png::{BitDepth, ColorType, Transformations};

/// Why a picture of the gallery could not be used.
#[derive(Debug, thiserror::Error)]
#[error("picture `{picture}` of the gallery is not a usable PNG: {reason}")]
pub struct PictureError {
    /// Which picture: the sample's key, and what it shows.
    pub picture: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A map of labels, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<u8>,
}

/// An RGB image, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rgb {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<[u8; 3]>,
}

fn decode(bytes: &[u8]) -> Result<(usize, usize, ColorType, Vec<u8>), String> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(|e| e.to_string())?;
    data.truncate(frame.buffer_size());
    Ok((frame.width as usize, frame.height as usize, frame.color_type, data))
}

/// Reads an 8-bit grey PNG whose grey is the label.
pub(crate) fn labels(bytes: &[u8], picture: &str) -> Result<Labels, PictureError> {
    let refuse = |reason: String| PictureError { picture: picture.to_owned(), reason };
    let (width, height, colours, data) = decode(bytes).map_err(refuse)?;
    if colours != ColorType::Grayscale {
        return Err(refuse(format!("a label map is 8-bit grey, this is {colours:?}")));
    }
    Ok(Labels { width, height, data })
}

/// Reads a PNG as RGB.
pub(crate) fn rgb(bytes: &[u8], picture: &str) -> Result<Rgb, PictureError> {
    let refuse = |reason: String| PictureError { picture: picture.to_owned(), reason };
    let (width, height, colours, data) = decode(bytes).map_err(refuse)?;
    let data = match colours {
        ColorType::Rgb => data.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect(),
        ColorType::Rgba => data.chunks_exact(4).map(|p| [p[0], p[1], p[2]]).collect(),
        ColorType::Grayscale => data.iter().map(|g| [*g; 3]).collect(),
        ColorType::GrayscaleAlpha => data.chunks_exact(2).map(|p| [p[0]; 3]).collect(),
        other => return Err(refuse(format!("its colour type is {other:?}"))),
    };
    Ok(Rgb { width, height, data })
}

impl Labels {
    /// The label at a place of a picture of `side` by `side` pixels laid over this one.
    pub(crate) fn at(&self, x: usize, y: usize, side: usize) -> u8 {
        let (x, y) = (x * self.width / side, y * self.height / side);
        self.data[y * self.width + x]
    }

    /// Whether a region ends right of, or below, that place.
    pub(crate) fn is_edge(&self, x: usize, y: usize, side: usize) -> bool {
        let here = self.at(x, y, side);
        (x + 1 < side && self.at(x + 1, y, side) != here) || (y + 1 < side && self.at(x, y + 1, side) != here)
    }
}

impl Rgb {
    /// The colour at a place of a picture of `side` by `side` pixels laid over this one, between its pixels.
    pub(crate) fn at(&self, x: usize, y: usize, side: usize) -> [u8; 3] {
        let place = |i: usize, n: usize| {
            let f = ((i as f64 + 0.5) * n as f64 / side as f64 - 0.5).clamp(0.0, (n - 1) as f64);
            (f as usize, (f as usize + 1).min(n - 1), f.fract())
        };
        let ((x0, x1, fx), (y0, y1, fy)) = (place(x, self.width), place(y, self.height));
        let pixel = |x: usize, y: usize| self.data[y * self.width + x];
        std::array::from_fn(|c| {
            let row = |y| f64::from(pixel(x0, y)[c]) * (1.0 - fx) + f64::from(pixel(x1, y)[c]) * fx;
            (row(y0) * (1.0 - fy) + row(y1) * fy).round() as u8
        })
    }
}

/// Mixes `part` of `over` into `under`.
pub(crate) fn mix(under: [u8; 3], over: [u8; 3], part: f64) -> [u8; 3] {
    std::array::from_fn(|c| (f64::from(under[c]) * (1.0 - part) + f64::from(over[c]) * part).round() as u8)
}

/// A PNG of RGB pixels.
pub(crate) fn encode_rgb(image: &Rgb) -> Result<Vec<u8>, png::EncodingError> {
    let bytes: Vec<u8> = image.data.iter().flatten().copied().collect();
    encode(image.width, image.height, &bytes, |encoder| {
        encoder.set_color(ColorType::Rgb);
    })
}

/// A PNG of at most 256 colours with alpha: small, for layers over an image.
pub(crate) fn encode_palette(side: usize, pixels: &[u8], palette: &[[u8; 4]]) -> Result<Vec<u8>, png::EncodingError> {
    let colours: Vec<u8> = palette.iter().flat_map(|c| c[..3].to_vec()).collect();
    let alphas: Vec<u8> = palette.iter().map(|c| c[3]).collect();
    encode(side, side, pixels, |encoder| {
        encoder.set_color(ColorType::Indexed);
        encoder.set_palette(colours);
        encoder.set_trns(alphas);
    })
}

fn encode(
    width: usize,
    height: usize,
    bytes: &[u8],
    configure: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    configure(&mut encoder);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(file)
}

/// A PNG as an address that needs no network.
pub(crate) fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}
