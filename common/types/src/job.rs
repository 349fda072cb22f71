//! `job.yaml`: one pretraining run, declared (`apiVersion: r2o.dev/v1`, `kind: TrainJob`).
//!
//! Everything but `metadata.name` and `spec.data.url` has the paper's value as default. [`TrainJob::parse`] refuses
//! unknown fields and impossible values, each with its path and the reason.

mod method;
mod parse;
mod validate;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use method::{Curriculum, CurriculumStep, MaskPrediction, MethodSpec, Objective, Prior};
pub use parse::{SpecError, SpecErrors};

/// The only API version so far.
pub const API_VERSION: &str = "r2o.dev/v1";
/// The only kind so far.
pub const KIND: &str = "TrainJob";

/// One pretraining run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrainJob {
    /// `r2o.dev/v1`.
    pub api_version: String,
    /// `TrainJob`.
    pub kind: String,
    /// Name and labels.
    pub metadata: Metadata,
    /// What to train, on what, how, and where the results go.
    pub spec: JobSpec,
}

/// Name and labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Unique among the coordinator's jobs: lower-case letters, digits and '-', at most 63 (an RFC 1123 label).
    pub name: String,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobSpec {
    /// Key of every random decision of the run.
    #[serde(default)]
    pub seed: u64,
    /// Passes over the data set.
    #[serde(default = "defaults::epochs")]
    pub epochs: u64,
    /// The data set.
    pub data: DataSpec,
    /// Lanes and their size.
    #[serde(default)]
    pub batch: BatchSpec,
    /// Objective, prior, masks and curriculum.
    #[serde(default)]
    pub method: MethodSpec,
    /// Networks.
    #[serde(default)]
    pub model: ModelSpec,
    /// Optimiser and learning rate.
    #[serde(default)]
    pub optimizer: OptimizerSpec,
    /// Arithmetic of forward and backward; parameters are float32 always.
    #[serde(default)]
    pub precision: Precision,
    /// The same bits on any number of workers, slower.
    #[serde(default)]
    pub reproducible: bool,
    /// Workers.
    #[serde(default)]
    pub fleet: FleetSpec,
    /// Where and when the state is saved.
    #[serde(default)]
    pub checkpoint: CheckpointSpec,
    /// Jobs of higher priority start first.
    #[serde(default)]
    pub priority: i32,
}

/// The data set and how it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataSpec {
    /// What `r2octl data pack` wrote: a folder, `file://`, `s3://`, `gs://`, `az://` or `https://`.
    pub url: String,
    /// Side of the views and of the raw view in pixels; a multiple of 32.
    #[serde(default = "defaults::image_size")]
    pub image_size: u32,
    /// Chunks whose samples are shuffled together.
    #[serde(default = "defaults::shuffle_window_chunks")]
    pub shuffle_window_chunks: u32,
    /// What views are on their way to the device.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pixel_type: PixelType,
}

/// What views are on their way to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum PixelType {
    /// Normalised numbers of the job's precision.
    #[default]
    Float,
    /// Rounded to 8 bits, as Pillow's are, and normalised by the device: a quarter of float32's bytes in memory and on the
    /// way to a GPU, half of bfloat16's.
    Uint8,
}

/// Left out where it is the default, so that manifests of older versions and of this one are the same.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Lanes (the paper's GPUs) and their size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BatchSpec {
    /// Virtual GPUs: K-means, region pooling and the loss mean are per lane.
    pub lanes: u32,
    /// Images of one lane and step.
    pub samples_per_lane: u32,
    /// Lanes that share batch-norm statistics; divides `lanes`. Left out or 0: all of them ([`TrainJob::parse`] fills
    /// it in).
    pub norm_group_lanes: u32,
}

/// Networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ModelSpec {
    /// Encoder.
    pub backbone: Backbone,
    /// Projector MLP.
    pub projector: ProjectorSpec,
    /// Predictor MLP.
    pub predictor: PredictorSpec,
    /// EMA momentum (tau) of the target network.
    pub target_momentum: TargetMomentum,
}

/// Encoders with torchvision's architecture and parameter names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub enum Backbone {
    /// ResNet-18.
    #[serde(rename = "resnet18")]
    Resnet18,
    /// ResNet-34.
    #[serde(rename = "resnet34")]
    Resnet34,
    /// ResNet-50.
    #[default]
    #[serde(rename = "resnet50")]
    Resnet50,
    /// ViT-B/16.
    #[serde(rename = "vit_b_16")]
    VitB16,
}

