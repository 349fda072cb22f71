//! What every committed step looked like: the numbers behind curves and audits. What was trained on is in the
//! [ledger](crate::ledger).
//!
//! Records are written in segments, `history/<first step, 12 digits>-<generation>.jsonl`, one JSON object a line. A later
//! generation that goes back to a checkpoint writes its steps again; reading takes the latest word on every step.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{StorageError, Store};

const PREFIX: &str = "history";
const IN_FLIGHT: usize = 16;

/// Why the history could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A line is not a record.
    #[error("line {line} of {url} is not a step record: {reason}; remove the file to read the rest")]
    Damaged {
        /// The segment.
        url: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A segment needs at least one record.
    #[error("a history segment without any step cannot be written")]
    Empty,
}

/// One committed step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepRecord {
    /// 0-based, over the whole job.
    pub step: u64,
    /// 0-based.
    pub epoch: u64,
    /// The generation that computed it.
    pub generation: u64,
    /// Clusters per lane.
    pub k: u32,
    /// Momentum of the target network.
    pub tau: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Mean over the lanes.
    pub loss: f64,
    /// L2 norm of the mean gradient.
    pub gradient_norm: f64,
    /// Regions that count, mean per image.
    pub valid_regions: f64,
    /// Images of all lanes.
    pub images: u64,
    /// Wall time from the step before to this one.
    pub seconds: f64,
    /// Seconds by phase, of the slowest worker: `data_wait`, `forward`, `backward`, ...
    pub timings: BTreeMap<String, f64>,
    /// Each lane's part, in lane order; stored only where workers audit.
    pub lanes: Vec<LaneRecord>,
}

impl StepRecord {
    /// Whether the lanes say more than the ledger does: digests of what workers saw and computed.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        self.lanes.iter().any(|lane| lane.pixel_digest != 0 || lane.mask_digest != 0)
    }
}

/// One lane's part of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaneRecord {
    /// The lane.
    pub lane: u32,
    /// Its loss.
    pub loss: f64,
    /// Regions that count, mean per image.
    pub valid_regions: f64,
    /// Where in the epoch's order its samples start.
    pub first_position: u64,
    /// XXH3 of its sample numbers.
    pub sample_digest: u64,
    /// XXH3 of its views; 0 unless audited.
    pub pixel_digest: u64,
    /// XXH3 of its mask labels; 0 unless audited.
    pub mask_digest: u64,
}

/// Writes consecutive records of one generation as one segment, named by the first. Writing a longer one from the same
/// first step replaces the shorter.
///
/// # Errors
/// [`HistoryError::Empty`], or when the store fails.
pub async fn append_segment(store: &Store, generation: u64, records: &[StepRecord]) -> Result<(), HistoryError> {
    let first = records.first().ok_or(HistoryError::Empty)?.step;
    let mut text = Vec::new();
    for record in records {
        // Structures of numbers, strings and lists always have a JSON text; NaN becomes null.
        text.extend(serde_json::to_vec(record).unwrap_or_default());
        text.push(b'\n');
    }
    store.put(&key(first, generation), text).await?;
    Ok(())
}

/// One step as the latest generation that wrote it has it; `None` when it is not there.
///
/// # Errors
/// [`HistoryError::Damaged`] names the segment and the line.
pub async fn read_step(store: &Store, step: u64) -> Result<Option<StepRecord>, HistoryError> {
    let segments = store.list(PREFIX).await?.into_iter().filter_map(|(key, _)| parse_key(key));
    let latest =
        segments.filter(|(first, ..)| *first <= step).max_by_key(|(first, generation, _)| (*generation, *first));
    let Some(segment) = latest else { return Ok(None) };
    let (_, _, records) = read_segment(store.clone(), segment).await?;
    Ok(records.into_iter().find(|record| record.step == step))
}

/// All steps in order. Where generations overlap the later one counts: from the first step that it wrote, nothing of an
/// earlier one remains, since those steps were rolled back.
///
/// # Errors
/// [`HistoryError::Damaged`] names the segment and the line.
pub async fn read_all(store: &Store) -> Result<Vec<StepRecord>, HistoryError> {
    let segments: Vec<(u64, u64, String)> =
        store.list(PREFIX).await?.into_iter().filter_map(|(key, _)| parse_key(key)).collect();
    let reads = stream::iter(segments.into_iter().map(|segment| read_segment(store.clone(), segment)));
    let mut read: Vec<(u64, u64, Vec<StepRecord>)> = reads.buffered(IN_FLIGHT).try_collect().await?;
    read.sort_by_key(|(first, generation, _)| (*generation, *first));
    let mut steps: BTreeMap<u64, StepRecord> = BTreeMap::new();
    let mut latest = None;
    for (first, generation, records) in read {
        if latest != Some(generation) {
            latest = Some(generation);
            steps.split_off(&first);
        }
        steps.extend(records.into_iter().map(|record| (record.step, record)));
    }
    Ok(steps.into_values().collect())
}

/// Bytes of all segments.
///
/// # Errors
/// When the store fails.
pub async fn bytes(store: &Store) -> Result<u64, StorageError> {
    Ok(store.list(PREFIX).await?.into_iter().map(|(_, bytes)| bytes).sum())
}

fn key(first: u64, generation: u64) -> String {
    format!("{PREFIX}/{first:012}-{generation}.jsonl")
}

fn parse_key(key: String) -> Option<(u64, u64, String)> {
    let (first, generation) = key.rsplit('/').next()?.strip_suffix(".jsonl")?.split_once('-')?;
    Some((first.parse().ok()?, generation.parse().ok()?, key))
}

async fn read_segment(
    store: Store,
    (first, generation, key): (u64, u64, String),
) -> Result<(u64, u64, Vec<StepRecord>), HistoryError> {
    let bytes = store.get(&key).await?;
    let mut records = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let record = parse_line(line).map_err(|e| HistoryError::Damaged {
            url: store.url_of(&key),
            line: i + 1,
            reason: e.to_string(),
        })?;
        records.push(record);
    }
    Ok((first, generation, records))
}

/// JSON has no NaN: a loss that is not a number was written as null and is read back as NaN.
fn parse_line(line: &[u8]) -> Result<StepRecord, serde_json::Error> {
    fn restore(value: &mut serde_json::Value) {
        const NUMBERS: [&str; 6] = ["loss", "gradientNorm", "validRegions", "seconds", "tau", "learningRate"];
        let serde_json::Value::Object(map) = value else { return };
        map.retain(|name, value| !(value.is_null() && NUMBERS.contains(&name.as_str())));
        if let Some(serde_json::Value::Array(lanes)) = map.get_mut("lanes") {
            lanes.iter_mut().for_each(restore);
        }
    }
    let mut value: serde_json::Value = serde_json::from_slice(line)?;
    let lost = value.get("loss").is_some_and(serde_json::Value::is_null);
    restore(&mut value);
    let mut record: StepRecord = serde_json::from_value(value)?;
    if lost {
        record.loss = f64::NAN;
    }
    Ok(record)
}

#[cfg(test)]
mod tests;
