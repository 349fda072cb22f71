//! What the coordinator says of a job, looked at all the time, also across its restarts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use r2o_proto::v1::jobs_client::JobsClient;
use r2o_proto::v1::{GetJobRequest, JobState};
use r2o_test_kit::wait_until;
use tonic::transport::Endpoint;

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What was seen at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) state: JobState,
    pub(crate) generation: u64,
    pub(crate) step: u64,
    pub(crate) checkpoint: u64,
    /// Members of the generation.
    pub(crate) workers: usize,
}

/// Everything that was seen, one entry per change.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Watch {
    /// Looks at `job` until the watch is dropped.
    pub(crate) fn start(url: &str, job: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(url.to_owned())?.timeout(Duration::from_secs(2)).connect_lazy();
        let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
        let (changes, job) = (Arc::downgrade(&seen), job.to_owned());
        tokio::spawn(async move {
            let mut client = JobsClient::new(channel).max_decoding_message_size(64 << 20);
            let mut beat = tokio::time::interval(BETWEEN_LOOKS);
            beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                let answer = client.get(GetJobRequest { name: job.clone() }).await;
                let Some(changes) = changes.upgrade() else { return };
                // A coordinator that is away says nothing.
                let Ok(job) = answer.map(tonic::Response::into_inner) else { continue };
                let step = job.progress.as_ref().map_or(0, |p| p.step);
                let seen = Seen {
                    at: Instant::now(),
                    state: job.state(),
                    generation: job.generation,
                    step,
                    checkpoint: job.checkpoint_step,
                    workers: job.workers.len(),
                };
                let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
                if changes.last().is_none_or(|last| Seen { at: last.at, ..seen } != *last) {
                    changes.push(seen);
                }
            }
        });
        Ok(Self { seen })
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn last(&self) -> Option<Seen> {
        self.all().last().copied()
    }

    /// The first change from `since` on for which `wanted` holds; an error when the job ends before.
    pub(crate) async fn until(
        &self,
        what: &str,
        deadline: Duration,
        since: Instant,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        wait_until(what, deadline, || async {
            let all = self.all();
            if let Some(seen) = all.iter().filter(|seen| seen.at >= since).find(|seen| wanted(seen)) {
                return Ok(Some(*seen));
            }
            match all.last().map(|seen| seen.state) {
                Some(JobState::Failed | JobState::Cancelled | JobState::Succeeded) => {
                    bail!("the job ended while waiting: {what}")
                }
                _ => Ok(None),
            }
        })
        .await
    }
}
