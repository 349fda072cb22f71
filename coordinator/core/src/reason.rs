//! Why a job is where it is, in types. Each has a word for programs, a sentence for people, and, where somebody can do
//! something about it, a hint. All that is shown anywhere comes from here.

mod advice;

use std::fmt;

use r2o_types::Device;

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are in the last checkpoint.
    Succeeded,
    /// It cannot go on.
    Failed {
        /// Why.
        reason: String,
    },
    /// A person stopped it.
    Cancelled {
        /// Why, in the person's words; may be empty.
        reason: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("all epochs are done and saved"),
            Self::Failed { reason } => f.write_str(reason),
            Self::Cancelled { reason } if reason.is_empty() => f.write_str("cancelled"),
            Self::Cancelled { reason } => write!(f, "cancelled: {reason}"),
        }
    }
}

/// Why a job is in its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The storage is asked for the newest checkpoint.
    Locating,
    /// No worker is connected at all.
    NoWorkers {
        /// Workers that the job needs at least.
        needed: u32,
    },
    /// Workers are connected, but none of the asked device.
    NoSuchDevice {
        /// The asked device.
        device: Device,
        /// Workers of other devices.
        connected: usize,
    },
    /// Fewer workers are free than the job needs.
    TooFewWorkers {
        /// Workers that the job needs at least.
        needed: u32,
        /// Free workers of its device.
        free: usize,
        /// Workers of its device that are busy with other jobs.
        busy: usize,
    },
    /// Enough workers are free, but of different program versions, which a reproducible job does not mix.
    OtherVersions {
        /// Workers that the job needs at least.
        needed: u32,
        /// The version that it takes: that of those who hold its state, else the most frequent one.
        version: String,
        /// Free workers of that version.
        free: usize,
        /// Free workers of other versions.
        others: usize,
    },
    /// The free workers are kept for a job further ahead in the queue.
    Behind {
        /// That job.
        job: String,
    },
    /// There are enough workers; more may join in a moment.
    Joining {
        /// Free workers.
        free: usize,
        /// Workers that the job can use.
        most: usize,
    },
    /// Workers of other jobs finish their step for it.
    Claiming {
        /// How many.
        workers: usize,
    },
    /// A person paused it.
    Paused {
        /// Why, in the person's words; may be empty.
        reason: String,
    },
    /// A generation failed a moment ago.
    BackingOff {
        /// Times in a row without a new step.
        failures: u32,
        /// The last one.
        last: String,
    },
    /// Workers load the state and find each other.
    Forming {
        /// The generation.
        generation: u64,
        /// Workers that are not ready yet, the first few of them.
        missing: Vec<String>,
        /// Further ones.
        more: usize,
    },
    /// Steps are being computed.
    Training {
        /// Workers of the generation.
        workers: usize,
    },
    /// Steps are being computed, and the generation ends with those that are granted.
    HandingOver {
        /// Why.
        reason: String,
    },
    /// All steps are done; the last checkpoint is being written.
    LastCheckpoint,
    /// Training, or waiting at the end, while checkpoints cannot be written.
    CheckpointsFail {
        /// Why the last one was not written.
        last: String,
    },
    /// What follows waits until the coordinator's journal can be written; only the shell knows.
    JournalNotWritten {
        /// Why it cannot.
        reason: String,
    },
    /// The job ends; history and report are being written.
    Finalizing {
        /// How it ends.
        outcome: Outcome,
    },
    /// It has ended.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locating => f.write_str("looks for its newest checkpoint"),
            Self::NoWorkers { needed } => {
                write!(f, "waits for workers: none is connected and the job needs at least {needed}")
            }
            Self::NoSuchDevice { device, connected } => write!(
                f,
                "waits for workers with device {}: none of the {connected} connected has it",
                device_word(*device)
            ),
            Self::TooFewWorkers { needed, free, busy } => {
                write!(
                    f,
                    "waits for workers: {free} free, {busy} busy with other jobs, but the job needs at least {needed}"
                )
            }
            Self::OtherVersions { needed, version, free, others } => write!(
                f,
                "waits for workers of version {version}: {free} are free and the job needs at least {needed}; {others} \
                 of other versions may not take part, because it is reproducible"
            ),
            Self::Behind { job } => {
                write!(f, "waits for workers: the free ones are kept for job {job}, which is ahead")
            }
            Self::Joining { free, most } => {
                write!(f, "starts in a moment with {free} workers, unless more join (it can use {most})")
            }
            Self::Claiming { workers: 1 } => f.write_str("waits for 1 worker that finishes its step for another job"),
            Self::Claiming { workers } => {
                write!(f, "waits for {workers} workers that finish their step for other jobs")
            }
            Self::Paused { reason } if reason.is_empty() => f.write_str("is paused until `r2octl resume`"),
            Self::Paused { reason } => write!(f, "is paused until `r2octl resume`: {reason}"),
            Self::BackingOff { failures, last } => {
                write!(
                    f,
                    "tries again in a moment, after {failures} failures in a row without a new step; the last one: {last}"
                )
            }
            Self::Forming { generation, missing, more } => {
                write!(f, "generation {generation} is being formed; not ready yet: {}", list(missing, *more))
            }
            Self::Training { workers: 1 } => f.write_str("trains on 1 worker"),
            Self::Training { workers } => write!(f, "trains on {workers} workers"),
            Self::HandingOver { reason } => write!(f, "trains to the end of the granted steps, then: {reason}"),
            Self::LastCheckpoint => f.write_str("all steps are done; writes the last checkpoint"),
            Self::CheckpointsFail { last } => write!(f, "checkpoints cannot be written: {last}"),
            Self::JournalNotWritten { reason } => {
                write!(f, "waits for the coordinator's journal to be written: {reason}")
            }
            Self::Finalizing { .. } => f.write_str("ends; writes history and report"),
            Self::Ended { outcome } => outcome.fmt(f),
        }
    }
}

/// Workers that a sentence names; the others are counted. Fleets of thousands would fill pages.
pub(crate) const NAMED: usize = 16;

/// Names as a sentence has them.
pub(crate) fn listed(names: &[String]) -> String {
    let (first, others) = names.split_at(names.len().min(NAMED));
    list(first, others.len())
}

/// Names, and how many more there are.
pub(crate) fn list(names: &[String], more: usize) -> String {
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

fn device_word(device: Device) -> &'static str {
    match device {
        Device::Auto => "auto",
        Device::Cpu => "cpu",
        Device::Cuda => "cuda",
    }
}

/// Why a request for a checkpoint has no checkpoint as answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such job.
    NoSuchJob,
    /// The job does not train, so there is nothing new to save.
    NotTraining {
        /// What it does instead.
        reason: String,
    },
    /// The checkpoint could not be written.
    NotWritten {
        /// Why.
        reason: String,
    },
    /// The job ended before the checkpoint was written.
    Ended,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchJob => f.write_str("there is no such job"),
            Self::NotTraining { reason } => {
                write!(f, "the job does not train, so there is nothing new to save: it {reason}")
            }
            Self::NotWritten { reason } => write!(f, "the checkpoint was not written: {reason}"),
            Self::Ended => f.write_str("the job ended before the checkpoint was written"),
        }
    }
}
