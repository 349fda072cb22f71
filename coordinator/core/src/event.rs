//! What can happen: a closed enum, and the facts that it carries.

use std::collections::BTreeMap;

use r2o_types::TrainJob;

use crate::{Millis, Outcome, Session};

/// A job that enters the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// The resolved job; its name is unique among those that have not ended.
    pub job: TrainJob,
    /// Steps of one epoch on the job's data set, at least 1.
    pub steps_per_epoch: u64,
    /// Place in the queue among equal priorities: the number of its journal record.
    pub order: u64,
    /// When it was submitted.
    pub submitted_at: Millis,
    /// The highest generation that ever worked for it, also under another coordinator; 0: none. Numbers go on above it.
    pub last_generation: u64,
    /// The first generation that worked on from the state that workers may still hold; 0: none. What workers hold of earlier
    /// generations is of a course that was given up.
    pub lineage: u64,
    /// Workers of the newest generation: those that are worth waiting for.
    pub last_workers: Vec<String>,
    /// Why a person paused it; `None`: it is not paused.
    pub paused: Option<String>,
    /// Where it starts.
    pub resume: Resume,
}

/// Where a job that enters the queue starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// From the seed.
    Fresh,
    /// From the checkpoint after so many steps.
    Checkpoint(u64),
    /// The storage must be asked first: the coordinator has just started.
    Locate,
    /// Not at all: it has ended, and is only listed.
    Ended {
        /// How.
        outcome: Outcome,
        /// When.
        at: Millis,
        /// Its newest checkpoint.
        checkpoint: Option<u64>,
    },
}

impl Resume {
    /// Committed steps, as far as they are known before the storage is asked.
    #[must_use]
    pub fn committed(&self) -> u64 {
        match self {
            Self::Checkpoint(steps) | Self::Ended { checkpoint: Some(steps), .. } => *steps,
            Self::Fresh | Self::Locate | Self::Ended { checkpoint: None, .. } => 0,
        }
    }
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Stable name, unique in the fleet.
    pub name: String,
    /// Fresh for every process.
    pub incarnation: String,
    /// Of the program.
    pub version: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// Host or IP for the data plane.
    pub address: String,
    /// CPU threads.
    pub threads: u32,
}

/// The state that a worker keeps of a job that it worked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub job: String,
    /// The last generation in which it was ready.
    pub generation: u64,
    /// Committed steps of the state.
    pub step: u64,
}

/// One worker's part of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepReport {
    /// Each of its lanes, in lane order.
    pub lanes: Vec<LaneReport>,
    /// L2 norm of the mean gradient over all lanes.
    pub gradient_norm: f64,
    /// Seconds by phase.
    pub timings: BTreeMap<String, f64>,
    /// XXH3 of each tensor of the state after the step, in one order for all ranks; empty unless the ticket asks for it.
    pub tensor_digests: Vec<u64>,
    /// The names of those tensors; of one rank is enough.
    pub tensor_names: Vec<String>,
    /// Now and then, what tells learning from collapse, by name: of one of this worker's lanes, or the mean over them.
    pub signals: BTreeMap<String, f64>,
}

/// One lane's part of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneReport {
    /// The lane.
    pub lane: u32,
    /// Its loss.
    pub loss: f64,
    /// Regions that count, mean per image.
    pub valid_regions: f64,
    /// Where in the epoch's order its samples start.
    pub first_position: u64,
    /// XXH3 of its sample numbers.
    pub sample_digest: u64,
    /// XXH3 of its views; 0 unless audited.
    pub pixel_digest: u64,
    /// XXH3 of its mask labels; 0 unless audited.
    pub mask_digest: u64,
}

