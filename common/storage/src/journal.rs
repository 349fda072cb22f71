//! The coordinator's numbered records: the truth about every job.
//!
//! Record `n` is the object `journal/<n, 12 digits>.rec`, put only if absent. Of two coordinators that believe to lead,
//! the one whose put loses learns it there and then ([`AppendError::LostLeadership`]) and must change nothing more. This,
//! not the lease of [`crate::leader`], is what fences; the lease only keeps coordinators from trying.
//!
//! Trimming makes numbers free again, and who was away for long may still put there. So the first number that counts is
//! written down before anything is deleted, as the name of an empty object, `journal/first/<n, 12 digits>`; of several the
//! highest holds, and what lies below it counts for nobody.
//!
//! A record's text is one line (format, writer, BLAKE3 of the payload) followed by the payload.

use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use crate::{Put, StorageError, Store};

const PREFIX: &str = "journal";
/// The names below it are numbers: the journal begins with the highest.
const FIRST: &str = "journal/first";
const MAGIC: &str = "r2o-journal-1";
/// Records that are read at once when replaying.
const IN_FLIGHT: usize = 16;

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A record is not what was written.
    #[error("journal record {url} is damaged: {reason}; restore it from a copy, nothing is started without it")]
    Damaged {
        /// The record.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A number from the first that counts to the last record has no record.
    #[error(
        "journal under {url} lacks record {missing} although later ones were written; restore it, nothing is started without it"
    )]
    Gap {
        /// The journal.
        url: String,
        /// The first number that is missing.
        missing: u64,
    },
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another coordinator wrote this record first: this one leads no more.
    #[error(
        "another coordinator wrote journal record {number} ({url}) first; this one leads no more and changes nothing"
    )]
    LostLeadership {
        /// The number.
        number: u64,
        /// The record.
        url: String,
    },
    /// The caller's number is not the next one.
    #[error("journal record {number} is not the next one, {expected} is")]
    OutOfOrder {
        /// What was given.
        number: u64,
        /// What would be right.
        expected: u64,
    },
    /// The store failed, and it is unknown whether the record exists. Appending the same record again is safe.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The journal, open for appending by one coordinator.
#[derive(Debug)]
pub struct Journal {
    store: Store,
    writer: String,
    next: u64,
}

impl Journal {
    /// Reads all records in order (number, payload) and prepares to append the next one. Numbers start at 0 unless the
    /// front was [trimmed](trim).
    ///
    /// # Errors
    /// When a record is damaged or missing, or the store fails.
    pub async fn open(store: &Store) -> Result<(Self, Vec<(u64, Vec<u8>)>), JournalError> {
        let store = store.clone();
        let (first, records) = loop {
            let (first, there) = numbers(&store).await?;
            if let Some(missing) = first_gap(first, &there) {
                if appeared(&store, first, missing).await? {
                    continue;
                }
                return Err(JournalError::Gap { url: store.url_of(PREFIX), missing });
            }
            let reads = stream::iter(there.iter().copied().map(|number| read(store.clone(), number)));
            let read: Result<Vec<(u64, Vec<u8>)>, _> = reads.buffered(IN_FLIGHT).try_collect().await;
            match read {
                Ok(records) => break (first, records),
                // Trimmed since it was listed, or lost.
                Err(JournalError::Storage(error)) if error.is_not_found() && self::first(&store).await? != first => {}
                Err(error) => return Err(error),
            }
        };
        let next = records.last().map_or(first, |(last, _)| last + 1);
        Ok((Self { store, writer: Uuid::new_v4().simple().to_string(), next }, records))
    }

    /// The number that the next record must have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends record `number`, which must be [`next`](Self::next). When it returns `Ok` the record is durable.
    ///
    /// # Errors
    /// [`AppendError::LostLeadership`] when another coordinator was first. After [`AppendError::Storage`] the same append
    /// may be tried again.
    pub async fn append(&mut self, number: u64, payload: &[u8]) -> Result<(), AppendError> {
        if number != self.next {
            return Err(AppendError::OutOfOrder { number, expected: self.next });
        }
        let record = frame(&self.writer, payload);
        let key = key(number);
        // A put whose answer was lost is tried again and then finds itself; the writer's name in the record tells.
        let ours = match self.store.put_if_absent(&key, record.clone()).await? {
            Put::Created => true,
            Put::Exists => match self.store.get(&key).await {
                Ok(there) => there == record,
                // It was another's, and is trimmed.
                Err(error) if error.is_not_found() => false,
                Err(error) => return Err(error.into()),
            },
        };
        // Others may have gone on and trimmed beyond this number, which made it free. The next trim sweeps what was put.
        if !ours || number < first(&self.store).await? {
            return Err(AppendError::LostLeadership { number, url: self.store.url_of(&key) });
        }
        self.next += 1;
        Ok(())
    }
}

/// What lies in the place of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The record's payload.
    Record(Vec<u8>),
    /// It is not what was written.
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing, although later records exist.
    Missing,
}

