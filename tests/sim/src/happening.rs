//! Everything that waits for its moment: messages on their way, work, answers of the storage, faults.

use std::sync::Arc;

use r2o_coordinator_core as coordinator;
use r2o_coordinator_core::{StepReport, Tensor, WorkerInfo};
use r2o_worker_core as worker;

use crate::fault::Fault;
use crate::group::Outcome;

/// One end-to-end stream.
pub(crate) type StreamId = u64;
/// A process of a coordinator or of a worker; never used again.
pub(crate) type Process = u64;

/// What a worker sends.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Hello { worker: WorkerInfo, held: Option<worker::Held> },
    Heartbeat,
    Ready { generation: u64, step: u64 },
    Recovered { generation: u64, reports: Vec<(u64, StepReport)> },
    Report { generation: u64, step: u64, report: Box<StepReport> },
    Part { generation: u64, step: u64, part: Result<Vec<Tensor>, String> },
    Failure { generation: u64, step: u64, failure: worker::Failure },
    Draining { reason: String },
    Prepared { job: String },
    Goodbye { reason: String },
}

/// What a coordinator sends.
#[derive(Debug, Clone)]
pub(crate) enum Down {
    Welcome,
    Assignment(Box<coordinator::Assignment>),
    Ticket(Box<coordinator::Ticket>),
    TakeCheckpoint {
        generation: u64,
        step: u64,
    },
    Release {
        job: String,
        generation: u64,
        keep: bool,
    },
    Prepare {
        job: String,
        spec: Arc<str>,
    },
    Refused {
        reason: String,
    },
    /// The stream's orderly end.
    End,
}

/// What a person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Submit,
    Pause,
    Resume,
    Requeue,
    Cancel,
    Checkpoint,
}

/// Work on storage, and who asked for it.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Acquire { coordinator: Process },
    Renew { coordinator: Process },
    Replay { coordinator: Process },
    Append { coordinator: Process, number: u64, record: Vec<u8> },
    Trim { below: u64 },
    Locate { coordinator: Process, job: String, pause: u64 },
    Admit { coordinator: Process, job: usize },
    Check { coordinator: Process, commit: Box<Commit> },
    Put { coordinator: Process, commit: Box<Commit> },
    Finalize { coordinator: Process, job: String },
    Upload { process: Process, upload: Box<Upload> },
    Load { process: Process, number: u64, job: String, step: u64 },
}

/// A manifest that is to be put.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) job: String,
    pub(crate) generation: u64,
    pub(crate) step: u64,
    pub(crate) tensors: Vec<Tensor>,
}

/// A worker's share of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) stream: StreamId,
    pub(crate) job: String,
    pub(crate) generation: u64,
    pub(crate) step: u64,
    pub(crate) state: u64,
    pub(crate) tensors: Vec<Tensor>,
}

/// What the storage says.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Done,
    /// Somebody else was first, or holds it.
    Taken,
    Records(Vec<(u64, Vec<u8>)>),
    /// The newest whole checkpoint and its generation.
    Newest(Option<(u64, u64)>),
    Unreadable,
    /// The states of the tensors.
    Whole(Vec<u64>),
    Missing,
}

#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Up {
        stream: StreamId,
        message: Up,
    },
    Down {
        stream: StreamId,
        message: Down,
    },
    /// The worker's end of a stream finds it broken.
    WorkerEndBreaks {
        stream: StreamId,
    },
    /// The coordinator's end of a stream finds it broken.
    CoordinatorEndBreaks {
        stream: StreamId,
    },
    /// A worker tries to open a stream.
    Connect {
        process: Process,
    },
    Heartbeat {
        stream: StreamId,
    },
    /// The computing thread's current task is a stage further.
    Stage {
        process: Process,
        number: u64,
    },
    /// A collective is over for one member.
    Collective {
        process: Process,
        number: u64,
        outcome: Outcome,
    },
    /// The computing thread says something to its core.
    Told {
        process: Process,
        event: Box<worker::Event>,
    },
    /// A computing thread that is not woken by now ends its process.
    AbortDeadline {
        process: Process,
        number: u64,
    },
    /// A drain that takes too long.
    DrainDeadline {
        process: Process,
    },
    StartWorker {
        slot: usize,
    },
    StartCoordinator {
        seat: usize,
    },
    Tick {
        coordinator: Process,
    },
    RenewLease {
        coordinator: Process,
    },
    /// The journal's task tries again.
    Scribe {
        coordinator: Process,
    },
    Effect {
        op: Box<Op>,
    },
    Answered {
        op: Box<Op>,
        answer: Result<Answer, String>,
    },
    Fault {
        fault: Fault,
    },
    Wish {
        wish: Wish,
        job: usize,
    },
    /// From here on nothing goes wrong any more.
    Heal,
    /// Looks whether everything is well.
    Look,
}
