//! From shards to a set: leaves out what another shard has already, and writes the indexes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures::StreamExt;
use r2o_storage::Store;
use r2o_storage::shard::{self, ChunkEntry, ShardEntry, ShardIndex};

use super::record::{self, PlanRecord, ShardRecord};
use super::{PackError, PackSummary, Skipped};

/// Finishes a set whose shards are all there. A set that is finished is left as it is.
pub(super) async fn merge(store: &Store) -> Result<PackSummary, PackError> {
    let Some(plan) = PlanRecord::read(store).await? else {
        let set = shard::read_set(store).await?;
        // What a merge that was killed has left.
        record::end(store).await?;
        return Ok(PackSummary::of(store.url(), &set, Vec::new()));
    };
    let mut skipped = plan.skipped.clone();
    let mut seen = HashMap::new();
    let (mut entries, mut missing) = (Vec::new(), Vec::new());
    let mut records = std::pin::pin!(record::read(store, 0..plan.shards, &plan.identity));
    while let Some(found) = records.next().await {
        match found? {
            (number, Some(record)) if missing.is_empty() => {
                let entry = index(store, number, record, &mut seen, &mut skipped).await?;
                entries.extend(entry);
            }
            (_, Some(_)) => {}
            (number, None) => missing.push(number),
        }
    }
    if !missing.is_empty() {
        let commands = record::parts(&plan, &missing).into_iter().map(|part| plan.options.command(part)).collect();
        return Err(PackError::Missing {
            url: store.url().to_owned(),
            shards: missing.len(),
            of: plan.shards,
            commands,
        });
    }
    if entries.is_empty() {
        let path = plan.options.source.clone();
        return Err(PackError::Empty { path, skipped: skipped.len(), side_min: plan.options.side_min });
    }
    let set = record::finish(store, &plan, entries).await?;
    record::end(store).await?;
    Ok(PackSummary::of(store.url(), &set, skipped))
}

/// Writes the index of a shard's samples, without those that an earlier shard has; they stay in the tar, and nobody reads
/// them. `None`: nothing is left.
async fn index(
    store: &Store,
    number: usize,
    record: ShardRecord,
    seen: &mut HashMap<String, String>,
    skipped: &mut Vec<Skipped>,
) -> Result<Option<ShardEntry>, PackError> {
    skipped.extend(record.skipped);
    let mut images = record.samples.into_iter().zip(record.images);
    let mut kept = ShardIndex { samples: Vec::new() };
    let mut chunks: Vec<ChunkEntry> = Vec::new();
    for chunk in record.chunks {
        let before = kept.samples.len();
        for (sample, image) in images.by_ref().take(chunk.samples as usize) {
            match seen.entry(image.blake3) {
                Entry::Vacant(free) => {
                    free.insert(image.name);
                    kept.samples.push(sample);
                }
                Entry::Occupied(first) => {
                    skipped.push(Skipped { name: image.name, reason: format!("duplicate of {}", first.get()) });
                }
            }
        }
        let samples = (kept.samples.len() - before) as u32;
        chunks.extend((samples > 0).then_some(ChunkEntry { samples, ..chunk }));
    }
    if chunks.is_empty() {
        return Ok(None);
    }
    let text = shard::pretty(&kept);
    let [file, index] = record::keys(number);
    let index_blake3 = blake3::hash(&text).to_hex().to_string();
    store.put(&index, text).await?;
    Ok(Some(ShardEntry { file, bytes: record.bytes, blake3: record.blake3, index, index_blake3, chunks }))
}
