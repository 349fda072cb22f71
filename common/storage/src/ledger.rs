//! What was trained on, small enough for any run to keep: consecutive steps whose lanes walk on regularly are one range.
//!
//! Ranges are written in segments, `ledger/<first step, 12 digits>-<generation>.jsonl`: a line with the format and the
//! BLAKE3 of the rest, then one JSON object a range. A segment is written again while it grows, and never after. As in the
//! [history](crate::history), a later generation that goes back to a checkpoint writes its steps again and has the last
//! word on them.
//!
//! A range says nothing that it does not cover: another generation, epoch or set of lanes, a step left out or taken twice,
//! or a lane that jumps begins a range of its own. [`proof`] compares all of them with the epochs' plans.

use std::ops::Range as Steps;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::history::StepRecord;
use crate::{StorageError, Store};

pub mod proof;

const PREFIX: &str = "ledger";
const MAGIC: &str = "r2o-ledger-1";
const IN_FLIGHT: usize = 16;
/// Lanes of all ranges of a segment, at which the next range begins a new one: some 40 kB.
const SEGMENT_LANES: usize = 2_048;

/// Why the ledger could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A segment is not what was written.
    #[error("ledger segment {url} is damaged: {reason}; restore it from a copy, without it its steps are not proven")]
    Damaged {
        /// The segment.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Consecutive steps of one generation and epoch, whose lanes walk on by the same number of positions each step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Range {
    /// The first step: 0-based, over the whole job.
    pub step: u64,
    /// How many steps, at least 1.
    pub steps: u64,
    /// 0-based.
    pub epoch: u64,
    /// The generation that computed them.
    pub generation: u64,
    /// Positions that each lane goes on by from one step to the next; 0 for a single step.
    pub stride: u64,
    /// Each lane, and its first position at the first step; in the order in which they were committed.
    pub lanes: Vec<(u32, u64)>,
    /// XXH3-64 of the lanes' sample digests as little-endian integers: step by step, and in a step lane by lane.
    #[serde(with = "hex64")]
    pub digest: u64,
    /// When the first step was committed, in milliseconds since 1970.
    pub first_unix_ms: i64,
    /// When the last step was committed, in milliseconds since 1970.
    pub last_unix_ms: i64,
}

impl Range {
    /// The step after the last.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.step.saturating_add(self.steps)
    }

    /// Every step and lane with the lane's first position, in order.
    pub fn unfold(&self) -> impl Iterator<Item = (u64, u32, u64)> + '_ {
        let step = move |n: u64| self.lanes.iter().map(move |(lane, at)| (self.step + n, *lane, at + n * self.stride));
        (0..self.steps).flat_map(step)
    }

    /// Whether `record` is the next step of this range, and the stride that it then has.
    fn continued_by(&self, record: &StepRecord) -> Option<u64> {
        let same = self.generation == record.generation && self.epoch == record.epoch && self.end() == record.step;
        if !same || self.lanes.len() != record.lanes.len() {
            return None;
        }
        let (_, first) = self.lanes.first()?;
        let walked = record.lanes[0].first_position.checked_sub(*first)?;
        let stride = if self.steps == 1 { walked } else { self.stride };
        let far = stride.checked_mul(self.steps)?;
        let goes_on = |((lane, at), now): (&(u32, u64), &crate::history::LaneRecord)| {
            *lane == now.lane && at.checked_add(far) == Some(now.first_position)
        };
        self.lanes.iter().zip(&record.lanes).all(goes_on).then_some(stride)
    }
}

/// Folds the sample digests of a range, in its order.
#[derive(Clone, Default)]
struct Digest(Xxh3Default);

impl Digest {
    fn add(&mut self, sample_digest: u64) {
        self.0.update(&sample_digest.to_le_bytes());
    }

    fn value(&self) -> u64 {
        self.0.digest()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({:016x})", self.value())
    }
}

/// Ranges of one generation that are written as one object.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    ranges: Vec<Range>,
    /// Of the last range.
    digest: Digest,
}

impl Segment {
    /// Takes a committed step; false when it belongs into a new segment: it is of another generation, or this one is full.
    #[must_use]
    pub fn add(&mut self, record: &StepRecord, unix_ms: i64) -> bool {
        let stride = self.ranges.last().and_then(|range| range.continued_by(record));
        let full = self.is_full();
        match (self.ranges.last_mut(), stride) {
            (Some(last), Some(stride)) => {
                last.stride = stride;
                last.steps += 1;
                last.last_unix_ms = unix_ms;
            }
            (Some(last), None) if last.generation != record.generation || full => return false,
            _ => {
                self.digest = Digest::default();
                self.ranges.push(Range {
                    step: record.step,
                    steps: 1,
                    epoch: record.epoch,
                    generation: record.generation,
                    lanes: record.lanes.iter().map(|lane| (lane.lane, lane.first_position)).collect(),
                    first_unix_ms: unix_ms,
                    last_unix_ms: unix_ms,
                    ..Range::default()
                });
            }
        }
        record.lanes.iter().for_each(|lane| self.digest.add(lane.sample_digest));
        if let Some(last) = self.ranges.last_mut() {
            last.digest = self.digest.value();
        }
        true
    }

