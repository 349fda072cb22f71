//! What there is to pack, in one fixed order: told from what the source is called and, of a folder, what it holds.
//!
//! Only names and sizes are looked at, and what else every process must know to plan the same shards; images are read later.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use super::place::{Found, Place, READS, Stores, Stretch, has_extension};
use super::plan::Skipped;
use super::{PackError, PackOptions, webdataset};
use crate::decode::FILE_MAX;
use crate::error::DecodeError;

pub(super) const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
const LISTS: [&str; 3] = ["txt", "lst", "tsv"];

/// One image of the source.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Name for people, the same wherever the source lies: a path below it, or tar and member.
    pub(super) name: String,
    pub(super) image: Stretch,
    pub(super) class: Option<String>,
    pub(super) mask: Option<Stretch>,
}

/// The whole source.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) items: Vec<Item>,
    /// Names of classes, in the order of their labels.
    pub(super) classes: Vec<String>,
    /// What is left out without being read.
    pub(super) skipped: Vec<Skipped>,
}

/// Lists the source. Blocks its thread, which must not be one of the runtime.
pub(super) fn list(options: &PackOptions, runtime: &Handle) -> Result<Listed, PackError> {
    let source = Place::of(&options.source)?;
    let mut items = items(&source, runtime)?;
    if let Some(masks) = &options.masks {
        attach_masks(&mut items, runtime.block_on(Place::of(masks)?.files())?);
    }
    let mut classes: Vec<String> = items.iter().filter_map(|item| item.class.clone()).collect();
    classes.sort();
    classes.dedup();
    let mut listed = Listed { classes, ..Listed::default() };
    for item in items {
        match refused(&item.image) {
            None => listed.items.push(item),
            Some(reason) => listed.skipped.push(Skipped { name: item.name, reason }),
        }
    }
    Ok(listed)
}

fn items(source: &Place, runtime: &Handle) -> Result<Vec<Item>, PackError> {
    if source.is_folder() {
        let files = runtime.block_on(source.files())?;
        let (tars, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|f| !f.name.contains('/') && has_extension(&f.name, &["tar"]));
        if tars.is_empty() {
            return Ok(tree(others));
        }
        return webdataset::items(tars.into_iter().map(|tar| tar.whole).collect(), runtime);
    }
    let file = runtime.block_on(source.clone().whole())?;
    if source.has_extension(&["tar"]) {
        webdataset::items(vec![file], runtime)
    } else if source.has_extension(&LISTS) {
        runtime.block_on(list_file(file))
    } else {
        let reason = "not a folder, a .tar, or a list (.txt, .lst, .tsv)";
        Err(PackError::List { path: source.shown(), line: 0, reason: reason.to_owned() })
    }
}

/// What no reading is needed for: a file that is longer than any image, and one that a cut-off tar says it holds.
fn refused(image: &Stretch) -> Option<String> {
    let bytes = image.bytes();
    (bytes > FILE_MAX).then(|| DecodeError::TooLong { bytes, max: FILE_MAX }.to_string())
}

/// Images of a tree; the first folder below the root is the class.
fn tree(files: Vec<Found>) -> Vec<Item> {
    let images = files.into_iter().filter(|file| has_extension(&file.name, &IMAGES));
    let item = |file: Found| {
        let class = file.name.split_once('/').map(|(first, _)| first.to_owned());
        Item { name: file.name, image: file.whole, class, mask: None }
    };
    images.map(item).collect()
}

/// Path, label and mask per line, between tabs; relative paths are relative to the list.
async fn list_file(list: Stretch) -> Result<Vec<Item>, PackError> {
    let wrong = |line: usize, reason: String| PackError::List { path: list.place.shown(), line, reason };
    let bytes = list.read().await?;
    let text = std::str::from_utf8(&bytes).map_err(|e| wrong(0, e.to_string()))?;
    let mut opened = Stores::new();
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split('\t');
        let name = fields.next().unwrap_or_default();
        let mut filled = || fields.next().filter(|field| !field.is_empty());
        let (class, mask) = (filled().map(str::to_owned), filled());
        let image = list.place.beside(name, &mut opened)?;
        let mask = mask.map(|mask| list.place.beside(mask, &mut opened)).transpose()?;
        lines.push((number, name.to_owned(), class, image, mask));
    }
    let item = async |(number, name, class, image, mask): (usize, String, _, Place, Option<Place>)| {
        let sized = async |place: Place| {
            let shown = place.shown();
            let missing = |_| wrong(number, format!("no such file: {shown}"));
            place.whole().await.map_err(|e| if e.is_not_found() { missing(e) } else { e })
        };
        let image = sized(image).await?;
        let mask = match mask {
            Some(mask) => Some(sized(mask).await?),
            None => None,
        };
        Ok(Item { name, image, class, mask })
    };
    stream::iter(lines).map(item).buffered(READS).try_collect().await
}

/// Finds `MASKS/STEM.png`, or the image's own path below MASKS, for each image.
fn attach_masks(items: &mut [Item], masks: Vec<Found>) {
    let masks: BTreeMap<String, Stretch> = masks.into_iter().map(|mask| (mask.name, mask.whole)).collect();
    for item in items {
        let stem = item.name.rsplit_once('.').map_or(item.name.as_str(), |(stem, _)| stem);
        let inside = format!("{stem}.png");
        let flat = inside.rsplit('/').next().unwrap_or_default();
        item.mask = masks.get(&inside).or_else(|| masks.get(flat)).cloned();
    }
}
