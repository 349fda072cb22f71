//! The masks over training as one picture, as in the paper's Figure 5: a row per image; columns are the image, its prior
//! and the predicted masks, with the number of regions under each.

use r2o_storage::gallery::GalleryPage;

use crate::PictureError;
use crate::colours::colour;
use crate::glyphs;
use crate::masks::{EDGE, Mask, Row, choose_pages, count, rows};
use crate::pictures::{Labels, Rgb, encode_rgb, mix, rgb};

/// How the figure is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FigureOptions {
    /// Images at most.
    pub images: usize,
    /// Epochs at most, the first and the last among them.
    pub epochs: usize,
    /// Side of one tile in pixels.
    pub tile: usize,
}

impl Default for FigureOptions {
    fn default() -> Self {
        Self { images: 4, epochs: 5, tile: 144 }
    }
}

const GAP: usize = 8;
const SCALE: usize = 2;
const LINE: usize = glyphs::HEIGHT * SCALE + GAP;
const INK: [u8; 3] = [60, 60, 60];
/// How much of a mask's colour covers the image.
const COVER: f64 = 0.6;

/// Draws the figure and returns it as a PNG; `None` when the gallery has no images.
///
/// # Errors
/// When a picture of the gallery is not a PNG of the expected kind.
pub fn figure_png(pages: &[GalleryPage], options: &FigureOptions) -> Result<Option<Vec<u8>>, PictureError> {
    let chosen = choose_pages(pages, options.epochs);
    let mut rows = rows(pages, &chosen)?;
    rows.truncate(options.images);
    if rows.is_empty() {
        return Ok(None);
    }
    let side = options.tile.max(16);
    let (columns, height) = (2 + chosen.len(), LINE + rows.len() * (side + LINE) + GAP);
    let width = GAP + columns * (side + GAP);
    let mut image = Rgb { width, height, data: vec![[255; 3]; width * height] };
    let heads = ["image".to_owned(), "prior".to_owned()].into_iter();
    let heads = heads.chain(chosen.iter().map(|page| format!("epoch {} K {}", page.epoch, page.k)));
    for (column, head) in heads.enumerate() {
        centre(&mut image, &head, GAP + column * (side + GAP), GAP, side);
    }
    for (i, row) in rows.iter().enumerate() {
        draw_row(&mut image, row, LINE + GAP + i * (side + LINE), side)?;
    }
    let refuse = |e: png::EncodingError| PictureError { picture: "figure".into(), reason: e.to_string() };
    encode_rgb(&image).map(Some).map_err(refuse)
}

fn draw_row(image: &mut Rgb, row: &Row<'_>, top: usize, side: usize) -> Result<(), PictureError> {
    let raw = rgb(&row.image.raw_png, &format!("{} raw", row.image.key))?;
    let left = |column: usize| GAP + column * (side + GAP);
    let under = top + side + GAP / 2;
    paint(image, left(0), top, side, |x, y| raw.at(x, y, side));
    if let Some(prior) = &row.prior {
        paint(image, left(1), top, side, |x, y| with_edges(&raw, prior, x, y, side));
        centre(image, &count(prior).to_string(), left(1), under, side);
    }
    for (i, mask) in row.masks.iter().enumerate() {
        let Some(mask) = mask else { continue };
        paint(image, left(2 + i), top, side, |x, y| with_mask(&raw, mask, x, y, side));
        centre(image, &mask.count.to_string(), left(2 + i), under, side);
    }
    Ok(())
}

fn with_edges(raw: &Rgb, prior: &Labels, x: usize, y: usize, side: usize) -> [u8; 3] {
    if prior.is_edge(x, y, side) { [EDGE[0], EDGE[1], EDGE[2]] } else { raw.at(x, y, side) }
}

fn with_mask(raw: &Rgb, mask: &Mask, x: usize, y: usize, side: usize) -> [u8; 3] {
    let fill = mask.colours.get(&mask.labels.at(x, y, side)).map_or([0; 3], |n| colour(*n));
    let mixed = mix(raw.at(x, y, side), fill, COVER);
    if mask.labels.is_edge(x, y, side) { mixed.map(|c| c / 2) } else { mixed }
}

fn paint(image: &mut Rgb, left: usize, top: usize, side: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) {
    for y in 0..side {
        for x in 0..side {
            image.data[(top + y) * image.width + left + x] = pixel(x, y);
        }
    }
}

fn centre(image: &mut Rgb, text: &str, left: usize, top: usize, side: usize) {
    let indent = side.saturating_sub(glyphs::width(text, SCALE)) / 2;
    glyphs::write(image, text, left + indent, top, SCALE, INK);
}
