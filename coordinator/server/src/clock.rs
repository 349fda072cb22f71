//! Milliseconds since 1970 that never go back, whatever happens to the system's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use r2o_coordinator_core::Millis;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    start_ms: Millis,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_ms: u64::try_from(since.as_millis()).unwrap_or(0) }
    }

    pub(crate) fn now(&self) -> Millis {
        self.start_ms + u64::try_from(self.start.elapsed().as_millis()).unwrap_or(0)
    }

    pub(crate) fn unix_ms(&self) -> i64 {
        i64::try_from(self.now()).unwrap_or(i64::MAX)
    }

    /// The instant of a time of this clock.
    pub(crate) fn instant(&self, at: Millis) -> tokio::time::Instant {
        let ahead = std::time::Duration::from_millis(at.saturating_sub(self.start_ms));
        tokio::time::Instant::from_std(self.start + ahead)
    }
}
