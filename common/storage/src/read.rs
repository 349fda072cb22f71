//! Ranged reads that get through: tried again after a jittered wait, hedged where one is much slower than its like, with
//! budgets for both, and measured, so that whoever reads ahead knows how far.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{Either, select};
use r2o_types::Keyed;
use tokio::sync::Semaphore;

use crate::{Operation, StorageError, Store};

/// Reads that latencies are taken from.
const RECENT: usize = 128;
/// Fewer say too little of a percentile.
const RECENT_LEAST: usize = 16;
/// No hedge earlier: a second request is not free either.
const HEDGE_LEAST: Duration = Duration::from_millis(5);
/// Retries beyond their share of requests, so that the first failures of a run are no exception.
const RETRIES_FREE: u64 = 16;
/// Busy time after which earlier measurements count half.
const MEMORY: Duration = Duration::from_secs(4);

/// How reads are made.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// Reads at a time; later ones wait their turn in order.
    pub concurrent: usize,
    /// One request, body included, may take so long.
    pub attempt: Duration,
    /// How long a read is tried again after its first failure.
    pub patience: Duration,
    /// The first wait after a failure is at most this; each later one at most twice as long. All are drawn evenly from 0.
    pub backoff_first: Duration,
    /// The longest wait.
    pub backoff_most: Duration,
    /// Retries in a hundred requests; beyond them every wait is the longest, so that an ailing store is not flooded.
    pub retry_percent: u64,
    /// A read that takes longer than so many in a hundred of the last ones is asked for once more, and the first answer
    /// counts. 100: never.
    pub hedge_percentile: u64,
    /// Hedges in a hundred requests, at most.
    pub hedge_percent: u64,
    /// Bytes of hedges at a time, at most: they are not in the reader's own account of memory.
    pub hedge_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            concurrent: 16,
            attempt: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            backoff_first: Duration::from_millis(50),
            backoff_most: Duration::from_secs(3),
            retry_percent: 20,
            hedge_percentile: 95,
            hedge_percent: 5,
            hedge_bytes: 64 << 20,
        }
    }
}

/// What reads cost: counters that only grow.
#[derive(Debug, Default)]
pub struct ReadCounts {
    /// Requests, retries and hedges included.
    pub requests: AtomicU64,
    /// Bytes that came, and those of hedges: what a store may put on the bill.
    pub bytes: AtomicU64,
    /// Requests after a failure.
    pub retries: AtomicU64,
    /// Second requests for what was slow.
    pub hedges: AtomicU64,
    /// Those of them that answered first.
    pub hedges_won: AtomicU64,
}

/// How fast reads are at the moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// What nine reads in ten take at most.
    pub latency: Duration,
    /// All reads at a time together.
    pub bytes_per_second: f64,
}

/// A store that is read by ranges.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    options: ReadOptions,
    turns: Semaphore,
    recent: Mutex<Recent>,
    own: ReadCounts,
    hedging: AtomicU64,
    draws: Mutex<Keyed>,
}

#[derive(Debug, Default)]
struct Recent {
    took: VecDeque<Duration>,
    reading: u32,
    busy_since: Option<Instant>,
    busy: Duration,
    bytes: f64,
}

