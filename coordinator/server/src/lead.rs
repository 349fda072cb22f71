//! Whether this coordinator leads, as far as it can know.

use std::sync::Arc;
use std::time::Duration;

use r2o_storage::Fence;
use r2o_storage::leader::{Lease, RenewError};
use r2o_telemetry::chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::{Metrics, Storage};

/// The lead over a state. It ends with the lease, by this machine's own clock: a process that was stopped and goes on finds
/// it over, and writes nothing until the lease is known to be still its own. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lead {
    clock: Clock,
    known: Arc<watch::Sender<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    /// Until when nobody else may have taken over.
    until: u64,
    /// Looks at the lease so far.
    looks: u64,
    lost: Option<String>,
}

impl Lead {
    /// A lease of `ttl` that was had at `since`.
    pub(crate) fn new(clock: Clock, since: u64, ttl: Duration) -> Self {
        let known = Known { until: since + ms(ttl), looks: 0, lost: None };
        Self { clock, known: Arc::new(watch::Sender::new(known)) }
    }

    /// Whether nobody else can have taken over yet.
    pub(crate) fn holds(&self) -> bool {
        let known = self.known.borrow();
        known.lost.is_none() && self.clock.now() < known.until
    }

    /// What keeps writes from happening while the lead does not hold.
    pub(crate) fn fence(&self) -> Fence {
        let lead = self.clone();
        Fence::new(move || lead.holds())
    }

    /// Waits for the next look at the lease, if the lead does not hold. The error says who took over.
    pub(crate) async fn confirm(&self) -> Result<(), String> {
        if self.holds() {
            return Ok(());
        }
        let mut known = self.known.subscribe();
        let looks = known.borrow().looks;
        // The sender lives as long as this.
        let seen = known.wait_for(|known| known.looks > looks || known.lost.is_some()).await;
        match seen.ok().and_then(|known| known.lost.clone()) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// Renews the lease until the end, then gives it back. The answer says why it was lost, if it was.
    pub(crate) async fn keep(
        self,
        mut lease: Lease,
        ttl: Duration,
        stop: CancellationToken,
        metrics: Metrics,
    ) -> Option<String> {
        let mut beat = tokio::time::interval(ttl / 4);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = beat.tick() => {
                    let from = self.clock.now();
                    let renewed = lease.renew(self.clock.unix_ms()).await;
                    let lost = match renewed {
                        Err(ref error @ RenewError::Lost { .. }) => Some(error.to_string()),
                        Err(ref error) => {
                            Storage::Lease.tried_again(&metrics);
                            tracing::warn!("the leader's lease is not renewed: {}", chain(error));
                            None
                        }
                        Ok(()) => None,
                    };
                    self.known.send_modify(|known| {
                        known.looks += 1;
                        known.until = if renewed.is_ok() { from + ms(ttl) } else { known.until };
                        known.lost.clone_from(&lost);
                    });
                    if lost.is_some() {
                        return lost;
                    }
                }
            }
        }
        give_back(lease).await;
        None
    }
}

/// Lets the next coordinator lead at once.
pub(crate) async fn give_back(lease: Lease) {
    if let Err(error) = lease.release().await {
        tracing::warn!("the leader's lease is not given back: {}", chain(&error));
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
