//! The fixed images: what the network saw, the prior, and its masks over the epochs (as in the paper's Figure 5).

use maud::{Markup, html};
use r2o_storage::gallery::GalleryPage;

use crate::PictureError;
use crate::masks::{Mask, Row, choose_pages, count, mask_layer, prior_layer, rows};
use crate::pictures::data_uri;
use crate::style::SLIDER;

/// Columns of masks at most.
const PAGES: usize = 7;

/// What ABO means, for readers of the gallery.
pub const OVERLAP: &str = "ABO: Average Best Overlap, for each object that was drawn by hand in these images the best \
    intersection over union that a region has with it.";

/// The section, empty when there is no gallery.
///
/// # Errors
/// When a picture is not a PNG of the expected kind.
pub(super) fn section(pages: &[GalleryPage]) -> Result<Markup, PictureError> {
    let chosen = choose_pages(pages, PAGES);
    let rows = rows(pages, &chosen)?;
    if rows.is_empty() {
        return Ok(html! {});
    }
    let styles: String = rows.iter().enumerate().map(|(i, row)| background(i, &row.image.raw_png)).collect();
    let prior_overlap = pages.last().and_then(|page| page.prior_average_best_overlap);
    let has_prior = rows.iter().any(|row| row.prior.is_some());
    let body = rows.iter().enumerate().map(|(i, row)| tiles(i, row, has_prior)).collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        h2 { "Masks over the epochs" }
        p.dim {
            "The same images after each epoch: the prior's regions, merged by K-means on the target network's features. "
            "A region keeps its colour from column to column. Below: regions in the image."
            @if prior_overlap.is_some() { " " (OVERLAP) }
        }
        label { "cover " input type="range" min="0" max="1" step="0.05" value="0.65" oninput=(SLIDER); }
        style { (maud::PreEscaped(styles)) }
        div.scroll { table.masks {
            tr {
                th { "raw view" } th { "view 1" } th { "view 2" }
                @if has_prior { th { "prior" (overlap(prior_overlap)) } }
                @for page in &chosen { th { "epoch " (page.epoch) br; "K " (page.k) (overlap(page.average_best_overlap)) } }
            }
            @for row in body { (row) }
        } }
    })
}

/// The raw view lies under every mask of its row, but is in the page once.
fn background(i: usize, png: &[u8]) -> String {
    format!(".raw{i}{{background-image:url({})}}\n", data_uri(png))
}

fn overlap(of: Option<f64>) -> Markup {
    html! { @if let Some(of) = of { br; "ABO " (format!("{of:.3}")) } }
}

fn tiles(i: usize, row: &Row<'_>, has_prior: bool) -> Result<Markup, PictureError> {
    let raw = format!("tile raw{i}");
    let refuse = |what: &str, e: png::EncodingError| PictureError {
        picture: format!("{} {what}", row.image.key),
        reason: e.to_string(),
    };
    let prior = match &row.prior {
        Some(prior) => Some((data_uri(&prior_layer(prior).map_err(|e| refuse("prior", e))?), count(prior))),
        None => None,
    };
    let layer = |mask: &Mask| mask_layer(mask).map_err(|e| refuse("mask", e)).map(|png| (data_uri(&png), mask.count));
    let masks = row.masks.iter().map(|m| m.as_ref().map(layer).transpose()).collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        tr {
            td { div class=(raw) {} div.key title=(row.image.key) { (name(&row.image.key)) } }
            td { (picture(&row.image.view1_png, "view 1")) }
            td { (picture(&row.image.view2_png, "view 2")) }
            @if has_prior { td { @if let Some((uri, n)) = &prior {
                div class=(raw) { img src=(uri) alt="prior"; } (n)
            } } }
            @for mask in &masks { td { @if let Some((uri, n)) = mask {
                div class=(raw) { img.mask src=(uri) alt="mask"; } (n)
            } } }
        }
    })
}

fn picture(png: &[u8], what: &str) -> Markup {
    html! { @if !png.is_empty() { div.tile { img src=(data_uri(png)) alt=(what); } } }
}

/// The last part of a key; the whole is in the tooltip.
fn name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}
