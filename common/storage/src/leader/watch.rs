//! Waiting for the lead, by one's own clock.

use super::{AcquireError, Holder, Lease, Record, held, numbers, read, take};
use crate::Store;

/// Length of a lease whose record does not say it.
const UNKNOWN_TTL_MS: i64 = 60_000;

/// Looks at the lease from time to time, and says when it is over.
///
/// Clocks differ between machines, by a day where somebody sets one wrong. What the lease says of its end is not consulted
/// here, therefore: it is over when nobody renewed it for its whole length, measured by this process.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    /// The newest lease and since when it has not changed.
    seen: Option<(u64, Record, i64)>,
}

impl Watch {
    /// Nothing is known yet.
    pub fn new(store: Store) -> Self {
        Self { store, seen: None }
    }

    /// Who leads; `None`: nobody does any more. `now` is in milliseconds of any clock that does not jump.
    ///
    /// # Errors
    /// When the store fails or the lease is damaged.
    pub async fn leader(&mut self, now_ms: i64) -> Result<Option<Holder>, AcquireError> {
        let newest = numbers(&self.store).await?.last().copied();
        let Some(number) = newest else {
            self.seen = None;
            return Ok(None);
        };
        // One that is gone already has made room for a newer one, which the next look finds.
        let Some(record) = read(&self.store, number).await? else { return Ok(self.seen_holder()) };
        let since = match &self.seen {
            Some((old, before, since)) if *old == number && *before == record => *since,
            _ => now_ms,
        };
        let ttl = if record.ttl_ms > 0 { record.ttl_ms } else { UNKNOWN_TTL_MS };
        let free = record.expires_unix_ms == 0 || record.holder.is_dead() || now_ms - since >= ttl;
        let holder = (!free).then(|| record.holder.clone());
        self.seen = Some((number, record, since));
        Ok(holder)
    }

    fn seen_holder(&self) -> Option<Holder> {
        self.seen.as_ref().map(|(_, record, _)| record.holder.clone())
    }

    /// Takes the lead over from the lease that was seen to be over.
    ///
    /// # Errors
    /// [`AcquireError::HeldBy`] when another was quicker, or the lease was renewed after all.
    pub async fn take_over(self, holder: Holder, ttl_ms: i64, now_unix_ms: i64) -> Result<Lease, AcquireError> {
        let Some((number, record, _)) = self.seen else {
            return take(&self.store, 0, holder, ttl_ms, now_unix_ms).await;
        };
        match read(&self.store, number).await? {
            Some(now) if now != record => Err(held(&self.store, now)),
            _ => take(&self.store, number + 1, holder, ttl_ms, now_unix_ms).await,
        }
    }
}
