//! What the shell must do: a closed enum, and the facts that it carries.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{LaneReport, Outcome, Refusal, Session, Tensor};

/// Membership of one generation as one worker must see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The job.
    pub job: String,
    /// The generation.
    pub generation: u64,
    /// The resolved job as JSON.
    pub spec: Arc<str>,
    /// This worker's place in `members`.
    pub rank: u32,
    /// All members in rank order.
    pub members: Arc<Vec<Member>>,
    /// Committed steps so far. Peers may hold a few more.
    pub step: u64,
    /// Where the state comes from.
    pub start: Start,
}

/// Where the members of a generation have their state from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the job's seed.
    Seed,
    /// From the checkpoint after the assignment's step.
    Checkpoint,
    /// From the member that holds the most steps, provided it had them ready in this generation or a later one.
    Peers {
        /// The oldest generation whose state counts.
        since: u64,
    },
}

/// One worker of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its stream.
    pub session: Session,
    /// Its name.
    pub worker: String,
    /// Host or IP for the data plane.
    pub address: String,
    /// The lanes that it computes.
    pub lanes: Vec<u32>,
}

/// Leave to compute one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket {
    /// The job.
    pub job: String,
    /// The generation.
    pub generation: u64,
    /// 0-based, over the whole job.
    pub step: u64,
    /// 0-based.
    pub epoch: u64,
    /// 0-based, in the epoch.
    pub step_in_epoch: u64,
    /// Clusters per lane.
    pub k: u32,
    /// EMA momentum of the target network.
    pub tau: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Whether ranks report hashes of their state after it.
    pub hash_state: bool,
}

/// A step that all lanes have reported.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedStep {
    /// What was granted.
    pub ticket: Ticket,
    /// Mean over the lanes.
    pub loss: f64,
    /// L2 norm of the mean gradient.
    pub gradient_norm: f64,
    /// Regions that count, mean per image, mean over the lanes.
    pub valid_regions: f64,
    /// Images of all lanes.
    pub images: u64,
    /// Since the step before, or since the generation was ready.
    pub seconds: f64,
    /// Seconds by phase, of the slowest worker.
    pub timings: BTreeMap<String, f64>,
    /// What tells learning from collapse, by name, where workers looked: means over workers by their numbers of lanes.
    pub signals: BTreeMap<String, f64>,
    /// All lanes in order.
    pub lanes: Vec<LaneReport>,
    /// Whether this is the last step of its epoch.
    pub ends_epoch: bool,
}

/// A line of a job's event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// CamelCase, one word per kind.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// Whether a person should look at it.
    pub warning: bool,
}

