//! What can happen to a worker, and what it can decide: two closed enums.

use r2o_types::TraceContext;

/// Membership of one generation as this worker sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// Name of the job.
    pub job: String,
    /// The fence: everything of another generation is ignored.
    pub generation: u64,
    /// The resolved job as JSON; the shell decodes it.
    pub spec: String,
    /// This worker's place in `members`.
    pub rank: usize,
    /// All workers of the generation, in rank order.
    pub members: Vec<Member>,
    /// Committed steps so far.
    pub step: u64,
    /// Where the state comes from.
    pub start: Start,
    /// The span of forming it, if it is traced; nothing is decided by it.
    pub trace: Option<TraceContext>,
}

/// Where the members of a generation have their state from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// From the job's seed.
    Seed,
    /// From a checkpoint.
    Checkpoint {
        /// Key of its manifest.
        manifest: String,
    },
    /// From the member with the most steps.
    Peers {
        /// A state counts if its worker was ready with it in this generation or a later one.
        since: u64,
    },
}

/// The state that a worker keeps when its generation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub job: String,
    /// The last generation in which it was ready.
    pub generation: u64,
    /// Committed steps of the state.
    pub step: u64,
}

/// One worker of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Stable name.
    pub worker: String,
    /// Host or IP for the data plane.
    pub address: String,
    /// Lanes that this worker computes.
    pub lanes: Vec<u32>,
}

/// Leave to compute one step, with every value that a schedule decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ticket {
    /// 0-based step of the whole job.
    pub step: u64,
    /// 0-based epoch.
    pub epoch: u64,
    /// Clusters per lane.
    pub k: u32,
    /// EMA momentum of the target network.
    pub tau: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Whether to report hashes of the state after it.
    pub hash_state: bool,
    /// The step's span, if it is traced; nothing is decided by it.
    pub trace: Option<TraceContext>,
}

/// Why a step or the forming of a group did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A peer or the network: the generation cannot go on, the job can.
    Collective(String),
    /// The job itself: NaN, damaged data, an impossible configuration. Trying again unchanged is useless.
    Job(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The session stream is open and welcomed.
    Connected,
    /// The session stream broke or was closed.
    Disconnected,
    /// The coordinator will not serve this worker.
    Refused(String),
    /// The coordinator placed this worker in a generation.
    Assigned(Assignment),
    /// A step may be computed.
    Granted {
        /// Generation of the ticket.
        generation: u64,
        /// The ticket.
        ticket: Ticket,
    },
    /// A checkpoint is wanted after `step` committed steps.
    CheckpointAsked {
        /// Generation of the request.
        generation: u64,
        /// Committed steps that the checkpoint holds.
        step: u64,
        /// The checkpoint's span, if it is traced.
        trace: Option<TraceContext>,
    },
    /// This worker is not part of a job's `generation` any more.
    Released {
        /// The job.
        job: String,
        /// The generation that ends.
        generation: u64,
        /// Whether the job goes on, so that its state is worth keeping.
        keep: bool,
    },
    /// The coordinator may soon place this worker in a job.
    PrepareAsked {
        /// The job.
        job: String,
        /// The resolved job as JSON.
        spec: String,
    },
    /// What `Prepare` asked for is there.
    Prepared {
        /// The job.
        job: String,
    },
    /// The process group stands and the state after `step` steps is loaded.
    Formed {
        /// The generation that was formed.
        generation: u64,
        /// Committed steps of the loaded state.
        step: u64,
    },
    /// The current work item is done.
    WorkDone {
        /// Generation of the work.
        generation: u64,
    },
    /// Forming or the current work item failed.
    WorkFailed {
        /// Generation of the work.
        generation: u64,
        /// Step in flight.
        step: u64,
        /// What went wrong.
        failure: Failure,
    },
    /// SIGTERM or a preemption notice: finish what is granted, hand over and leave. A second one leaves at once.
    Drain {
        /// What asked.
        reason: String,
    },
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Build the engine, form the process group, load the state; answer with `Formed` or `WorkFailed`.
    Form(Assignment),
    /// Compute one step and report it; answer with `WorkDone` or `WorkFailed`.
    Compute {
        /// Generation of the ticket.
        generation: u64,
        /// The ticket.
        ticket: Ticket,
    },
    /// Copy the state out and upload this worker's share in the background; answer with `WorkDone` once it is copied.
    CopyOut {
        /// Generation of the request.
        generation: u64,
        /// Committed steps that the state holds.
        step: u64,
        /// The checkpoint's span, if it is traced.
        trace: Option<TraceContext>,
    },
    /// Tell the coordinator that this worker is ready to compute step `step`.
    SendReady {
        /// The job.
        job: String,
        /// The formed generation.
        generation: u64,
        /// Committed steps of the loaded state.
        step: u64,
    },
    /// Tell the coordinator that the generation or the job failed.
    SendFailure {
        /// The job.
        job: String,
        /// Generation that failed.
        generation: u64,
        /// Step in flight.
        step: u64,
        /// What went wrong.
        failure: Failure,
    },
    /// Wake whatever hangs in a collective of this generation, from outside its thread.
    Abort {
        /// Generation to abort.
        generation: u64,
    },
    /// Drop group and loader of this generation, but keep the engine with its state.
    Park {
        /// Generation that ended.
        generation: u64,
    },
    /// Drop everything of this generation and of earlier ones.
    Discard {
        /// Generation to drop.
        generation: u64,
    },
    /// Build what a job needs, apart from its state; answer with `Prepared`.
    Prepare {
        /// The job.
        job: String,
        /// The resolved job as JSON.
        spec: String,
    },
    /// Tell the coordinator that this worker could join a job at once.
    SendPrepared {
        /// The job.
        job: String,
    },
    /// Tell the coordinator that this worker was asked to leave.
    SendDraining {
        /// What asked.
        reason: String,
    },
    /// Open the session stream again.
    Reconnect,
    /// Say goodbye and end the process.
    Exit(ExitReason),
}

/// Why the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// Drained: what was granted is finished and handed over.
    Drained,
    /// A second request to leave: at once.
    Forced,
    /// The coordinator refused the session.
    Refused(String),
}
