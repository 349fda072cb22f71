//! What packing leaves in the target while it is under way, so that processes can share it out, be killed, and go on.
//!
//! ```text
//! pack.json           what is packed, put by whoever comes first; another plan's is an error
//! pack-000000.json    what is in a shard; it is written when the shard's tar is there
//! ```
//!
//! All of it follows from the source and the options, so two processes that write the same shard write the same bytes.

use std::collections::BTreeSet;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt, stream};
use r2o_storage::shard::{self, ChunkEntry, INDEX, SampleEntry, SetIndex, ShardEntry};
use r2o_storage::{Put, Store};
use serde::{Deserialize, Serialize};

use super::{PackError, PackOptions, PackSummary, Part, Plan, Skipped};

const PLAN: &str = "pack.json";
/// Small objects on their way at a time.
const CONCURRENT: usize = 16;

/// The plan, as far as merging needs it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanRecord {
    pub(super) identity: String,
    pub(super) prior: shard::PackedPrior,
    pub(super) classes: Vec<String>,
    pub(super) shards: usize,
    pub(super) skipped: Vec<Skipped>,
    pub(super) options: PackOptions,
}

impl PlanRecord {
    pub(super) fn of(options: &PackOptions, plan: &Plan) -> Self {
        let definition = format!("{}#{}", super::make::maps(), &plan.identity[..16]);
        Self {
            identity: plan.identity.clone(),
            prior: shard::PackedPrior { segments: options.segments, size: options.slic_size, definition },
            classes: plan.classes.clone(),
            shards: plan.shards.len(),
            skipped: plan.skipped.clone(),
            options: options.clone(),
        }
    }

    /// Makes this the target's plan.
    pub(super) async fn begin(&self, store: &Store) -> Result<(), PackError> {
        if store.put_if_absent(PLAN, shard::pretty(self)).await? == Put::Created {
            return Ok(());
        }
        match Self::read(store).await? {
            Some(there) if there.identity != self.identity => Err(PackError::OtherSet { url: store.url().to_owned() }),
            _ => Ok(()),
        }
    }

    pub(super) async fn read(store: &Store) -> Result<Option<Self>, PackError> {
        let Some(bytes) = store.get_if_exists(PLAN).await? else { return Ok(None) };
        let damaged = |e: serde_json::Error| PackError::Record { url: store.url_of(PLAN), reason: e.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }
}

/// An image of a shard's tar.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Image {
    /// In the source.
    pub(super) name: String,
    pub(super) blake3: String,
}

/// A shard that is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ShardRecord {
    /// The plan's.
    pub(super) identity: String,
    pub(super) bytes: u64,
    pub(super) blake3: String,
    pub(super) chunks: Vec<ChunkEntry>,
    pub(super) samples: Vec<SampleEntry>,
    /// One per sample.
    pub(super) images: Vec<Image>,
    pub(super) skipped: Vec<Skipped>,
}

/// Keys of a shard: its tar, and the index of its samples.
pub(super) fn keys(shard: usize) -> [String; 2] {
    [format!("shard-{shard:06}.tar"), format!("shard-{shard:06}.json")]
}

fn record(shard: usize) -> String {
    format!("pack-{shard:06}.json")
}

impl ShardRecord {
    pub(super) async fn write(&self, store: &Store, shard: usize) -> Result<(), PackError> {
        // Records come and go: no need to be read by people.
        let text = serde_json::to_vec(self).map_err(|e| PackError::Option(e.to_string()))?;
        Ok(store.put(&record(shard), text).await?)
    }

    /// `None`: the shard is not there, or not all of it, or of another plan.
    async fn read(store: &Store, shard: usize, identity: &str) -> Result<Option<Self>, PackError> {
        let Some(bytes) = store.get_if_exists(&record(shard)).await? else { return Ok(None) };
        let Ok(found) = serde_json::from_slice::<Self>(&bytes) else { return Ok(None) };
        let parts = found.chunks.iter().map(|chunk| chunk.samples as usize).sum::<usize>();
        if found.identity != identity || parts != found.samples.len() || parts != found.images.len() {
            return Ok(None);
        }
        // A shard of which every image was left out has no tar.
        let whole = found.samples.is_empty() || store.head(&keys(shard)[0]).await? == Some(found.bytes);
        Ok(whole.then_some(found))
    }