    fn is_full(&self) -> bool {
        self.ranges.iter().map(|range| range.lanes.len().max(1)).sum::<usize>() >= SEGMENT_LANES
    }

    /// The ranges, in the order in which their first steps were committed.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}

/// Writes ranges of one generation as one segment, named by the first. Writing more from the same first step replaces the
/// shorter one; no ranges are nothing to write.
///
/// # Errors
/// When the store fails.
pub async fn write_segment(store: &Store, ranges: &[Range]) -> Result<(), StorageError> {
    let Some(first) = ranges.first() else { return Ok(()) };
    let mut body = Vec::new();
    for range in ranges {
        // Structures of numbers, strings and lists always have a JSON text.
        body.extend(serde_json::to_vec(range).unwrap_or_default());
        body.push(b'\n');
    }
    let mut text = format!("{MAGIC} {}\n", blake3::hash(&body).to_hex()).into_bytes();
    text.extend(body);
    store.put(&key(first.step, first.generation), text).await
}

/// All ranges as they were written, also those that were rolled back: by generation, then in the order of their segments.
///
/// # Errors
/// [`LedgerError::Damaged`] names the segment.
pub async fn read_all(store: &Store) -> Result<Vec<Range>, LedgerError> {
    let mut segments: Vec<(u64, u64, String)> = Vec::new();
    for (key, _) in store.list(PREFIX).await? {
        let reason = "its name is not that of a segment".to_owned();
        segments.push(parse_key(&key).ok_or_else(|| LedgerError::Damaged { url: store.url_of(&key), reason })?);
    }
    segments.sort();
    let reads = stream::iter(segments.into_iter().map(|segment| read_segment(store.clone(), segment)));
    let read: Vec<Vec<Range>> = reads.buffered(IN_FLIGHT).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

async fn read_segment(store: Store, (generation, first, key): (u64, u64, String)) -> Result<Vec<Range>, LedgerError> {
    let bytes = store.get(&key).await?;
    parse_segment(&bytes, generation, first).map_err(|reason| LedgerError::Damaged { url: store.url_of(&key), reason })
}

fn parse_segment(bytes: &[u8], generation: u64, first: u64) -> Result<Vec<Range>, String> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("it has no first line")?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let digest = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(MAGIC)?.strip_prefix(' '));
    let digest = digest.ok_or("its first line is not a ledger's, or of another version")?;
    if blake3::hash(body).to_hex().as_str() != digest {
        return Err("its content does not match its BLAKE3: it was cut or changed".to_owned());
    }
    let mut ranges: Vec<Range> = Vec::new();
    for line in body.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let range: Range = serde_json::from_slice(line).map_err(|e| format!("range {}: {e}", ranges.len() + 1))?;
        if range.generation != generation {
            return Err(format!("its name says generation {generation}, a range in it says {}", range.generation));
        }
        if range.steps == 0 || range.step.checked_add(range.steps).is_none() {
            return Err(format!("the range from step {} has {} steps", range.step, range.steps));
        }
        ranges.push(range);
    }
    match ranges.first() {
        Some(range) if range.step == first => Ok(ranges),
        Some(range) => Err(format!("its name says step {first}, it begins with step {}", range.step)),
        None => Err("it has no ranges".to_owned()),
    }
}

fn key(first: u64, generation: u64) -> String {
    format!("{PREFIX}/{first:012}-{generation}.jsonl")
}

/// Generation, first step, key.
fn parse_key(key: &str) -> Option<(u64, u64, String)> {
    let (first, generation) = key.rsplit('/').next()?.strip_suffix(".jsonl")?.split_once('-')?;
    Some((generation.parse().ok()?, first.parse().ok()?, key.to_owned()))
}

/// A range, and the steps of it that were not rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// As it was written. Its digest is over all of its steps.
    pub range: Range,
    /// Never empty.
    pub steps: Steps<u64>,
}

/// What the state consists of: from the first step that a later generation wrote, nothing of an earlier one remains.
/// What one generation says twice stays twice.
#[must_use]
pub fn kept(mut ranges: Vec<Range>) -> Vec<Kept> {
    ranges.sort_by_key(|range| (range.generation, range.step));
    let mut kept: Vec<Kept> = Vec::new();
    let mut latest = None;
    for range in ranges {
        if latest != Some(range.generation) {
            latest = Some(range.generation);
            kept.iter_mut().for_each(|before| before.steps.end = before.steps.end.min(range.step));
            kept.retain(|before| !before.steps.is_empty());
        }
        kept.push(Kept { steps: range.step..range.end(), range });
    }
    kept.sort_by_key(|one| one.steps.start);
    kept
}

/// Digests as 16 hexadecimal digits: many readers of JSON keep only 53 bits of a number.
mod hex64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(|e| D::Error::custom(format!("`{text}` is no digest: {e}")))
    }
}

#[cfg(test)]
mod tests;
