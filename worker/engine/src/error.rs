//! What can go wrong.

use tch::TchError;

/// Why an engine cannot be made, fed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The job asks for what this engine does not do.
    #[error("{path}: {reason}")]
    Unsupported {
        /// Field of the job.
        path: &'static str,
        /// What would be possible.
        reason: String,
    },
    /// The state does not fit the job's model.
    #[error(transparent)]
    State(#[from] StateError),
    /// The process group failed.
    #[error("the process group failed")]
    Group(#[from] r2o_c10d::Error),
    /// libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// Our part of libtorch failed.
    #[error("libtorch failed")]
    Aten(#[from] r2o_aten::Error),
    /// There is no thread to copy the state.
    #[error("cannot start a thread that copies the state")]
    Thread(#[source] std::io::Error),
    /// The thread that copied the state is gone.
    #[error("the thread that copied the state ended early")]
    CopyEnded,
}

/// Why a state does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A tensor of the model is not there.
    #[error("the state lacks `{name}`")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// A tensor is not the model's.
    #[error("the state has `{name}`, which the job's model has not: is it of another backbone?")]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error("`{name}` is {found:?} in the state but {expected:?} in the job's model")]
    Shape {
        /// The tensor.
        name: String,
        /// In the state.
        found: Vec<i64>,
        /// In the model.
        expected: Vec<i64>,
    },
    /// A tensor of another type.
    #[error("`{name}` is {found} in the state, it must be F32")]
    Type {
        /// The tensor.
        name: String,
        /// In the state.
        found: String,
    },
    /// A tensor whose bytes do not make up its shape.
    #[error("`{name}` has {found} bytes, its shape needs {expected}")]
    Length {
        /// The tensor.
        name: String,
        /// In the state.
        found: usize,
        /// By its shape.
        expected: usize,
    },
}

/// Why a step failed. The state is that before the step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The batch does not fit the job.
    #[error("step {step}: {reason}")]
    Input {
        /// The step.
        step: u64,
        /// What does not fit, with the tensor's name and shape.
        reason: String,
    },
    /// A value is NaN or infinite.
    #[error("step {step}, {}: `{tensor}` is not finite; lower the learning rate, or look at the lane's samples", lane_text(*lane))]
    NotFinite {
        /// The step.
        step: u64,
        /// The lane, or none where lanes are already added up.
        lane: Option<u32>,
        /// `loss` or `grad.<parameter>`.
        tensor: String,
    },
    /// More clusters than points.
    #[error("step {step}, lane {lane}: K = {k} is larger than the lane's {points} regions")]
    Clusters {
        /// The step.
        step: u64,
        /// The lane.
        lane: u32,
        /// Clusters.
        k: u32,
        /// Regions of all images of the lane.
        points: i64,
    },
    /// A collective failed.
    #[error("a collective failed")]
    Group(#[from] r2o_c10d::Error),
    /// libtorch failed; with several workers it may be a peer's doing.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// Our part of libtorch failed.
    #[error("libtorch failed")]
    Aten(#[from] r2o_aten::Error),
}

fn lane_text(lane: Option<u32>) -> String {
    lane.map_or_else(|| "all lanes".to_owned(), |lane| format!("lane {lane}"))
}