/// Linear, batch norm, ReLU, Linear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProjectorSpec {
    /// Hidden units.
    pub hidden: u32,
    /// Size of the projection.
    pub output: u32,
}

/// Linear, batch norm, ReLU, Linear; its output has the projector's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PredictorSpec {
    /// Hidden units.
    pub hidden: u32,
}

/// Tau rises from `base` to `final` along a half cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TargetMomentum {
    /// Tau of the first step.
    pub base: f64,
    /// Tau after the last step.
    #[serde(rename = "final")]
    pub final_: f64,
}

/// Optimiser and learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OptimizerSpec {
    /// The optimiser.
    pub kind: OptimizerKind,
    /// Peak learning rate for a global batch of 256; scaled by batch / 256.
    pub base_learning_rate: f64,
    /// Multiply the learning rate by K / this; `null`: off.
    pub scale_learning_rate_by_k: Option<f64>,
    /// Epochs of linear warm-up from 0.
    pub warmup_epochs: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay of parameters with more than one dimension.
    pub weight_decay: f64,
    /// LARS trust coefficient (eta).
    pub trust_coefficient: f64,
}

/// Optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Layer-wise adaptive rate scaling (You et al., 2017).
    #[default]
    Lars,
}

/// Arithmetic of forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    Float32,
    /// bfloat16 autocast; parameters, statistics and losses stay float32.
    Bfloat16,
}

/// Workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FleetSpec {
    /// The job starts, and goes on, with at least so many.
    pub min_workers: u32,
    /// And uses at most so many.
    pub max_workers: u32,
    /// Which workers.
    pub device: Device,
}

/// Which workers may take a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// Any.
    #[default]
    Auto,
    /// Workers that compute on a CPU.
    Cpu,
    /// Workers that own a GPU.
    Cuda,
}

/// Where and when the state is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CheckpointSpec {
    /// Any object-store URL or folder. Default: `jobs/NAME` under the coordinator's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How often.
    pub every: CheckpointEvery,
    /// How many stay.
    pub keep: CheckpointKeep,
}

/// A checkpoint is due when either has passed since the last one, and at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CheckpointEvery {
    /// Epochs.
    pub epochs: u64,
    /// Minutes; `null`: epochs only.
    pub minutes: Option<f64>,
}

/// Retention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CheckpointKeep {
    /// The newest so many.
    pub last: u32,
    /// And each of an epoch that this divides; `null`: none.
    pub every_epochs: Option<u64>,
}

mod defaults {
    use super::{
        BatchSpec, CheckpointEvery, CheckpointKeep, FleetSpec, OptimizerKind, OptimizerSpec, PredictorSpec,
        ProjectorSpec, TargetMomentum,
    };

    pub(super) fn epochs() -> u64 {
        300
    }

    pub(super) fn image_size() -> u32 {
        224
    }

    pub(super) fn shuffle_window_chunks() -> u32 {
        16
    }

    impl Default for BatchSpec {
        fn default() -> Self {
            Self { lanes: 128, samples_per_lane: 32, norm_group_lanes: 0 }
        }
    }

    impl Default for ProjectorSpec {
        fn default() -> Self {
            Self { hidden: 4096, output: 256 }
        }
    }

    impl Default for PredictorSpec {
        fn default() -> Self {
            Self { hidden: 4096 }
        }
    }

    impl Default for TargetMomentum {
        fn default() -> Self {
            Self { base: 0.99, final_: 1.0 }
        }
    }

    impl Default for OptimizerSpec {
        fn default() -> Self {
            Self {
                kind: OptimizerKind::Lars,
                base_learning_rate: 0.3,
                scale_learning_rate_by_k: Some(16.0),
                warmup_epochs: 3.0,
                momentum: 0.9,
                weight_decay: 1e-6,
                trust_coefficient: 1e-3,
            }
        }
    }

    impl Default for FleetSpec {
        fn default() -> Self {
            Self { min_workers: 1, max_workers: 128, device: super::Device::Auto }
        }
    }

    impl Default for CheckpointEvery {
        fn default() -> Self {
            Self { epochs: 1, minutes: Some(15.0) }
        }
    }

    impl Default for CheckpointKeep {
        fn default() -> Self {
            Self { last: 3, every_epochs: Some(50) }
        }
    }
}

#[cfg(test)]
mod tests;