/// A stored tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// State name.
    pub name: String,
    /// safetensors' word.
    pub dtype: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<u64>,
    /// BLAKE3 of the bytes in hex.
    pub blake3: String,
    /// Number of bytes.
    pub bytes: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A deadline passed.
    Tick,
    /// The coordinator itself was not running for a while (a stopped process, a suspended machine): what it did not hear in
    /// that time says nothing.
    WasAway,
    /// A job was accepted and recorded.
    JobSubmitted(Box<NewJob>),
    /// A person asks to stop a job.
    CancelRequested {
        /// The job.
        job: String,
        /// Why, in the person's words; may be empty.
        reason: String,
    },
    /// A person asks to pause a job: it saves its state and gives its workers back until it is resumed.
    PauseRequested {
        /// The job.
        job: String,
        /// Why, in the person's words; may be empty.
        reason: String,
    },
    /// A person asks to let a paused job go on.
    ResumeRequested {
        /// The job.
        job: String,
    },
    /// A person asks to send a job to the end of the queue.
    RequeueRequested {
        /// The job.
        job: String,
    },
    /// A person asks for a checkpoint now.
    CheckpointRequested {
        /// The job.
        job: String,
        /// The number under which the answer is expected.
        request: u64,
    },
    /// A worker's stream opened.
    WorkerJoined {
        /// Its stream, never used before.
        session: Session,
        /// Who it is.
        worker: WorkerInfo,
        /// What it brings along.
        held: Option<Held>,
    },
    /// A worker was asked to leave: it finishes what it has begun, hands over, and goes.
    WorkerDraining {
        /// Its stream.
        session: Session,
        /// By whom or why.
        reason: String,
    },
    /// A worker has built what it needs for a job, and could take part at once.
    WorkerPrepared {
        /// Its stream.
        session: Session,
        /// The job.
        job: String,
    },
    /// A worker showed that it is alive.
    WorkerHeard {
        /// Its stream.
        session: Session,
    },
    /// A worker's stream ended.
    WorkerLeft {
        /// Its stream.
        session: Session,
        /// Why.
        reason: String,
        /// Whether it said goodbye before.
        goodbye: bool,
    },
    /// A worker formed the group of its generation and holds the state.
    WorkerReady {
        /// Its stream.
        session: Session,
        /// The generation.
        generation: u64,
        /// Committed steps of its state.
        step: u64,
    },
    /// Steps that a worker of a forming generation applied in earlier ones; each report has all lanes. It comes before that
    /// worker's `WorkerReady`.
    StepsRecovered {
        /// Its stream.
        session: Session,
        /// The generation that forms.
        generation: u64,
        /// Reports by step.
        reports: Vec<(u64, StepReport)>,
    },
    /// A worker applied a step.
    StepReported {
        /// Its stream.
        session: Session,
        /// The generation.
        generation: u64,
        /// The ticket's step.
        step: u64,
        /// Its part.
        report: StepReport,
    },
    /// A worker uploaded its share of a checkpoint, or could not.
    PartUploaded {
        /// Its stream.
        session: Session,
        /// The generation.
        generation: u64,
        /// Committed steps of the checkpoint.
        step: u64,
        /// The stored tensors, or the reason why there are none.
        part: Result<Vec<Tensor>, String>,
    },
    /// A collective failed on a worker: the generation cannot go on.
    GenerationFailed {
        /// Its stream.
        session: Session,
        /// The generation.
        generation: u64,
        /// What the worker saw.
        reason: String,
    },
    /// The job itself failed: its code, its data, a number that is none.
    JobFailed {
        /// The worker's stream.
        session: Session,
        /// The generation.
        generation: u64,
        /// The step in flight.
        step: u64,
        /// What is wrong.
        reason: String,
    },
    /// The manifest of a checkpoint was written.
    CheckpointCommitted {
        /// The job.
        job: String,
        /// The generation that took it.
        generation: u64,
        /// Committed steps that it holds.
        step: u64,
    },
    /// The manifest of a checkpoint could not be written.
    CheckpointNotCommitted {
        /// The job.
        job: String,
        /// The generation that took it.
        generation: u64,
        /// Committed steps that it would have held.
        step: u64,
        /// Why.
        reason: String,
    },
    /// The newest whole checkpoint of a job is known.
    CheckpointLocated {
        /// The job.
        job: String,
        /// Committed steps that it holds; `None`: there is no checkpoint at all.
        step: Option<u64>,
    },
    /// Checkpoints exist, but none can be read; the job must not start over.
    CheckpointsUnreadable {
        /// The job.
        job: String,
        /// What is wrong with them.
        reason: String,
    },
    /// History, events and report of a job that ends are written, or given up.
    Finalized {
        /// The job.
        job: String,
    },
}
