//! Which images make the set, under which keys, in which shards: decided before anything is written.

use std::collections::HashMap;
use std::fmt;

use rayon::prelude::*;

use super::source::{Item, Listed};
use super::{PackError, PackOptions};
use crate::decode::dimensions;

/// An image that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// An image that goes into the set.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) item: Item,
    pub(super) key: String,
    pub(super) label: Option<u32>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) bytes: u64,
    pub(super) hash: blake3::Hash,
}

/// The whole set.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) shards: Vec<Vec<Planned>>,
    pub(super) classes: Vec<String>,
    pub(super) skipped: Vec<Skipped>,
    /// Of the options and of every image's content: a pack with another one is another set.
    pub(super) identity: String,
}

/// What a look at an image found.
struct Looked {
    width: u32,
    height: u32,
    bytes: u64,
    hash: blake3::Hash,
}

impl Plan {
    pub(super) fn make(options: &PackOptions, listed: Listed) -> Result<Self, PackError> {
        let looks: Vec<Result<Looked, String>> =
            listed.items.par_iter().map(|item| look(item, options.side_min)).collect();
        let mut skipped = Vec::new();
        let mut first_with: HashMap<blake3::Hash, String> = HashMap::new();
        let mut planned = Vec::new();
        for (item, looked) in listed.items.into_iter().zip(looks) {
            let looked = match looked {
                Ok(looked) => looked,
                Err(reason) => {
                    skipped.push(Skipped { name: item.name, reason });
                    continue;
                }
            };
            if let Some(first) = first_with.get(&looked.hash) {
                let reason = format!("duplicate of {first}");
                skipped.push(Skipped { name: item.name, reason });
                continue;
            }
            first_with.insert(looked.hash, item.name.clone());
            let label = item.class.as_ref().and_then(|class| listed.classes.binary_search(class).ok());
            planned.push(Planned {
                key: format!("{:08}", planned.len()),
                label: label.map(|l| l as u32),
                width: looked.width,
                height: looked.height,
                bytes: looked.bytes,
                hash: looked.hash,
                item,
            });
        }
        if planned.is_empty() {
            let path = options.source.clone();
            return Err(PackError::Empty { path, skipped: skipped.len(), side_min: options.side_min });
        }
        let identity = identity(options, &planned, &listed.classes);
        Ok(Self { shards: shards(planned, options.shard_bytes), classes: listed.classes, skipped, identity })
    }
}

fn look(item: &Item, side_min: u32) -> Result<Looked, String> {
    let bytes = item.image.read().map_err(|e| format!("cannot be read: {e}"))?;
    let (width, height) = dimensions(&bytes).map_err(|e| e.to_string())?;
    if width.min(height) < side_min {
        return Err(format!("{width} x {height} pixels, the shorter side must have {side_min}"));
    }
    // The header alone says little: what training would fail on must be found now.
    crate::decode::decode(&bytes).map_err(|e| e.to_string())?;
    Ok(Looked { width, height, bytes: bytes.len() as u64, hash: blake3::hash(&bytes) })
}

fn shards(planned: Vec<Planned>, bytes_max: u64) -> Vec<Vec<Planned>> {
    let mut shards: Vec<Vec<Planned>> = Vec::new();
    let mut size = u64::MAX;
    for sample in planned {
        if size.saturating_add(sample.bytes) > bytes_max {
            shards.push(Vec::new());
            size = 0;
        }
        size += sample.bytes;
        if let Some(last) = shards.last_mut() {
            last.push(sample);
        }
    }
    shards
}

fn identity(options: &PackOptions, planned: &[Planned], classes: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(&format!("{} {} {}", options.segments, options.slic_size, options.shard_bytes));
    add(r2o_slic::DEFINITION);
    classes.iter().for_each(|class| add(class));
    for sample in planned {
        add(&sample.item.name);
        add(sample.hash.to_hex().as_str());
        add(&format!("{:?} {}", sample.label, sample.item.mask.is_some()));
    }
    hasher.finalize().to_hex().to_string()
}
