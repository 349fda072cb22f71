//! What there is to pack, in one fixed order: told from what the source is called and, of a folder, what it holds.
//!
//! Only names and sizes are looked at, and what else every process must know to plan the same shards; images are read later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use super::coco::{self, Drawing};
use super::place::{Found, Place, READS, Stores, Stretch, has_extension};
use super::plan::Skipped;
use super::rows::{self, Row};
use super::{PackError, PackOptions, webdataset};
use crate::decode::FILE_MAX;
use crate::error::DecodeError;

pub(super) const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
const IMAGES_OF: &str = "--images: only COCO's annotations (.json) have their images elsewhere";
const LISTS: [&str; 3] = ["txt", "lst", "tsv"];

/// Where an image's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A file, or a member of a tar.
    Stretch(Stretch),
    /// Of a parquet file.
    Row(Row),
}

impl Origin {
    /// Its length, or a guess at it.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Stretch(stretch) => stretch.bytes(),
            Self::Row(row) => row.bytes,
        }
    }
}

/// Where an image's ground truth is.
#[derive(Debug, Clone)]
pub(super) enum Mask {
    /// A file, or a member of a tar.
    Stored(Stretch),
    /// To be drawn.
    Drawn(Arc<Drawing>),
}

/// One image of the source.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Name for people, the same wherever the source lies: a path below it, or tar and member.
    pub(super) name: String,
    pub(super) image: Origin,
    pub(super) class: Option<String>,
    pub(super) mask: Option<Mask>,
}

/// The whole source.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) items: Vec<Item>,
    /// Names of classes, in the order of their labels.
    pub(super) classes: Vec<String>,
    /// What is left out without being read.
    pub(super) skipped: Vec<Skipped>,
    /// Of a file that all masks are drawn from.
    pub(super) annotations: Option<blake3::Hash>,
}

impl Listed {
    /// With classes in the order of their names.
    fn of(items: Vec<Item>) -> Self {
        let names: BTreeSet<&String> = items.iter().filter_map(|item| item.class.as_ref()).collect();
        Self { classes: names.into_iter().cloned().collect(), items, ..Self::default() }
    }
}

/// Lists the source. Blocks its thread, which must not be one of the runtime.
pub(super) fn list(options: &PackOptions, runtime: &Handle) -> Result<Listed, PackError> {
    let source = Place::of(&options.source)?;
    let images = options.images.as_deref().map(Place::of).transpose()?;
    let mut listed = match source.is_folder() {
        true if images.is_some() => return Err(PackError::Option(IMAGES_OF.to_owned())),
        true => folder(&source, runtime)?,
        false => file(source, images, runtime)?,
    };
    if let Some(masks) = &options.masks {
        attach_masks(&mut listed.items, runtime.block_on(Place::of(masks)?.files())?)?;
    }
    let (items, skipped) = (std::mem::take(&mut listed.items), &mut listed.skipped);
    for item in items {
        match refused(&item.image) {
            None => listed.items.push(item),
            Some(reason) => skipped.push(Skipped { name: item.name, reason }),
        }
    }
    Ok(listed)
}

/// By what it holds: tars, or else parquet files anywhere in it, or else images anywhere.
fn folder(source: &Place, runtime: &Handle) -> Result<Listed, PackError> {
    let mut files = runtime.block_on(source.files())?;
    let tar = |file: &Found| has_extension(&file.name, &["tar"]) && !file.name.contains('/');
    let parquet = |file: &Found| has_extension(&file.name, &["parquet"]);
    if files.iter().any(tar) {
        files.retain(tar);
        return Ok(Listed::of(webdataset::items(files.into_iter().map(|tar| tar.whole).collect(), runtime)?));
    }
    if files.iter().any(parquet) {
        files.retain(parquet);
        return runtime.block_on(rows::list(files, runtime));
    }
    Ok(Listed::of(tree(files)))
}

fn file(source: Place, images: Option<Place>, runtime: &Handle) -> Result<Listed, PackError> {
    let name = source.file_name();
    let wrong = |reason: &str| PackError::List { path: source.shown(), line: 0, reason: reason.to_owned() };
    let file = Found { whole: runtime.block_on(source.clone().whole())?, name };
    let is = |extensions| has_extension(&file.name, extensions);
    match images {
        Some(images) if is(&["json"]) => runtime.block_on(coco::list(file, &images)),
        None if is(&["json"]) => Err(wrong("COCO's annotations need the folder of their images: --images")),
        Some(_) => Err(PackError::Option(IMAGES_OF.to_owned())),
        None if is(&["tar"]) => Ok(Listed::of(webdataset::items(vec![file.whole], runtime)?)),
        None if is(&["parquet"]) => runtime.block_on(rows::list(vec![file], runtime)),
        None if is(&LISTS) => Ok(Listed::of(runtime.block_on(list_file(file.whole))?)),
        None => Err(wrong("not a folder, a .tar, a .parquet, COCO's .json, or a list (.txt, .lst, .tsv)")),
    }
}

/// What no reading is needed for: a file that is longer than any image.
fn refused(image: &Origin) -> Option<String> {
    let Origin::Stretch(image) = image else { return None };
    let bytes = image.bytes();
    (bytes > FILE_MAX).then(|| DecodeError::TooLong { bytes, max: FILE_MAX }.to_string())
}

/// Images of a tree; the first folder below the root is the class.
fn tree(files: Vec<Found>) -> Vec<Item> {
    let images = files.into_iter().filter(|file| has_extension(&file.name, &IMAGES));
    let item = |file: Found| {
        let class = file.name.split_once('/').map(|(first, _)| first.to_owned());
        Item { name: file.name, image: Origin::Stretch(file.whole), class, mask: None }
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
        let image = Origin::Stretch(sized(image).await?);
        let mask = match mask {
            Some(mask) => Some(Mask::Stored(sized(mask).await?)),
            None => None,
        };
        Ok(Item { name, image, class, mask })
    };
    stream::iter(lines).map(item).buffered(READS).try_collect().await
}

/// Finds `MASKS/STEM.png`, or the image's own path below MASKS, for each image.
fn attach_masks(items: &mut [Item], masks: Vec<Found>) -> Result<(), PackError> {
    if items.iter().any(|item| matches!(item.image, Origin::Row(_))) {
        return Err(PackError::Option("--masks: rows of parquet files have no names to find masks by".to_owned()));
    }
    let masks: BTreeMap<String, Stretch> = masks.into_iter().map(|mask| (mask.name, mask.whole)).collect();
    for item in items {
        let stem = item.name.rsplit_once('.').map_or(item.name.as_str(), |(stem, _)| stem);
        let inside = format!("{stem}.png");
        let flat = inside.rsplit('/').next().unwrap_or_default();
        item.mask = masks.get(&inside).or_else(|| masks.get(flat)).cloned().map(Mask::Stored);
    }
    Ok(())
}
