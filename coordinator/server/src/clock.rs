//! Milliseconds since 1970 that never go back, whatever happens to the system's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use r2o_coordinator_core::Millis;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    start_ms: Millis,
}

impl Clock {
    /// The system's clock is read once, here: that it is set to another time later changes nothing, neither for the
    /// leases of workers nor for the lead.
    pub(crate) fn starting_at(wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
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
        let ahead = Duration::from_millis(at.saturating_sub(self.start_ms));
        tokio::time::Instant::from_std(self.start + ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_where_it_began_whatever_the_systems_clock_says() {
        let day = Duration::from_secs(86_400);
        for wall in [SystemTime::now() - day, SystemTime::now() + day, UNIX_EPOCH - day] {
            let clock = Clock::starting_at(wall);
            let first = clock.now();
            assert_eq!(first / 1_000, wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()), "{wall:?}");
            assert!(clock.now() - first < 60_000);
            assert!(clock.instant(first + 5_000) > tokio::time::Instant::now());
        }
    }
}
