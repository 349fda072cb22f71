//! The masks of a few fixed images, growing with the epochs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use r2o_storage::Store;
use r2o_storage::gallery::{self, GalleryError, GalleryPage};

use super::access::Visitor;
use super::fresh::LATER;
use super::parts::Part;
use super::words::segment;
use super::{Missing, Page, Shared};
use crate::board::Entry;

/// Epochs that are shown, the first and the last among them.
const EPOCHS_SHOWN: usize = 8;
/// Images that are shown.
const IMAGES_SHOWN: usize = 12;
/// How long a picture is kept that is no longer shown: a page may be on its way that names it.
const KEPT: Duration = Duration::from_secs(60);

/// The pictures of a job, by the hash of what they are.
#[derive(Debug, Default)]
pub(super) struct Gallery {
    shown: Vec<u64>,
    columns: Vec<Column>,
    /// How well the prior's regions fit objects.
    prior_overlap: Option<f64>,
    rows: Vec<Row>,
    pictures: BTreeMap<String, Arc<[u8]>>,
    /// Pictures of galleries before this one, and since when they are not shown.
    left: BTreeMap<String, (Instant, Arc<[u8]>)>,
    /// Why there is none.
    damage: Option<String>,
}

/// An epoch that is shown.
#[derive(Debug)]
struct Column {
    epoch: u64,
    k: u32,
    /// How well its masks fit objects.
    overlap: Option<f64>,
}

#[derive(Debug)]
struct Row {
    key: String,
    raw: String,
    prior: Option<(String, usize)>,
    masks: Vec<Option<(String, usize)>>,
}

impl Gallery {
    fn add(&mut self, png: Vec<u8>) -> String {
        let name = blake3::hash(&png).to_hex()[..24].to_owned();
        self.pictures.insert(name.clone(), png.into());
        name
    }

    /// Takes over what was shown before, for as long as a page may still ask for it.
    fn follow(&mut self, before: &Self, now: Instant) {
        let kept = before.left.iter().filter(|(_, (since, _))| now.duration_since(*since) < KEPT);
        let shown = before.pictures.iter().map(|(name, png)| (name.clone(), (now, Arc::clone(png))));
        self.left = kept.map(|(name, left)| (name.clone(), left.clone())).chain(shown).collect();
    }

    fn picture(&self, name: &str) -> Option<&[u8]> {
        let left = || self.left.get(name).map(|(_, png)| png);
        self.pictures.get(name).or_else(left).map(|png| &**png)
    }
}

/// The epochs to show of those that there are.
fn choose(epochs: &[u64]) -> Vec<u64> {
    let n = epochs.len();
    if n <= EPOCHS_SHOWN {
        return epochs.to_vec();
    }
    (0..EPOCHS_SHOWN).map(|i| epochs[i * (n - 1) / (EPOCHS_SHOWN - 1)]).collect()
}

/// Reads what is new; pictures are made again only when another epoch is shown.
async fn look(store: &Store, before: Option<Arc<Gallery>>) -> Arc<Gallery> {
    let shown = match gallery::epochs(store).await {
        Ok(epochs) => choose(&epochs),
        // What was there a moment ago is better than nothing.
        Err(error) => return before.unwrap_or_else(|| Arc::new(damaged(&error.to_string()))),
    };
    if let Some(before) = &before
        && before.shown == shown
    {
        return Arc::clone(before);
    }
    let mut gallery = read(store, shown).await.unwrap_or_else(|error| damaged(&error));
    if let Some(before) = before {
        gallery.follow(&before, Instant::now());
    }
    Arc::new(gallery)
}

fn damaged(reason: &str) -> Gallery {
    Gallery { damage: Some(reason.to_owned()), ..Gallery::default() }
}

async fn read(store: &Store, shown: Vec<u64>) -> Result<Gallery, String> {
    let mut pages = Vec::new();
    for epoch in &shown {
        let mut page = gallery::read(store, *epoch).await.map_err(|error: GalleryError| error.to_string())?;
        page.images.truncate(IMAGES_SHOWN);
        pages.push(page);
    }
    let column = |p: &GalleryPage| Column { epoch: p.epoch, k: p.k, overlap: p.average_best_overlap };
    let columns = pages.iter().map(column).collect();
    let prior_overlap = pages.last().and_then(|page| page.prior_average_best_overlap);
    let mut gallery = Gallery { columns, prior_overlap, shown, ..Gallery::default() };
    for tiles in r2o_report::tiles(&pages).map_err(|error| error.to_string())? {
        let prior = tiles.prior.map(|(png, count)| (gallery.add(png), count));
        let masks = tiles.masks.into_iter().map(|mask| mask.map(|(png, count)| (gallery.add(png), count))).collect();
        let raw = gallery.add(tiles.raw);
        gallery.rows.push(Row { key: tiles.key, raw, prior, masks });
    }
    Ok(gallery)
}

async fn of(page: &Page, entry: &Entry) -> Arc<Gallery> {
    let view = entry.view();
    let fresh = page.galleries.of(&view.name, view.submitted_at);
    let known =
        fresh.get_after(LATER, |before| async move { look(&entry.store, before.map(|b| Arc::clone(&*b))).await });
    Arc::clone(&*known.await)
}

