//! Objective, prior, mask prediction and curriculum: every variant of the paper that is a matter of configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Objective, prior, masks and curriculum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MethodSpec {
    /// The loss.
    pub objective: Objective,
    /// The fixed fine regions of an image.
    pub prior: Prior,
    /// Merging of the prior's regions into masks.
    pub mask_prediction: MaskPrediction,
    /// Number of clusters over the epochs.
    pub curriculum: Curriculum,
    /// A region counts when its aligned mask sums to more than this in both views.
    pub validity_threshold: f64,
    /// Weight regions by the mean of their two mask masses instead of equally.
    pub weight_by_area: bool,
}

impl Default for MethodSpec {
    fn default() -> Self {
        Self {
            objective: Objective::default(),
            prior: Prior::default(),
            mask_prediction: MaskPrediction::default(),
            curriculum: Curriculum::default(),
            validity_threshold: 1e-3,
            weight_by_area: false,
        }
    }
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Squared distance of normalised predictions and projections (BYOL).
    #[default]
    Byol,
    /// SimCLR's NT-Xent over sampled masks (paper A.4).
    NtXent,
}

/// The fixed fine regions of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum Prior {
    /// SLIC superpixels of the raw view.
    Slic {
        /// Segments asked for; SLIC returns about so many.
        #[serde(default = "slic_segments")]
        segments: u32,
    },
    /// A grid of `cells` x `cells` squares.
    Grid {
        /// Cells along a side.
        #[serde(default = "grid_cells")]
        cells: u32,
    },
    /// One region: the image.
    None {},
}

impl Prior {
    /// Regions of one image at most (about, for SLIC).
    #[must_use]
    pub fn regions(&self) -> u32 {
        match self {
            Self::Slic { segments } => *segments,
            Self::Grid { cells } => cells.saturating_mul(*cells),
            Self::None {} => 1,
        }
    }
}

impl Default for Prior {
    fn default() -> Self {
        Self::Slic { segments: slic_segments() }
    }
}

fn slic_segments() -> u32 {
    100
}

fn grid_cells() -> u32 {
    14
}

/// K-means over the regions of a lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaskPrediction {
    /// Off: the masks are the prior's regions.
    pub enabled: bool,
    /// Iterations at most.
    pub max_iterations: u32,
    /// Stop when inertia changes by less.
    pub tolerance: f64,
}

impl Default for MaskPrediction {
    fn default() -> Self {
        Self { enabled: true, max_iterations: 200, tolerance: 1e-6 }
    }
}

/// K over the epochs, which are counted from 1. Above 128 K-means is not run and the masks are the prior.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum Curriculum {
    /// The same K always.
    Constant {
        /// Clusters.
        k: u32,
    },
    /// A straight line.
    Linear {
        /// K at the first epoch.
        from: u32,
        /// K at the last epoch.
        to: u32,
        /// First and last epoch; K stays constant outside.
        epochs: [u64; 2],
    },
    /// A quarter cosine: the paper's.
    Cosine {
        /// K at the first epoch.
        from: u32,
        /// K at the last epoch.
        to: u32,
        /// First and last epoch; K stays constant outside.
        epochs: [u64; 2],
    },
    /// Constant between given epochs.
    Piecewise {
        /// In rising order of epochs.
        steps: Vec<CurriculumStep>,
    },
}

/// K from an epoch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CurriculumStep {
    /// From this epoch on.
    pub epoch: u64,
    /// Clusters.
    pub k: u32,
}

impl Default for Curriculum {
    fn default() -> Self {
        Self::Cosine { from: 128, to: 4, epochs: [0, 300] }
    }
}

impl Curriculum {
    /// Every K that the curriculum names.
    #[must_use]
    pub fn named_ks(&self) -> Vec<u32> {
        match self {
            Self::Constant { k } => vec![*k],
            Self::Linear { from, to, .. } | Self::Cosine { from, to, .. } => vec![*from, *to],
            Self::Piecewise { steps } => steps.iter().map(|s| s.k).collect(),
        }
    }
}
