//! Samples of WebDataset tars: only headers and classes are read, by ranges, of several tars at a time.

use std::collections::BTreeMap;
use std::io::Read;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use super::PackError;
use super::place::{Place, Scan, Stretch, apart};
use super::source::{IMAGES, Item, Mask, Origin};

/// Tars that are scanned at a time: each is a chain of reads, about one for every image.
const TARS: usize = 128;
/// Bytes of a class's name that are read.
const CLASS_MAX: u64 = 4096;

/// The samples of all tars, one after the other.
pub(super) fn items(tars: Vec<Stretch>, runtime: &Handle) -> Result<Vec<Item>, PackError> {
    let scan = async |tar: Stretch| {
        let (place, handle) = (tar.place.clone(), runtime.clone());
        let scanned = apart(move || scan(tar, handle)).await.flatten();
        scanned.map_err(|source| PackError::Source { path: place.shown(), source })
    };
    let all: Vec<Vec<Item>> = runtime.block_on(stream::iter(tars).map(scan).buffered(TARS).try_collect())?;
    Ok(all.concat())
}

/// Members that share a name up to the first dot belong together. `cls` is the class, `mask.png` the mask.
fn scan(tar: Stretch, runtime: Handle) -> std::io::Result<Vec<Item>> {
    let (place, file) = (tar.place.clone(), tar.place.file_name());
    let end = tar.range.end;
    let mut archive = tar::Archive::new(Scan::new(tar, runtime));
    let mut samples: BTreeMap<u64, Sample> = BTreeMap::new();
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member = entry.path()?.display().to_string();
        let (folder, name) = member.rsplit_once('/').unwrap_or(("", member.as_str()));
        let Some((stem, extension)) = name.split_once('.') else { continue };
        let next = numbers.len() as u64;
        let number = *numbers.entry(format!("{folder}/{stem}")).or_insert(next);
        let sample = samples.entry(number).or_default();
        let start = entry.raw_file_position();
        let stretch = || stretch(&place, start, entry.size(), end, &member);
        match extension.to_ascii_lowercase().as_str() {
            "cls" | "cls.txt" => {
                let mut text = String::new();
                (&mut entry).take(CLASS_MAX).read_to_string(&mut text)?;
                sample.class = Some(text.trim().to_owned()).filter(|t| !t.is_empty());
            }
            "mask.png" => sample.mask = Some(Mask::Stored(stretch()?)),
            extension if IMAGES.contains(&extension) => sample.image = Some((format!("{file}:{member}"), stretch()?)),
            _ => {}
        }
    }
    Ok(samples.into_values().filter_map(Sample::item).collect())
}

#[derive(Default)]
struct Sample {
    image: Option<(String, Stretch)>,
    class: Option<String>,
    mask: Option<Mask>,
}

impl Sample {
    fn item(self) -> Option<Item> {
        let (name, image) = self.image?;
        Some(Item { name, image: Origin::Stretch(image), class: self.class, mask: self.mask })
    }
}

/// Where a member lies: never beyond the tar, whatever its header says.
fn stretch(place: &Place, start: u64, bytes: u64, end: u64, member: &str) -> std::io::Result<Stretch> {
    match start.checked_add(bytes).filter(|stop| *stop <= end) {
        Some(stop) => Ok(Stretch { place: place.clone(), range: start..stop }),
        None => Err(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            format!("the tar ends before its member {member} does"),
        )),
    }
}