/// The masks as a table: a row for each image, a column for each epoch.
pub(super) async fn part(page: &Page, entry: &Entry) -> Part {
    let gallery = of(page, entry).await;
    let url = |picture: &str| format!("/jobs/{}/masks/{picture}", segment(&entry.view().name));
    let short = |key: &str| key.rsplit('/').next().unwrap_or(key).to_owned();
    let html = html! {
        @if let Some(damage) = &gallery.damage { p.damage { "The masks cannot be shown: " (damage) } }
        @else if gallery.rows.is_empty() {
            p.empty { "No masks yet: they come with the first step, and then after every epoch." }
        } @else {
            label.cover { "Cover" input #cover type="range" min="0" max="1" step="0.05" value="0.65"; }
            div.scroll role="region" aria-label="Table of masks" tabindex="0" { table.masks {
                caption.quiet {
                    "The same images after each epoch. A region keeps its colour; below: how many regions there are."
                    @if gallery.prior_overlap.is_some() { " " (r2o_report::OVERLAP) }
                }
                thead { tr {
                    th scope="col" { "Image" } th scope="col" { "Prior" (overlap(gallery.prior_overlap)) }
                    @for column in &gallery.columns { th scope="col" {
                        "Epoch " (column.epoch) br; span.unit { "K " (column.k) } (overlap(column.overlap))
                    } }
                } }
                tbody { @for row in &gallery.rows { tr {
                    th scope="row" { div.tile { img src=(url(&row.raw)) alt="" width="96" height="96"; } span.key title=(row.key) { (short(&row.key)) } }
                    td { @if let Some((prior, count)) = &row.prior { div.tile {
                        img src=(url(&row.raw)) alt="" width="96" height="96";
                        img src=(url(prior)) alt={ "Prior of " (short(&row.key)) } width="96" height="96";
                    } span.count { (count) } } }
                    @for (mask, column) in row.masks.iter().zip(&gallery.columns) { td { @if let Some((mask, count)) = mask { div.tile {
                        img src=(url(&row.raw)) alt="" width="96" height="96";
                        img.mask src=(url(mask)) alt={ "Mask of " (short(&row.key)) " after epoch " (column.epoch) } width="96" height="96";
                    } span.count { (count) } } } }
                } } }
            } }
        }
    };
    Part { id: "masks", html }
}

fn overlap(of: Option<f64>) -> Markup {
    html! { @if let Some(of) = of { br; span.unit { "ABO " (format!("{of:.3}")) } } }
}

/// One picture. Its name is a hash of it, so that browsers may keep it.
pub(super) async fn picture(
    State(page): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path((name, picture)): Path<(String, String)>,
) -> Result<Response, Missing> {
    let entry = page.entry(&name, &visitor)?;
    let gallery = of(&page, &entry).await;
    Ok(match gallery.picture(&picture) {
        Some(png) => {
            let said =
                [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "private, max-age=31536000, immutable")];
            (said, png.to_vec()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

#[cfg(test)]
mod tests {
    use r2o_storage::gallery::{Base64, GalleryImage};

    use super::*;

    #[test]
    fn the_first_and_the_last_epoch_are_always_shown() {
        assert_eq!(choose(&[0, 1, 2]), [0, 1, 2]);
        let many: Vec<u64> = (0..=300).collect();
        let shown = choose(&many);
        assert_eq!((shown.len(), shown[0], shown[EPOCHS_SHOWN - 1]), (EPOCHS_SHOWN, 0, 300));
    }

    /// A grey picture of 4 x 4.
    fn grey(levels: [u8; 16]) -> Base64 {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, 4, 4);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&levels).unwrap();
        Base64(out)
    }

    async fn write(store: &Store, epoch: u64) {
        let mask = grey(std::array::from_fn(|i| u8::from(i as u64 > epoch)));
        let raw = if epoch == 0 { grey([7; 16]) } else { Base64::default() };
        let image = GalleryImage { mask_png: mask, raw_png: raw, ..GalleryImage::default() };
        let page = GalleryPage { epoch, images: vec![image], ..GalleryPage::default() };
        gallery::write_page(store, &page).await.unwrap();
    }

    #[tokio::test]
    async fn a_page_on_its_way_finds_the_pictures_it_names_though_others_are_shown_by_now() {
        let store = r2o_storage::open("memory:///").unwrap();
        for epoch in 0..8 {
            write(&store, epoch).await;
        }
        let sent = look(&store, None).await;
        write(&store, 8).await;
        let newer = look(&store, Some(Arc::clone(&sent))).await;
        assert!(sent.pictures.keys().any(|name| !newer.pictures.contains_key(name)), "another choice of epochs");
        for (name, png) in &sent.pictures {
            assert!(newer.picture(name) == Some(&**png), "{name}");
        }
        store.put("gallery/000009.json", "no page").await.unwrap();
        let damaged = look(&store, Some(newer)).await;
        assert!(damaged.damage.is_some());
        assert!(sent.pictures.keys().all(|name| damaged.picture(name).is_some()));
    }

    #[test]
    fn what_is_no_longer_shown_is_forgotten_after_a_while() {
        let now = Instant::now();
        let mut first = Gallery::default();
        let name = first.add(vec![1]);
        let mut second = Gallery::default();
        second.follow(&first, now);
        let mut third = Gallery::default();
        third.follow(&second, now + KEPT / 2);
        assert_eq!(third.picture(&name), Some(&[1][..]));
        third.follow(&second, now + KEPT);
        assert_eq!(third.picture(&name), None);
    }
}
