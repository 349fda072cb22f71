//! What the journal says, and what it amounts to when it is read again. How records are stored is the shell's matter.

use std::collections::BTreeMap;

use r2o_types::TrainJob;
use serde::{Deserialize, Serialize};

use crate::{Command, NewJob, Outcome, Resume};

/// One journal record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Record {
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
    /// A person paused a job.
    JobPaused {
        /// The job.
        job: String,
        /// Why, in the person's words.
        reason: String,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// A paused job goes on.
    JobResumed {
        /// The job.
        job: String,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// A job went behind all others of its priority.
    JobRequeued {
        /// The job.
        job: String,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// All that the records before amount to; they may be gone.
    Snapshot {
        /// The highest generation.
        last_generation: u64,
        /// Jobs by name.
        jobs: BTreeMap<String, JobFacts>,
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

impl Record {
    /// When it was written, in milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        match self {
            Self::JobSubmitted { unix_ms, .. }
            | Self::GenerationOpened { unix_ms, .. }
            | Self::CheckpointCommitted { unix_ms, .. }
            | Self::JobPaused { unix_ms, .. }
            | Self::JobResumed { unix_ms, .. }
            | Self::JobRequeued { unix_ms, .. }
            | Self::Snapshot { unix_ms, .. }
            | Self::JobEnded { unix_ms, .. } => *unix_ms,
        }
    }

    /// The job that it is about; `None`: all of them.
    #[must_use]
    pub fn job(&self) -> Option<&str> {
        match self {
            Self::JobSubmitted { job, .. } => Some(&job.metadata.name),
            Self::GenerationOpened { job, .. }
            | Self::CheckpointCommitted { job, .. }
            | Self::JobPaused { job, .. }
            | Self::JobResumed { job, .. }
            | Self::JobRequeued { job, .. }
            | Self::JobEnded { job, .. } => Some(job),
            Self::Snapshot { .. } => None,
        }
    }

    /// What the journal must say before, or in the case of a checkpoint because, a command is carried out; `None`: nothing.
    #[must_use]
    pub fn of(command: &Command, unix_ms: u64) -> Option<Self> {
        let record = match command.clone() {
            Command::RecordGeneration { job, generation, workers, lineage } => {
                Self::GenerationOpened { job, generation, workers, lineage, unix_ms }
            }
            Command::RecordPaused { job, reason } => Self::JobPaused { job, reason, unix_ms },
            Command::RecordResumed { job } => Self::JobResumed { job, unix_ms },
            Command::RecordRequeued { job } => Self::JobRequeued { job, unix_ms },
            Command::RecordCheckpoint { job, generation, step } => {
                Self::CheckpointCommitted { job, generation, step, unix_ms }
            }
            Command::RecordEnd { job, outcome } => Self::JobEnded { job, outcome: outcome.into(), unix_ms },
            _ => return None,
        };
        Some(record)
    }
}

/// How a job ended, as the journal spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum End {
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

/// What the journal says of one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobFacts {
    /// The resolved job.
    pub job: Box<TrainJob>,
    /// Steps of one epoch on its data set.
    pub steps_per_epoch: u64,
    /// Place in the queue among equal priorities.
    pub order: u64,
    /// Milliseconds since 1970.
    pub submitted_unix_ms: u64,
    /// The highest generation that worked for it.
    pub last_generation: u64,
    /// The oldest generation whose state is of the current course; 0: none.
    pub lineage: u64,
    /// Workers of the newest generation.
    pub last_workers: Vec<String>,
    /// Why a person paused it, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Steps in its newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    /// How and when it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<(End, u64)>,
}

impl JobFacts {
    /// The job as the core takes it. One that had not ended looks for its newest checkpoint.
    fn new_job(&self) -> NewJob {
        let resume = match &self.ended {
            Some((outcome, at)) => {
                Resume::Ended { outcome: outcome.clone().into(), at: *at, checkpoint: self.checkpoint }
            }
            None => Resume::Locate,
        };
        NewJob {
            job: (*self.job).clone(),
            steps_per_epoch: self.steps_per_epoch,
            order: self.order,
            submitted_at: self.submitted_unix_ms,
            last_generation: self.last_generation,
            lineage: self.lineage,
            last_workers: self.last_workers.clone(),
            paused: self.paused.clone(),
            resume,
        }
    }
}

/// Jobs that have ended and that a snapshot still lists; what they made is in their own storage.
const ENDED_KEPT: usize = 500;

/// What the journal amounts to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fold {
    /// The highest generation.
    pub last_generation: u64,
    jobs: BTreeMap<String, JobFacts>,
    /// Records since the last snapshot.
    pub since_snapshot: u64,
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

impl Fold {
    /// Reads the journal: numbers and payloads in order.
    ///
    /// # Errors
    /// When a record cannot be understood, or those before it are gone and no snapshot repeats them.
    pub fn of(records: &[(u64, Vec<u8>)]) -> Result<Self, UnknownRecord> {
        let mut fold = Self::default();
        let mut whole = records.first().is_none_or(|(number, _)| *number == 0);
        for (number, bytes) in records {
            let unknown = |source| UnknownRecord { number: *number, source };
            let record: Record = serde_json::from_slice(bytes).map_err(unknown)?;
            // Trimming goes from the oldest on, and may not have reached the snapshot yet.
            whole |= matches!(record, Record::Snapshot { .. });
            if whole {
                fold.add(*number, record);
            }
        }
        match records.first() {
            Some((number, _)) if !whole => {
                let message = format!("the records before {number} are gone, and there is no snapshot");
                Err(UnknownRecord { number: *number, source: serde::de::Error::custom(message) })
            }
            _ => Ok(fold),
        }
    }

    /// Takes the next record.
    pub fn add(&mut self, number: u64, record: Record) {
        self.since_snapshot += 1;
        match record {
            Record::JobSubmitted { job, steps_per_epoch, last_generation, unix_ms } => {
                self.last_generation = self.last_generation.max(last_generation);
                let name = job.metadata.name.clone();
                let facts = JobFacts {
                    job,
                    steps_per_epoch,
                    order: number,
                    submitted_unix_ms: unix_ms,
                    last_generation,
                    lineage: 0,
                    last_workers: Vec::new(),
                    paused: None,
                    checkpoint: None,
                    ended: None,
                };
                self.jobs.insert(name, facts);
            }
            Record::GenerationOpened { job, generation, workers, lineage, .. } => {
                self.last_generation = self.last_generation.max(generation);
                self.with(&job, |facts| {
                    facts.last_generation = facts.last_generation.max(generation);
                    (facts.lineage, facts.last_workers) = (lineage, workers);
                });
            }
            Record::CheckpointCommitted { job, step, .. } => self.with(&job, |facts| facts.checkpoint = Some(step)),
            Record::JobPaused { job, reason, .. } => self.with(&job, |facts| facts.paused = Some(reason)),
            Record::JobResumed { job, .. } => self.with(&job, |facts| facts.paused = None),
            Record::JobRequeued { job, .. } => self.with(&job, |facts| facts.order = number),
            Record::JobEnded { job, outcome, unix_ms } => {
                self.with(&job, |facts| facts.ended = Some((outcome, unix_ms)));
            }
            Record::Snapshot { last_generation, jobs, .. } => {
                *self = Self { last_generation, jobs, since_snapshot: 0 };
            }
        }
    }

    fn with(&mut self, job: &str, change: impl FnOnce(&mut JobFacts)) {
        if let Some(facts) = self.jobs.get_mut(job) {
            change(facts);
        }
    }

    /// What the journal says of each job, by name.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &JobFacts)> {
        self.jobs.iter().map(|(name, facts)| (name.as_str(), facts))
    }

    /// Jobs as the core takes them, in the order of the queue.
    pub fn jobs(&self) -> Vec<NewJob> {
        let mut jobs: Vec<NewJob> = self.jobs.values().map(JobFacts::new_job).collect();
        jobs.sort_by_key(|j| j.order);
        jobs
    }

    /// One record that says the same as all before; of jobs that ended long ago it says nothing any more.
    pub fn snapshot(&self, unix_ms: u64) -> Record {
        let mut ended: Vec<u64> = self.jobs.values().filter_map(|facts| Some(facts.ended.as_ref()?.1)).collect();
        ended.sort_unstable();
        let oldest = ended.iter().rev().nth(ENDED_KEPT.saturating_sub(1)).copied().unwrap_or(0);
        let stays = |facts: &JobFacts| facts.ended.as_ref().is_none_or(|(_, at)| *at >= oldest);
        let jobs = self.jobs.iter().filter(|(_, facts)| stays(facts)).map(|(n, f)| (n.clone(), f.clone())).collect();
        Record::Snapshot { last_generation: self.last_generation, jobs, unix_ms }
    }
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
        let fold = Fold::of(&records).unwrap();
        let jobs = fold.jobs();
        assert_eq!(fold.last_generation, 4);
        assert_eq!((jobs[0].lineage, &jobs[0].last_workers), (3, &vec!["w".to_owned()]));
        assert_eq!(jobs.iter().map(|j| j.order).collect::<Vec<_>>(), [0, 1]);
        assert!(matches!(jobs[0].resume, Resume::Ended { checkpoint: Some(9), at: 8, .. }));
        assert_eq!(jobs[1].resume, Resume::Locate);
    }

    #[test]
    fn a_job_submitted_again_is_open_again() {
        let submitted = || Record::JobSubmitted { job: job("a"), steps_per_epoch: 7, last_generation: 2, unix_ms: 5 };
        let ended = Record::JobEnded { job: "a".into(), outcome: End::Succeeded, unix_ms: 8 };
        let fold = Fold::of(&journal(&[submitted(), ended, submitted()])).unwrap();
        let jobs = fold.jobs();
        assert_eq!(jobs.len(), 1);
        assert_eq!((jobs[0].order, &jobs[0].resume), (2, &Resume::Locate));
        assert_eq!(fold.last_generation, 2);
    }

    #[test]
    fn a_job_comes_back_with_the_same_bits() {
        let mut job = job("a");
        // One that a hasty reader of JSON gets wrong in the last bit: after a restart the weights would be others.
        job.spec.optimizer.base_learning_rate = 0.010_897_687_145_305_217;
        let submitted = Record::JobSubmitted { job: job.clone(), steps_per_epoch: 7, last_generation: 0, unix_ms: 5 };
        assert_eq!(Fold::of(&journal(&[submitted])).unwrap().jobs()[0].job, *job);
    }

    #[test]
    fn an_unknown_record_is_named() {
        let error = Fold::of(&[(3, b"{\"kind\":\"future\"}".to_vec())]).unwrap_err();
        assert!(error.to_string().contains("journal record 3"), "{error}");
    }

    #[test]
    fn a_snapshot_says_what_the_records_before_it_said() {
        let submitted =
            |name| Record::JobSubmitted { job: job(name), steps_per_epoch: 7, last_generation: 0, unix_ms: 5 };
        let opened = Record::GenerationOpened {
            job: "a".into(),
            generation: 4,
            workers: vec!["w".into()],
            lineage: 3,
            unix_ms: 6,
        };
        let mut records = vec![
            submitted("a"),
            submitted("b"),
            opened,
            Record::JobPaused { job: "b".into(), reason: "later".into(), unix_ms: 7 },
            Record::JobRequeued { job: "a".into(), unix_ms: 7 },
            Record::JobEnded { job: "a".into(), outcome: End::Succeeded, unix_ms: 8 },
        ];
        let before = Fold::of(&journal(&records)).unwrap();
        assert_eq!(before.jobs().iter().map(|j| j.order).collect::<Vec<_>>(), [1, 4], "a went behind b");
        assert_eq!(before.jobs()[0].paused.as_deref(), Some("later"));
        records.push(before.snapshot(9));
        records.push(Record::JobResumed { job: "b".into(), unix_ms: 10 });
        let all = journal(&records);
        let after = Fold::of(&all).unwrap();
        for trimmed in 0..=6 {
            assert_eq!(Fold::of(&all[trimmed..]).unwrap(), after, "with {trimmed} records trimmed");
        }
        assert_eq!((after.jobs().len(), after.since_snapshot), (2, 1));
        assert_eq!(after.jobs()[0].paused, None);
        assert!(Fold::of(&all[7..]).is_err(), "what the snapshot said is lost");
    }

    #[test]
    fn a_snapshot_lists_the_jobs_that_ended_last() {
        let mut fold = Fold::default();
        for n in 0..600_u64 {
            let name = format!("j{n}");
            let submitted =
                Record::JobSubmitted { job: job(&name), steps_per_epoch: 7, last_generation: n, unix_ms: n };
            fold.add(2 * n, submitted);
            if n > 0 {
                fold.add(2 * n + 1, Record::JobEnded { job: name, outcome: End::Succeeded, unix_ms: n });
            }
        }
        let Record::Snapshot { jobs, last_generation, .. } = fold.snapshot(700) else { panic!() };
        assert_eq!((jobs.len(), last_generation), (501, 599));
        assert!(jobs.contains_key("j0") && jobs.contains_key("j599") && !jobs.contains_key("j50"));
    }
}
