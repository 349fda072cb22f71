//! The gallery as PNGs of their own, for pages that show it while it grows.

use r2o_storage::gallery::GalleryPage;

use crate::PictureError;
use crate::masks::{count, mask_layer, prior_layer, rows};

/// One image and its masks.
#[derive(Debug, Clone)]
pub struct Tiles {
    /// The sample's key.
    pub key: String,
    /// The raw view, a PNG.
    pub raw: Vec<u8>,
    /// The edges of the prior's regions, a PNG to lay over the raw view, and how many regions there are.
    pub prior: Option<(Vec<u8>, usize)>,
    /// For each page the mask as a PNG to lay over the raw view, and its regions; `None` where the page lacks the image.
    pub masks: Vec<Option<(Vec<u8>, usize)>>,
}

/// The images of `pages`, the first of which is the one with the raw views. A region has one colour on all pages.
///
/// # Errors
/// When a picture is not a PNG of the expected kind.
pub fn tiles(pages: &[GalleryPage]) -> Result<Vec<Tiles>, PictureError> {
    let chosen: Vec<&GalleryPage> = pages.iter().collect();
    let mut all = Vec::new();
    for row in rows(pages, &chosen)? {
        let refuse = |e: png::EncodingError| PictureError { picture: row.image.key.clone(), reason: e.to_string() };
        let prior = match &row.prior {
            Some(prior) => Some((prior_layer(prior).map_err(refuse)?, count(prior))),
            None => None,
        };
        let layer = |mask: &crate::masks::Mask| Ok((mask_layer(mask).map_err(refuse)?, mask.count));
        let masks = row.masks.iter().map(|mask| mask.as_ref().map(layer).transpose()).collect::<Result<_, _>>()?;
        all.push(Tiles { key: row.image.key.clone(), raw: row.image.raw_png.to_vec(), prior, masks });
    }
    Ok(all)
}
