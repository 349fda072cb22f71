//! What every part of R2O agrees on: the job, the schedules, the order of an epoch, and who computes which lanes.
//!
//! Nothing here does IO, reads a clock or draws a random number that is not a function of its key.

pub mod deal;
pub mod digest;
pub mod job;
pub mod mixing;
pub mod pixels;
pub mod plan;
pub mod random;
pub mod schedule;
pub mod trace;

pub use deal::deal_lanes;
pub use digest::sample_digest;
pub use job::{
    Backbone, BatchSpec, CheckpointEvery, CheckpointKeep, CheckpointSpec, Curriculum, CurriculumStep, DataSpec, Device,
    FleetSpec, JobSpec, MaskPrediction, Metadata, MethodSpec, ModelSpec, Objective, OptimizerKind, OptimizerSpec,
    PixelType, Precision, PredictorSpec, Prior, ProjectorSpec, SpecError, SpecErrors, TargetMomentum, TrainJob,
};
pub use mixing::{Mixing, Shape};
pub use pixels::Dtype;
pub use plan::{ChunkRef, EpochPlan, PlanError, steps_per_epoch};
pub use random::Keyed;
pub use schedule::{Clock, K_MAX, Schedule, k_at};
pub use trace::{NoContext, TraceContext};
