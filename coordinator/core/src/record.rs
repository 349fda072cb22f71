//! What the journal says, and what it amounts to when it is read again.

use std::collections::BTreeMap;

use r2o_coordinator_core::{NewJob, Outcome, Resume};
use r2o_types::TrainJob;
use serde::{Deserialize, Serialize};

/// One journal record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Record {
    /// A job was accepted.
    JobSubmitted {
        /// The resolved job.
        job: Box<TrainJob>,
        /// Steps of one epoch on its data set.
        steps_per_epoch: u64,
        /// The highest generation that had worked for it before, also under another coordinator.
        last_generation: u64,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// A generation exists; its number is never used again.
    GenerationOpened {
        /// The job.
        job: String,
        /// The number.
        generation: u64,
        /// Its workers in rank order.
        workers: Vec<String>,
        /// The oldest generation whose state is of the same course as this one's; 0 in records of earlier versions.
        #[serde(default)]
        lineage: u64,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// A checkpoint's manifest was written.
    CheckpointCommitted {
        /// The job.
        job: String,
        /// The generation that took it.
        generation: u64,
        /// Committed steps that it holds.
        step: u64,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// A job ended.
    JobEnded {
        /// The job.
        job: String,
        /// How.
        outcome: End,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
}

/// How a job ended, as the journal spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub(crate) enum End {
    /// All steps are saved.
    Succeeded,
    /// It could not go on.
    Failed {
        /// Why.
        reason: String,
    },
    /// A person stopped it.
    Cancelled {
        /// Why.
        reason: String,
    },
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed { reason } => Self::Failed { reason },
            Outcome::Cancelled { reason } => Self::Cancelled { reason },
        }
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Succeeded => Self::Succeeded,
            End::Failed { reason } => Self::Failed { reason },
            End::Cancelled { reason } => Self::Cancelled { reason },
        }
    }
}

/// What the journal amounts to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Replayed {
    /// Jobs as the core takes them, in the order of their submission.
    pub(crate) jobs: Vec<NewJob>,
    /// The highest generation.
    pub(crate) last_generation: u64,
}

/// A record that cannot be understood: written by a newer version, or not by a coordinator.
#[derive(Debug, thiserror::Error)]
#[error(
    "journal record {number} cannot be understood; it was written by another version, nothing is started without it"
)]
pub struct UnknownRecord {
    /// Its number.
    pub number: u64,
    #[source]
    source: serde_json::Error,
}

/// Reads the journal. A job that had not ended goes back to the queue and looks for its newest checkpoint.
pub(crate) fn replay(records: &[(u64, Vec<u8>)]) -> Result<Replayed, UnknownRecord> {
    let mut jobs: BTreeMap<String, NewJob> = BTreeMap::new();
    let mut checkpoints: BTreeMap<String, u64> = BTreeMap::new();
    let mut last_generation = 0;
    for (number, bytes) in records {
        let record = serde_json::from_slice(bytes).map_err(|source| UnknownRecord { number: *number, source })?;
        match record {
            Record::JobSubmitted { job, steps_per_epoch, last_generation: floor, unix_ms } => {
                last_generation = last_generation.max(floor);
                let name = job.metadata.name.clone();
                checkpoints.remove(&name);
                let new = NewJob {
                    job: *job,
                    steps_per_epoch,
                    order: *number,
                    submitted_at: unix_ms,
                    last_generation: floor,
                    lineage: 0,
                    last_workers: Vec::new(),
                    resume: Resume::Locate,
                };
                jobs.insert(name, new);
            }
            Record::GenerationOpened { job, generation, workers, lineage, .. } => {
                last_generation = last_generation.max(generation);
                if let Some(job) = jobs.get_mut(&job) {
                    job.last_generation = job.last_generation.max(generation);
                    (job.lineage, job.last_workers) = (lineage, workers);
                }
            }
            Record::CheckpointCommitted { job, step, .. } => _ = checkpoints.insert(job, step),
            Record::JobEnded { job: name, outcome, unix_ms } => {
                let checkpoint = checkpoints.get(&name).copied();
                if let Some(job) = jobs.get_mut(&name) {
                    job.resume = Resume::Ended { outcome: outcome.into(), at: unix_ms, checkpoint };
                }
            }
        }
    }
    let mut jobs: Vec<NewJob> = jobs.into_values().collect();
    jobs.sort_by_key(|j| j.order);
    Ok(Replayed { jobs, last_generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Box<TrainJob> {
        let text = format!(
            "{{apiVersion: r2o.dev/v1, kind: TrainJob, metadata: {{name: {name}}}, spec: {{data: {{url: /set}}}}}}"
        );
        Box::new(TrainJob::parse(&text).unwrap())
    }

    fn journal(records: &[Record]) -> Vec<(u64, Vec<u8>)> {
        (0..).zip(records.iter().map(|r| serde_json::to_vec(r).unwrap())).collect()
    }

    #[test]
    fn what_had_not_ended_is_queued_again_and_numbers_go_on() {
        let submitted =
            |name| Record::JobSubmitted { job: job(name), steps_per_epoch: 7, last_generation: 0, unix_ms: 5 };
        let records = journal(&[
            submitted("a"),
            submitted("b"),
            Record::GenerationOpened {
                job: "a".into(),
                generation: 4,
                workers: vec!["w".into()],
                lineage: 3,
                unix_ms: 6,
            },
            Record::CheckpointCommitted { job: "a".into(), generation: 4, step: 9, unix_ms: 7 },
            Record::JobEnded { job: "a".into(), outcome: End::Cancelled { reason: "x".into() }, unix_ms: 8 },
        ]);
        let replayed = replay(&records).unwrap();
        assert_eq!(replayed.last_generation, 4);
        assert_eq!((replayed.jobs[0].lineage, &replayed.jobs[0].last_workers), (3, &vec!["w".to_owned()]));
        assert_eq!(replayed.jobs.iter().map(|j| j.order).collect::<Vec<_>>(), [0, 1]);
        assert!(matches!(replayed.jobs[0].resume, Resume::Ended { checkpoint: Some(9), at: 8, .. }));
        assert_eq!(replayed.jobs[1].resume, Resume::Locate);
    }

    #[test]
    fn a_job_submitted_again_is_open_again() {
        let submitted = || Record::JobSubmitted { job: job("a"), steps_per_epoch: 7, last_generation: 2, unix_ms: 5 };
        let ended = Record::JobEnded { job: "a".into(), outcome: End::Succeeded, unix_ms: 8 };
        let replayed = replay(&journal(&[submitted(), ended, submitted()])).unwrap();
        assert_eq!(replayed.jobs.len(), 1);
        assert_eq!((replayed.jobs[0].order, &replayed.jobs[0].resume), (2, &Resume::Locate));
        assert_eq!(replayed.last_generation, 2);
    }

    #[test]
    fn an_unknown_record_is_named() {
        let error = replay(&[(3, b"{\"kind\":\"future\"}".to_vec())]).unwrap_err();
        assert!(error.to_string().contains("journal record 3"), "{error}");
    }
}