/// What the shell must do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Write to the journal that a generation exists, before any later command.
    RecordGeneration {
        /// The job.
        job: String,
        /// Its number.
        generation: u64,
        /// Its workers in rank order.
        workers: Vec<String>,
        /// The oldest generation whose state is of the same course as this one's.
        lineage: u64,
    },
    /// Write to the journal that a job is paused.
    RecordPaused {
        /// The job.
        job: String,
        /// Why, in the person's words.
        reason: String,
    },
    /// Write to the journal that a job is not paused any more.
    RecordResumed {
        /// The job.
        job: String,
    },
    /// Write to the journal that a job went behind all others of its priority.
    RecordRequeued {
        /// The job.
        job: String,
    },
    /// Let the rendezvous of this generation, and of no other one of the job, be used.
    OpenRendezvous {
        /// The job.
        job: String,
        /// The generation.
        generation: u64,
    },
    /// Close the rendezvous of the job and wake whoever waits there.
    CloseRendezvous {
        /// The job.
        job: String,
    },
    /// Send a worker its place.
    Assign {
        /// Its stream.
        session: Session,
        /// Its place.
        assignment: Assignment,
    },
    /// Tell a worker to build what it needs for a job that it may soon join; answered by `WorkerPrepared`.
    Prepare {
        /// Its stream.
        session: Session,
        /// The job.
        job: String,
        /// The resolved job as JSON.
        spec: Arc<str>,
    },
    /// Send a ticket to all members.
    Grant {
        /// Their streams.
        sessions: Vec<Session>,
        /// The ticket.
        ticket: Ticket,
    },
    /// Ask all members to copy their state out.
    TakeCheckpoint {
        /// Their streams.
        sessions: Vec<Session>,
        /// The job.
        job: String,
        /// The generation.
        generation: u64,
        /// Committed steps that the state will hold.
        step: u64,
    },
    /// Tell a worker that its generation is over.
    Release {
        /// Its stream.
        session: Session,
        /// The job.
        job: String,
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
        /// Whether the worker keeps its state, because the job goes on.
        keep: bool,
    },
    /// Close a stream: its worker is not served any more.
    Disconnect {
        /// The stream.
        session: Session,
        /// Why.
        reason: String,
        /// Whether the worker should stay away (its name was taken over) or may come back (its lease ended).
        refuse: bool,
    },
    /// Keep a committed step: history and progress.
    CommitStep(Box<CommittedStep>),
    /// Write the manifest; answer with `CheckpointCommitted` or `CheckpointNotCommitted`.
    CommitCheckpoint {
        /// The job.
        job: String,
        /// The generation that took it.
        generation: u64,
        /// Committed steps that it holds.
        step: u64,
        /// Whole epochs that it holds.
        epoch: u64,
        /// All tensors, by name.
        tensors: Vec<Tensor>,
    },
    /// Write to the journal that a checkpoint exists, then apply retention.
    RecordCheckpoint {
        /// The job.
        job: String,
        /// The generation that took it.
        generation: u64,
        /// Committed steps that it holds.
        step: u64,
    },
    /// Answer a request for a checkpoint.
    AnswerCheckpoint {
        /// The number of the request.
        request: u64,
        /// Committed steps of the checkpoint, or why there is none.
        answer: Result<u64, Refusal>,
    },
    /// Find the newest whole checkpoint; answer with `CheckpointLocated` or `CheckpointsUnreadable`.
    LocateCheckpoint {
        /// The job.
        job: String,
    },
    /// Write history, events and report of a job that ends; answer with `Finalized`.
    Finalize {
        /// The job.
        job: String,
        /// How it ends.
        outcome: Outcome,
    },
    /// Write to the journal that the job has ended.
    RecordEnd {
        /// The job.
        job: String,
        /// How it ended.
        outcome: Outcome,
    },
    /// Add a line to the job's event log.
    Announce {
        /// The job.
        job: String,
        /// The line.
        notice: Notice,
    },
    /// Something that others may see of the job has changed; always after the commands that changed it.
    JobChanged {
        /// The job.
        job: String,
    },
}

impl Command {
    /// The job to whose order of things it belongs.
    #[must_use]
    pub fn job(&self) -> Option<&str> {
        match self {
            Self::RecordGeneration { job, .. }
            | Self::RecordPaused { job, .. }
            | Self::RecordResumed { job }
            | Self::RecordRequeued { job }
            | Self::OpenRendezvous { job, .. }
            | Self::CloseRendezvous { job }
            | Self::Prepare { job, .. }
            | Self::TakeCheckpoint { job, .. }
            | Self::Release { job, .. }
            | Self::CommitCheckpoint { job, .. }
            | Self::RecordCheckpoint { job, .. }
            | Self::LocateCheckpoint { job }
            | Self::Finalize { job, .. }
            | Self::RecordEnd { job, .. }
            | Self::Announce { job, .. }
            | Self::JobChanged { job } => Some(job),
            Self::Assign { assignment, .. } => Some(&assignment.job),
            Self::Grant { ticket, .. } => Some(&ticket.job),
            Self::CommitStep(step) => Some(&step.ticket.job),
            Self::Disconnect { .. } | Self::AnswerCheckpoint { .. } => None,
        }
    }

    /// Whether nothing else of its job may be carried out before its record is durable. The record of a checkpoint is not
    /// such a one: its manifest is what counts.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        matches!(
            self,
            Self::RecordGeneration { .. }
                | Self::RecordPaused { .. }
                | Self::RecordResumed { .. }
                | Self::RecordRequeued { .. }
                | Self::RecordEnd { .. }
        )
    }
}