impl Reader {
    /// Reads from `store`, which should not try again by itself: see [`crate::open::open_once`].
    #[must_use]
    pub fn new(store: Store, options: ReadOptions) -> Self {
        let turns = Semaphore::new(options.concurrent.max(1));
        let (one, other) = uuid::Uuid::new_v4().as_u64_pair();
        let draws = Mutex::new(Keyed::new("backoff", &[one, other]));
        Self {
            store,
            options,
            turns,
            recent: Mutex::default(),
            own: ReadCounts::default(),
            hedging: AtomicU64::new(0),
            draws,
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How reads are made.
    #[must_use]
    pub fn options(&self) -> &ReadOptions {
        &self.options
    }

    /// What was measured of the last reads; `None`: too little yet.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let recent = self.recent();
        let busy = recent.busy + recent.busy_since.map_or(Duration::ZERO, |since| since.elapsed());
        let latency = recent.percentile(90, 1)?;
        Some(Pace { latency, bytes_per_second: recent.bytes / busy.as_secs_f64().max(1e-6) })
    }

    /// The bytes of `range`; fewer when the object ends before it does. `counts` is added to.
    ///
    /// # Errors
    /// As [`Store::get_range`]; what may pass is tried again until patience ends.
    pub async fn get_range(&self, key: &str, range: Range<u64>, counts: &ReadCounts) -> Result<Bytes, StorageError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let mut failing: Option<Instant> = None;
        let mut failures = 0;
        loop {
            let error = match self.hedged(key, &range, counts).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            let since = *failing.get_or_insert_with(Instant::now);
            if !error.is_transient() || since.elapsed() >= self.options.patience {
                return Err(error);
            }
            let wait = self.backoff(failures);
            tracing::debug!(key, failures, ?wait, "{error}: trying again");
            tokio::time::sleep(wait).await;
            count(&self.own.retries, &counts.retries, 1);
            failures += 1;
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        let ReadOptions { backoff_first, backoff_most, retry_percent, .. } = self.options;
        let (retries, requests) = (self.own.retries.load(Relaxed), self.own.requests.load(Relaxed));
        let spent = retries > RETRIES_FREE + requests * retry_percent / 100;
        let most =
            if spent { backoff_most } else { backoff_first.saturating_mul(1 << failures.min(16)).min(backoff_most) };
        most.mul_f64(self.draws.lock().unwrap_or_else(PoisonError::into_inner).uniform())
    }

    /// One try: a request, and a second one when the first is slow.
    async fn hedged(&self, key: &str, range: &Range<u64>, counts: &ReadCounts) -> Result<Bytes, StorageError> {
        let reading = Reading::begin(self);
        let first = std::pin::pin!(self.attempt(key, range, counts));
        let first = match self.hedge_after() {
            None => return reading.end(first.await),
            Some(delay) => match select(first, std::pin::pin!(tokio::time::sleep(delay))).await {
                Either::Left((done, _)) => return reading.end(done),
                Either::Right(((), first)) => first,
            },
        };
        let Some(_hedging) = Hedging::begin(self, range.end - range.start, counts) else {
            return reading.end(first.await);
        };
        let second = std::pin::pin!(self.attempt(key, range, counts));
        let (done, won) = match select(first, second).await {
            Either::Left((Ok(bytes), _)) => (Ok(bytes), false),
            Either::Right((Ok(bytes), _)) => (Ok(bytes), true),
            // One failed: the other may not.
            Either::Left((Err(_), second)) => (second.await, true),
            Either::Right((Err(_), first)) => (first.await, false),
        };
        counts.hedges_won.fetch_add(u64::from(won && done.is_ok()), Relaxed);
        reading.end(done)
    }

    /// `None`: this store is not hedged, or too little is known yet.
    fn hedge_after(&self) -> Option<Duration> {
        let hedged = self.options.hedge_percentile < 100 && self.store.folder().is_none();
        let delay = if hedged { self.recent().percentile(self.options.hedge_percentile, RECENT_LEAST) } else { None };
        delay.map(|delay| delay.max(HEDGE_LEAST))
    }

    async fn attempt(&self, key: &str, range: &Range<u64>, counts: &ReadCounts) -> Result<Bytes, StorageError> {
        count(&self.own.requests, &counts.requests, 1);
        let read = self.store.get_range(key, range.clone());
        let bytes = tokio::time::timeout(self.options.attempt, read).await.map_err(|elapsed| {
            let (operation, url) = (Operation::Read, self.store.url_of(key));
            StorageError::Unreachable { operation, url, source: Box::new(elapsed) }
        })??;
        counts.bytes.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader's own account decides on budgets; the caller's is for people.
fn count(own: &AtomicU64, theirs: &AtomicU64, more: u64) {
    own.fetch_add(more, Relaxed);
    theirs.fetch_add(more, Relaxed);
}

impl Recent {
    fn percentile(&self, percent: u64, least: usize) -> Option<Duration> {
        if self.took.len() < least {
            return None;
        }
        let mut took: Vec<Duration> = self.took.iter().copied().collect();
        took.sort_unstable();
        took.get((took.len() - 1) * percent as usize / 100).copied()
    }
}

/// A read that is under way, for as long as it is not given up.
struct Reading<'a> {
    reader: &'a Reader,
    start: Instant,
}

impl<'a> Reading<'a> {
    fn begin(reader: &'a Reader) -> Self {
        let start = Instant::now();
        let mut recent = reader.recent();
        recent.reading += 1;
        recent.busy_since.get_or_insert(start);
        Self { reader, start }
    }

    fn end(self, done: Result<Bytes, StorageError>) -> Result<Bytes, StorageError> {
        if let Ok(bytes) = &done {
            let mut recent = self.reader.recent();
            recent.bytes += bytes.len() as f64;
            recent.took.push_back(self.start.elapsed());
            if recent.took.len() > RECENT {
                recent.took.pop_front();
            }
        }
        done
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut recent = self.reader.recent();
        recent.reading -= 1;
        let now = Instant::now();
        let since = if recent.reading == 0 { recent.busy_since.take() } else { recent.busy_since.replace(now) };
        recent.busy += since.map_or(Duration::ZERO, |since| now - since);
        if recent.busy > MEMORY {
            recent.busy /= 2;
            recent.bytes /= 2.0;
        }
    }
}

/// A hedge that is under way.
struct Hedging<'a> {
    reader: &'a Reader,
    bytes: u64,
}

impl<'a> Hedging<'a> {
    /// `None`: a budget is spent.
    fn begin(reader: &'a Reader, bytes: u64, counts: &ReadCounts) -> Option<Self> {
        let ReadOptions { hedge_percent, hedge_bytes, .. } = reader.options;
        let (hedges, requests) = (reader.own.hedges.load(Relaxed), reader.own.requests.load(Relaxed));
        let before = reader.hedging.fetch_add(bytes, Relaxed);
        // Dropping it takes the bytes back.
        let hedging = Self { reader, bytes };
        if before + bytes > hedge_bytes || hedges >= requests * hedge_percent / 100 {
            return None;
        }
        count(&reader.own.hedges, &counts.hedges, 1);
        counts.bytes.fetch_add(bytes, Relaxed);
        Some(hedging)
    }
}

impl Drop for Hedging<'_> {
    fn drop(&mut self) {
        self.reader.hedging.fetch_sub(self.bytes, Relaxed);
    }
}
