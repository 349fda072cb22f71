//! The gallery made ready to be shown: pages chosen, label maps read, regions coloured.

use std::collections::BTreeMap;

use r2o_storage::gallery::{GalleryImage, GalleryPage};

use crate::PictureError;
use crate::colours::{colour, match_over_time};
use crate::pictures::{Labels, encode_palette, labels};

/// One image with its masks over time.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// The first page's entry: raw view, views, prior.
    pub(crate) image: &'a GalleryImage,
    /// The prior, where there is one.
    pub(crate) prior: Option<Labels>,
    /// The masks of the chosen pages; none where a page lacks the image.
    pub(crate) masks: Vec<Option<Mask>>,
}

/// One predicted mask.
#[derive(Debug)]
pub(crate) struct Mask {
    pub(crate) labels: Labels,
    /// Label to colour number; see [`match_over_time`].
    pub(crate) colours: BTreeMap<u8, usize>,
    /// Different regions.
    pub(crate) count: usize,
}

/// At most `n` pages, the first and the last among them, evenly between.
pub(crate) fn choose_pages(pages: &[GalleryPage], n: usize) -> Vec<&GalleryPage> {
    if pages.len() <= n || n < 2 {
        return pages.iter().take(n.max(1)).collect();
    }
    (0..n).map(|i| &pages[i * (pages.len() - 1) / (n - 1)]).collect()
}

/// Reads the images of the chosen pages. All of `pages` are needed for what only the first page has.
pub(crate) fn rows<'a>(pages: &'a [GalleryPage], chosen: &[&GalleryPage]) -> Result<Vec<Row<'a>>, PictureError> {
    let Some(first) = pages.iter().find(|page| page.images.iter().any(|image| !image.raw_png.is_empty())) else {
        return Ok(Vec::new());
    };
    first.images.iter().map(|image| row(image, chosen)).collect()
}

fn row<'a>(image: &'a GalleryImage, chosen: &[&GalleryPage]) -> Result<Row<'a>, PictureError> {
    let prior = match image.prior_png.is_empty() {
        true => None,
        false => Some(labels(&image.prior_png, &format!("{} prior", image.key))?),
    };
    let mut maps = Vec::new();
    for page in chosen {
        let same = page.images.iter().find(|i| i.sample == image.sample && !i.mask_png.is_empty());
        let name = format!("{} mask of epoch {}", image.key, page.epoch);
        maps.push(same.map(|i| labels(&i.mask_png, &name)).transpose()?);
    }
    let data: Vec<&[u8]> = maps.iter().flatten().map(|map| map.data.as_slice()).collect();
    let mut colours = match_over_time(&data).into_iter();
    let masks = maps.into_iter().map(|map| {
        let (labels, colours) = (map?, colours.next()?);
        let count = colours.len();
        Some(Mask { labels, colours, count })
    });
    let masks = masks.collect();
    Ok(Row { image, prior, masks })
}

/// Side of the layers in pixels, before the browser scales them: fine enough for thin edges.
const LAYER: usize = 192;

/// The mask as a PNG to lay over the raw view: each region filled, its edges darker.
pub(crate) fn mask_layer(mask: &Mask) -> Result<Vec<u8>, png::EncodingError> {
    // Two entries a colour: fill and edge. At most 128 regions fit; beyond, colours repeat.
    let slots: BTreeMap<u8, u8> = mask.colours.keys().enumerate().map(|(i, label)| (*label, (i % 128) as u8)).collect();
    let mut palette = vec![[0, 0, 0, 0]; 2 * slots.len().min(128)];
    for (label, slot) in &slots {
        let [r, g, b] = colour(mask.colours[label]);
        palette[2 * *slot as usize] = [r, g, b, 255];
        palette[2 * *slot as usize + 1] = [r / 2, g / 2, b / 2, 255];
    }
    let pixels = square(LAYER, |x, y| {
        let slot = slots.get(&mask.labels.at(x, y, LAYER)).copied().unwrap_or(0);
        2 * slot + u8::from(mask.labels.is_edge(x, y, LAYER))
    });
    encode_palette(LAYER, &pixels, &palette)
}

/// The prior as a PNG: only its edges.
pub(crate) fn prior_layer(prior: &Labels) -> Result<Vec<u8>, png::EncodingError> {
    let pixels = square(LAYER, |x, y| u8::from(prior.is_edge(x, y, LAYER)));
    encode_palette(LAYER, &pixels, &[[0, 0, 0, 0], EDGE])
}

/// The colour of the prior's edges.
pub(crate) const EDGE: [u8; 4] = [255, 235, 59, 255];

/// How many different labels a map has.
pub(crate) fn count(map: &Labels) -> usize {
    let mut seen = [false; 256];
    map.data.iter().for_each(|label| seen[*label as usize] = true);
    seen.iter().filter(|s| **s).count()
}

fn square(side: usize, pixel: impl Fn(usize, usize) -> u8) -> Vec<u8> {
    (0..side * side).map(|i| pixel(i % side, i / side)).collect()
}