/// Every number from the first record to the last with what lies there, without an open journal: for looking at one that is
/// broken, or that another coordinator writes.
///
/// # Errors
/// When the store fails.
pub async fn inspect(store: &Store) -> Result<Vec<(u64, Found)>, StorageError> {
    let (first, there) = numbers(store).await?;
    let Some(last) = there.last().copied().or((first > 0).then_some(first)) else { return Ok(Vec::new()) };
    let look = |number: u64| {
        let (store, there) = (store.clone(), there.binary_search(&number).is_ok());
        async move {
            if !there {
                return Ok((number, Found::Missing));
            }
            let found = match read(store, number).await {
                Ok((_, payload)) => Found::Record(payload),
                Err(JournalError::Damaged { reason, .. }) => Found::Damaged { reason },
                Err(JournalError::Gap { .. }) => Found::Missing,
                // Trimmed since it was listed.
                Err(JournalError::Storage(e)) if e.is_not_found() => Found::Missing,
                Err(JournalError::Storage(e)) => return Err(e),
            };
            Ok((number, found))
        }
    };
    stream::iter((first..=last).map(look)).buffered(IN_FLIGHT).try_collect().await
}

/// The URL of a record, for messages.
#[must_use]
pub fn url_of(store: &Store, number: u64) -> String {
    store.url_of(&key(number))
}

/// Lets the journal begin with record `number`, once that record repeats what those before it said, and deletes them, oldest
/// first.
///
/// # Errors
/// When the store fails; calling again goes on.
pub async fn trim(store: &Store, number: u64) -> Result<(), JournalError> {
    store.put_if_absent(&format!("{FIRST}/{number:012}"), Vec::new()).await?;
    let below = |(key, _): (String, u64)| number_of(&key).is_some_and(|old| old < number).then_some(key);
    for old in store.list(PREFIX).await?.into_iter().filter_map(below) {
        store.delete(&old).await?;
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("{PREFIX}/{number:012}.rec")
}

/// The number of a record or of a [`FIRST`].
fn number_of(key: &str) -> Option<u64> {
    let name = key.rsplit('/').next()?;
    name.strip_suffix(".rec").unwrap_or(name).parse().ok()
}

/// The first number that counts.
async fn first(store: &Store) -> Result<u64, StorageError> {
    let marks = store.list(FIRST).await?;
    Ok(marks.iter().filter_map(|(key, _)| number_of(key)).max().unwrap_or(0))
}

/// The first number that counts, and all there are from it on, sorted.
async fn numbers(store: &Store) -> Result<(u64, Vec<u64>), StorageError> {
    let found = store.list(PREFIX).await?;
    // Asked for after the listing: what was deleted while it was made is below this.
    let first = first(store).await?;
    let number = |key: &str| key.strip_suffix(".rec").and_then(number_of).filter(|number| *number >= first);
    Ok((first, found.iter().filter_map(|(key, _)| number(key)).collect()))
}

/// Whether what a listing lacked is there, or no longer needed: a listing that is made while another coordinator appends
/// may hold a later record without an earlier one.
async fn appeared(store: &Store, first: u64, missing: u64) -> Result<bool, StorageError> {
    Ok(store.head(&key(missing)).await?.is_some() || self::first(store).await? != first)
}

/// The first number without a record. Where a journal begins with a later record than 0 there is one at least: a new start in
/// its place would forget every job.
fn first_gap(first: u64, numbers: &[u64]) -> Option<u64> {
    if numbers.is_empty() {
        return (first > 0).then_some(first);
    }
    (first..).zip(numbers).find(|(expected, number)| expected != *number).map(|(expected, _)| expected)
}

async fn read(store: Store, number: u64) -> Result<(u64, Vec<u8>), JournalError> {
    let key = key(number);
    let bytes = store.get(&key).await?;
    let payload =
        unframe(&bytes).map_err(|reason| JournalError::Damaged { url: store.url_of(&key), reason: reason.into() })?;
    Ok((number, payload.to_vec()))
}

fn frame(writer: &str, payload: &[u8]) -> Vec<u8> {
    let mut record = format!("{MAGIC} {writer} {}\n", blake3::hash(payload).to_hex()).into_bytes();
    record.extend_from_slice(payload);
    record
}

fn unframe(record: &[u8]) -> Result<&[u8], &'static str> {
    let end = record.iter().position(|b| *b == b'\n').ok_or("it has no first line")?;
    let (line, payload) = (&record[..end], &record[end + 1..]);
    let line = std::str::from_utf8(line).map_err(|_| "its first line is not text")?;
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Err("its first line is not a journal's, or of another version");
    }
    let digest = words.nth(1).ok_or("its first line has no checksum")?;
    if blake3::hash(payload).to_hex().as_str() != digest {
        return Err("its content does not match its BLAKE3");
    }
    Ok(payload)
}

#[cfg(test)]
mod tests;