    /// From a shard of a finished set, when every byte of it is what it was; `None`: it must be made again.
    async fn of(store: &Store, entry: &ShardEntry, identity: &str) -> Option<Self> {
        let index = shard::read_shard(store, entry).await.ok()?;
        let tar = store.get(&entry.file).await.ok()?;
        if blake3::hash(&tar).to_hex().as_str() != entry.blake3 {
            return None;
        }
        let image = |sample: &SampleEntry| {
            let bytes = tar.get(sample.image.offset as usize..(sample.image.offset + sample.image.bytes) as usize)?;
            Some(Image { name: sample.key.clone(), blake3: blake3::hash(bytes).to_hex().to_string() })
        };
        Some(Self {
            identity: identity.to_owned(),
            bytes: entry.bytes,
            blake3: entry.blake3.clone(),
            chunks: entry.chunks.clone(),
            images: index.samples.iter().map(image).collect::<Option<_>>()?,
            samples: index.samples,
            skipped: Vec::new(),
        })
    }
}

/// The records of these shards, in order.
pub(super) fn read<'a>(
    store: &'a Store,
    shards: Range<usize>,
    identity: &'a str,
) -> impl stream::Stream<Item = Result<(usize, Option<ShardRecord>), PackError>> + 'a {
    let one = async move |shard| Ok((shard, ShardRecord::read(store, shard, identity).await?));
    stream::iter(shards).map(one).buffered(CONCURRENT)
}

/// Those of these shards that are there.
pub(super) async fn there(store: &Store, shards: Range<usize>, identity: &str) -> Result<BTreeSet<usize>, PackError> {
    let there = read(store, shards, identity);
    there.try_filter_map(async |(shard, record)| Ok(record.map(|_| shard))).try_collect().await
}

/// What was packed of a part.
pub(super) async fn summary(store: &Store, shards: Range<usize>, plan: &PlanRecord) -> Result<PackSummary, PackError> {
    let whole = SetIndex {
        format: shard::FORMAT,
        prior: plan.prior.clone(),
        classes: plan.classes.clone(),
        shards: Vec::new(),
    };
    let mut summary = PackSummary::of(store.url(), &whole, Vec::new());
    let mut records = std::pin::pin!(read(store, shards, &plan.identity));
    while let Some((_, record)) = records.try_next().await? {
        let Some(record) = record else { continue };
        summary.samples += record.samples.len() as u64;
        summary.shards += 1;
        summary.bytes += record.bytes;
        summary.skipped.extend(record.skipped);
    }
    Ok(summary)
}

/// Before anything is packed: an error when the target holds another set. What is whole of a finished set that is packed
/// again is recorded, so that only what is damaged is made anew.
pub(super) async fn begin(store: &Store, plan: &PlanRecord) -> Result<(), PackError> {
    let finished = match store.head(INDEX).await? {
        Some(_) => Some(shard::read_set(store).await?),
        None => None,
    };
    if finished.as_ref().is_some_and(|set| set.prior != plan.prior || set.classes != plan.classes) {
        return Err(PackError::OtherSet { url: store.url().to_owned() });
    }
    plan.begin(store).await?;
    let entries = finished.map_or(Vec::new(), |set| set.shards);
    let again = stream::iter((0..plan.shards).filter_map(|shard| {
        let [tar, _] = keys(shard);
        Some((shard, entries.iter().find(|entry| entry.file == tar)?))
    }));
    let record = async |(shard, entry)| match ShardRecord::of(store, entry, &plan.identity).await {
        Some(record) => record.write(store, shard).await,
        None => Ok(()),
    };
    again.map(record).buffer_unordered(2).try_collect().await
}

/// Removes the records of a set that is finished. The plan's goes first: with it, and without those of shards, a set whose
/// merge was killed here would look like one whose shards are missing.
pub(super) async fn end(store: &Store) -> Result<(), PackError> {
    store.delete(PLAN).await?;
    let all = store.list("").await?.into_iter().map(|(key, _)| key);
    let records = all.filter(|key| key.starts_with("pack-") && key.ends_with(".json"));
    let one = async |key: String| store.delete(&key).await;
    Ok(stream::iter(records).map(one).buffer_unordered(CONCURRENT).try_collect::<()>().await?)
}

/// Which parts must be packed for these shards to be there.
pub(super) fn parts(plan: &PlanRecord, missing: &[usize]) -> Vec<Part> {
    let of = plan.options.part.of;
    let parts = (1..=of).map(|part| Part { part, of });
    parts.filter(|part| missing.iter().any(|shard| part.share(plan.shards).contains(shard))).collect()
}

/// Writes the set's index.
pub(super) async fn finish(store: &Store, plan: &PlanRecord, shards: Vec<ShardEntry>) -> Result<SetIndex, PackError> {
    let set = SetIndex { format: shard::FORMAT, prior: plan.prior.clone(), classes: plan.classes.clone(), shards };
    shard::write_set(store, &set).await?;
    Ok(set)
}
