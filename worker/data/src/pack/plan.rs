//! Which images may make the set, under which keys, in which shards: decided from the listing alone, so that every process
//! that packs a part decides the same.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::source::{Item, Listed, Mask};
use super::{PackError, PackOptions, Part};

/// An image that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path, or tar and member.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// The whole set, as far as a listing tells.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    /// Runs of items.
    pub(super) shards: Vec<Range<usize>>,
    pub(super) classes: Vec<String>,
    labels: HashMap<String, u32>,
    pub(super) skipped: Vec<Skipped>,
    /// Of the options and of what is listed: a pack with another one is another set.
    pub(super) identity: String,
}

impl Plan {
    pub(super) fn make(options: &PackOptions, listed: Listed) -> Result<Self, PackError> {
        let Listed { items, classes, skipped, annotations } = listed;
        if items.is_empty() {
            return Err(PackError::Empty {
                path: options.source.clone(),
                skipped: skipped.len(),
                side_min: options.side_min,
            });
        }
        let identity = identity(options, &items, &classes, annotations);
        let labels = classes.iter().cloned().zip(0..).collect();
        Ok(Self { shards: shards(&items, options.shard_bytes), items, classes, labels, skipped, identity })
    }

    /// The shards of a part: a run of them, since neighbours share files of the source.
    pub(super) fn share(&self, part: Part) -> Range<usize> {
        part.share(self.shards.len())
    }

    pub(super) fn key(item: usize) -> String {
        format!("{item:08}")
    }

    pub(super) fn label(&self, item: &Item) -> Option<u32> {
        self.labels.get(item.class.as_ref()?).copied()
    }

    /// Images and their bytes in these shards.
    pub(super) fn size(&self, shards: impl Iterator<Item = usize>) -> (u64, u64) {
        let items = shards.flat_map(|shard| &self.items[self.shards[shard].clone()]);
        items.fold((0, 0), |(images, bytes), item| (images + 1, bytes + item.image.bytes()))
    }
}

fn shards(items: &[Item], bytes_max: u64) -> Vec<Range<usize>> {
    let mut shards: Vec<Range<usize>> = Vec::new();
    let mut size = u64::MAX;
    for (number, item) in items.iter().enumerate() {
        if size.saturating_add(item.image.bytes()) > bytes_max {
            shards.push(number..number);
            size = 0;
        }
        size += item.image.bytes();
        if let Some(last) = shards.last_mut() {
            last.end = number + 1;
        }
    }
    shards
}

fn identity(options: &PackOptions, items: &[Item], classes: &[String], annotations: Option<blake3::Hash>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    let PackOptions { segments, slic_size, shard_bytes, side_min, .. } = options;
    add(&format!("{segments} {slic_size} {shard_bytes} {side_min} {} {annotations:?}", super::make::maps()));
    classes.iter().for_each(|class| add(class));
    for item in items {
        add(&item.name);
        let mask = item.mask.as_ref().map(|mask| match mask {
            Mask::Stored(stretch) => stretch.bytes(),
            Mask::Drawn(_) => 0,
        });
        add(&format!("{} {:?} {mask:?}", item.image.bytes(), item.class));
    }
    hasher.finalize().to_hex().to_string()
}
