//! Who leads: a lease on numbered objects.
//!
//! Lease `n` is the object `leader/<n, 8 digits>.json`, put only if absent. Its holder renews by overwriting its own
//! number. When it has expired (or its process is known to be dead) another coordinator takes over by creating `n + 1`,
//! and the old one loses the moment that `n + 1` exists. No conditional overwrite is needed, which local folders lack.
//!
//! Clocks may differ between machines: the lease only keeps two coordinators from working on one state at once for long.
//! What makes it impossible that both change anything is the journal ([`crate::journal`]).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Put, StorageError, Store};

mod holder;
mod watch;

pub use holder::Holder;
pub use watch::Watch;

const PREFIX: &str = "leader";

/// The content of a lease object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    holder: Holder,
    nonce: String,
    expires_unix_ms: i64,
    /// How long it holds without being renewed; 0 in leases of earlier versions.
    #[serde(default)]
    ttl_ms: i64,
}

/// Why the lease was not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// Another coordinator leads.
    #[error(
        "{url} is led by another coordinator ({holder}) until {expires_unix_ms} ms; stop it, or let this one wait for it by --standby, or give this one its own state URL"
    )]
    HeldBy {
        /// The state's URL.
        url: String,
        /// Who leads.
        holder: Box<Holder>,
        /// Until when, in milliseconds since 1970, unless it renews.
        expires_unix_ms: i64,
    },
    /// The newest lease object is not what a coordinator writes.
    #[error("lease {url} is damaged: {reason}; remove it when no coordinator runs on this state")]
    Damaged {
        /// The object.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why the lease was not renewed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// Another coordinator took over.
    #[error("another coordinator took over the state under {url}; this one leads no more")]
    Lost {
        /// The state's URL.
        url: String,
    },
    /// The store failed; the lease holds until it expires.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The right to lead, until it expires or another takes over.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    number: u64,
    record: Record,
}

/// Tries once to become the leader. `now` is in milliseconds since 1970, `ttl` in milliseconds.
///
/// A lease whose process provably died on this very machine ([`Holder::is_dead`]) is taken over at once.
///
/// # Errors
/// [`AcquireError::HeldBy`] when another leads, or was quicker.
pub async fn acquire(store: &Store, holder: Holder, ttl_ms: i64, now_unix_ms: i64) -> Result<Lease, AcquireError> {
    let newest = numbers(store).await?.last().copied();
    if let Some(number) = newest
        && let Some(record) = read(store, number).await?
        && record.expires_unix_ms > now_unix_ms
        && !record.holder.is_dead()
    {
        return Err(held(store, record));
    }
    take(store, newest.map_or(0, |n| n + 1), holder, ttl_ms, now_unix_ms).await
}

/// Creates lease `number`, unless another was quicker.
async fn take(
    store: &Store,
    number: u64,
    holder: Holder,
    ttl_ms: i64,
    now_unix_ms: i64,
) -> Result<Lease, AcquireError> {
    let nonce = Uuid::new_v4().simple().to_string();
    let record = Record { holder, nonce, expires_unix_ms: now_unix_ms + ttl_ms, ttl_ms };
    let put = store.put_if_absent(&key(number), text(&record)).await?;
    if put == Put::Exists {
        // A put whose answer was lost is tried again and then finds itself; the nonce tells.
        match read(store, number).await? {
            Some(theirs) if theirs.nonce != record.nonce => return Err(held(store, theirs)),
            _ => {}
        }
    }
    let lease = Lease { store: store.clone(), number, record };
    if let Err(e) = lease.forget_older().await {
        // Old leases are only litter: the next leader tries again.
        tracing::debug!(error = %e, "old leases stay");
    }
    Ok(lease)
}

fn held(store: &Store, record: Record) -> AcquireError {
    AcquireError::HeldBy {
        url: store.url().to_owned(),
        holder: Box::new(record.holder),
        expires_unix_ms: record.expires_unix_ms,
    }
}

/// Who leads now, and until when (milliseconds since 1970); `None` when nobody ever did or the last one gave it back.
///
/// # Errors
/// When the store fails or the lease is damaged.
pub async fn current(store: &Store) -> Result<Option<(Holder, i64)>, AcquireError> {
    let Some(number) = numbers(store).await?.last().copied() else { return Ok(None) };
    let record = read(store, number).await?;
    Ok(record.filter(|r| r.expires_unix_ms > 0).map(|r| (r.holder, r.expires_unix_ms)))
}

impl Lease {
    /// The lease's number; each take-over has a higher one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it was had or last renewed, in milliseconds since 1970.
    pub fn had_at(&self) -> u64 {
        u64::try_from(self.record.expires_unix_ms - self.record.ttl_ms).unwrap_or(0)
    }

    /// When it ends unless renewed, in milliseconds since 1970.
    pub fn expires_unix_ms(&self) -> i64 {
        self.record.expires_unix_ms
    }

    /// Prolongs the lease from `now`; to be called several times within its length.
    ///
    /// # Errors
    /// [`RenewError::Lost`] when another took over.
    pub async fn renew(&mut self, now_unix_ms: i64) -> Result<(), RenewError> {
        self.write(now_unix_ms + self.record.ttl_ms).await
    }

    /// Gives the lease back so that the next coordinator need not wait.
    ///
    /// # Errors
    /// When the store fails, or the lease was lost already.
    pub async fn release(mut self) -> Result<(), RenewError> {
        self.write(0).await
    }

    async fn write(&mut self, expires_unix_ms: i64) -> Result<(), RenewError> {
        // An expired lease that nobody took is still ours. Between this look and the put another may take over; the put
        // then changes an object that no longer counts, and the next look tells.
        if numbers(&self.store).await?.last().is_some_and(|newest| *newest > self.number) {
            return Err(RenewError::Lost { url: self.store.url().to_owned() });
        }
        self.record.expires_unix_ms = expires_unix_ms;
        self.store.put(&key(self.number), text(&self.record)).await?;
        Ok(())
    }

    /// Keeps one older lease, as a trace of who led before, and removes the rest.
    async fn forget_older(&self) -> Result<(), StorageError> {
        for old in numbers(&self.store).await?.into_iter().filter(|n| n + 1 < self.number) {
            self.store.delete(&key(old)).await?;
        }
        Ok(())
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}/{number:08}.json")
}

fn text(record: &Record) -> String {
    // A structure of strings and integers always has a JSON text.
    serde_json::to_string_pretty(record).unwrap_or_default()
}

async fn numbers(store: &Store) -> Result<Vec<u64>, StorageError> {
    let found = store.list(PREFIX).await?;
    let number = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    Ok(found.iter().filter_map(|(key, _)| number(key)).collect())
}

async fn read(store: &Store, number: u64) -> Result<Option<Record>, AcquireError> {
    let key = key(number);
    let Some(bytes) = store.get_if_exists(&key).await? else { return Ok(None) };
    let damaged = |e: serde_json::Error| AcquireError::Damaged { url: store.url_of(&key), reason: e.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests;
