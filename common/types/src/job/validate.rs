//! What a job must fulfil beyond its types.

use super::parse::SpecErrors;
use super::{
    API_VERSION, Backbone, BatchSpec, CheckpointSpec, Curriculum, FleetSpec, JobSpec, KIND, MethodSpec, ModelSpec,
    Objective, OptimizerSpec, Prior, SpecError, TrainJob,
};
use crate::schedule::K_MAX;

const NAME_LENGTH_MAX: usize = 63;
const LANES_MAX: u32 = 65_536;
const SAMPLES_PER_LANE_MAX: u32 = 4_096;
const IMAGE_SIZE_MAX: u32 = 2_048;
const SLIC_SEGMENTS_MAX: u32 = 255;
const GRID_CELLS_MAX: u32 = 15;
const UNITS_MAX: u32 = 65_536;

impl TrainJob {
    /// Checks everything that types cannot say.
    ///
    /// # Errors
    /// All impossible values at once, each with its path and what would be possible.
    pub fn validate(&self) -> Result<(), SpecErrors> {
        let mut found = Findings(Vec::new());
        found.require(self.api_version == API_VERSION, "apiVersion", || {
            format!("is `{}`, this version understands `{API_VERSION}`", self.api_version)
        });
        found.require(self.kind == KIND, "kind", || format!("is `{}`, expected `{KIND}`", self.kind));
        found.require(is_label(&self.metadata.name), "metadata.name", || {
            format!("`{}`: use lower-case letters, digits and '-', at most {NAME_LENGTH_MAX}", self.metadata.name)
        });
        found.job(&self.spec);
        if found.0.is_empty() { Ok(()) } else { Err(SpecErrors(found.0)) }
    }
}

fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && name.chars().all(|c| inner(c) || c == '-')
        && name.starts_with(inner)
        && name.ends_with(inner)
}

struct Findings(Vec<SpecError>);

impl Findings {
    fn require(&mut self, holds: bool, path: &str, reason: impl FnOnce() -> String) {
        if !holds {
            self.0.push(SpecError::new(path, reason()));
        }
    }

    fn positive(&mut self, value: u32, max: u32, path: &str) {
        self.require((1..=max).contains(&value), path, || format!("is {value}, must be from 1 to {max}"));
    }

    fn fraction(&mut self, value: f64, path: &str) {
        self.require((0.0..=1.0).contains(&value), path, || format!("is {value}, must be from 0 to 1"));
    }

    fn not_negative(&mut self, value: f64, path: &str) {
        self.require(value.is_finite() && value >= 0.0, path, || format!("is {value}, must be 0 or more"));
    }

    fn job(&mut self, job: &JobSpec) {
        self.require(job.epochs > 0, "spec.epochs", || "is 0, a run has at least one epoch".to_owned());
        self.require(!job.data.url.trim().is_empty(), "spec.data.url", || {
            "is empty: give what `r2octl data pack` wrote".to_owned()
        });
        let size = job.data.image_size;
        self.require(size.is_multiple_of(32) && (32..=IMAGE_SIZE_MAX).contains(&size), "spec.data.imageSize", || {
            let lower = (size / 32 * 32).clamp(32, IMAGE_SIZE_MAX);
            let upper = (lower + 32).min(IMAGE_SIZE_MAX);
            format!("is {size}, must be a multiple of 32 from 32 to {IMAGE_SIZE_MAX}, such as {lower} or {upper}")
        });
        self.require(job.data.shuffle_window_chunks > 0, "spec.data.shuffleWindowChunks", || {
            "is 0, at least 1 chunk is shuffled".to_owned()
        });
        self.batch(&job.batch);
        self.method(&job.method, &job.batch);
        self.model(&job.model);
        self.optimizer(&job.optimizer, job.epochs);
        self.fleet(&job.fleet, &job.batch);
        self.checkpoint(&job.checkpoint);
    }

    fn batch(&mut self, batch: &BatchSpec) {
        self.positive(batch.lanes, LANES_MAX, "spec.batch.lanes");
        self.positive(batch.samples_per_lane, SAMPLES_PER_LANE_MAX, "spec.batch.samplesPerLane");
        let (group, lanes) = (batch.norm_group_lanes, batch.lanes);
        self.require(group > 0 && lanes.is_multiple_of(group), "spec.batch.normGroupLanes", || {
            format!("is {group}, must divide the {lanes} lanes")
        });
    }

    fn method(&mut self, method: &MethodSpec, batch: &BatchSpec) {
        self.require(method.objective == Objective::Byol, "spec.method.objective", || {
            "nt_xent is not available yet: use byol".to_owned()
        });
        match method.prior {
            Prior::Slic { segments } => self.positive(segments, SLIC_SEGMENTS_MAX, "spec.method.prior.segments"),
            Prior::Grid { cells } => self.positive(cells, GRID_CELLS_MAX, "spec.method.prior.cells"),
            Prior::None {} => {
                self.require(!method.mask_prediction.enabled, "spec.method.maskPrediction.enabled", || {
                    "needs regions to merge, but spec.method.prior is none: set it to false".to_owned()
                })
            }
        }
        let masks = &method.mask_prediction;
        self.positive(masks.max_iterations, 10_000, "spec.method.maskPrediction.maxIterations");
        self.not_negative(masks.tolerance, "spec.method.maskPrediction.tolerance");
        self.not_negative(method.validity_threshold, "spec.method.validityThreshold");
        self.curriculum(&method.curriculum);
        let points = u64::from(batch.samples_per_lane) * u64::from(method.prior.regions());
        if let Some(k) = method.curriculum.named_ks().into_iter().filter(|&k| k <= K_MAX).max()
            && masks.enabled
        {
            self.require(u64::from(k) <= points, "spec.method.curriculum", || {
                format!(
                    "K = {k} is larger than the {points} regions of a lane ({} images of {} regions): lower K, or \
                     raise spec.batch.samplesPerLane or the prior's regions",
                    batch.samples_per_lane,
                    method.prior.regions()
                )
            });
        }
    }

    fn curriculum(&mut self, curriculum: &Curriculum) {
        let path = "spec.method.curriculum";
        self.require(curriculum.named_ks().iter().all(|&k| k > 0), path, || "K is 0, must be 1 or more".to_owned());
        match curriculum {
            Curriculum::Linear { epochs, .. } | Curriculum::Cosine { epochs, .. } => {
                self.require(epochs[0] < epochs[1], "spec.method.curriculum.epochs", || {
                    format!("[{}, {}] must rise", epochs[0], epochs[1])
                });
            }
            Curriculum::Piecewise { steps } => {
                let rises = steps.windows(2).all(|pair| pair[0].epoch < pair[1].epoch);
                self.require(rises && !steps.is_empty(), "spec.method.curriculum.steps", || {
                    "must name at least one epoch, in rising order".to_owned()
                });
            }
            Curriculum::Constant { .. } => {}
        }
    }

    fn model(&mut self, model: &ModelSpec) {
        self.require(model.backbone != Backbone::VitB16, "spec.model.backbone", || {
            "vit_b_16 is not available yet: use resnet18, resnet34 or resnet50".to_owned()
        });
        self.positive(model.projector.hidden, UNITS_MAX, "spec.model.projector.hidden");
        self.positive(model.projector.output, UNITS_MAX, "spec.model.projector.output");
        self.positive(model.predictor.hidden, UNITS_MAX, "spec.model.predictor.hidden");
        self.fraction(model.target_momentum.base, "spec.model.targetMomentum.base");
        self.fraction(model.target_momentum.final_, "spec.model.targetMomentum.final");
    }

    fn optimizer(&mut self, optimizer: &OptimizerSpec, epochs: u64) {
        self.not_negative(optimizer.base_learning_rate, "spec.optimizer.baseLearningRate");
        if let Some(by) = optimizer.scale_learning_rate_by_k {
            self.require(by.is_finite() && by > 0.0, "spec.optimizer.scaleLearningRateByK", || {
                format!("is {by}, must be more than 0, or null for off")
            });
        }
        self.not_negative(optimizer.warmup_epochs, "spec.optimizer.warmupEpochs");
        self.require(optimizer.warmup_epochs <= epochs as f64, "spec.optimizer.warmupEpochs", || {
            format!("is {}, longer than the run's {epochs} epochs", optimizer.warmup_epochs)
        });
        self.fraction(optimizer.momentum, "spec.optimizer.momentum");
        self.not_negative(optimizer.weight_decay, "spec.optimizer.weightDecay");
        self.not_negative(optimizer.trust_coefficient, "spec.optimizer.trustCoefficient");
    }

    fn fleet(&mut self, fleet: &FleetSpec, batch: &BatchSpec) {
        let (min, max) = (fleet.min_workers, fleet.max_workers);
        self.require(min >= 1, "spec.fleet.minWorkers", || "is 0, a job needs at least one worker".to_owned());
        self.require(min <= max, "spec.fleet.maxWorkers", || format!("is {max}, less than minWorkers = {min}"));
        self.require(min <= batch.lanes, "spec.fleet.minWorkers", || {
            format!("is {min}, but there are only {} lanes to deal: a worker computes at least one", batch.lanes)
        });
    }

    fn checkpoint(&mut self, checkpoint: &CheckpointSpec) {
        if let Some(url) = &checkpoint.url {
            self.require(!url.trim().is_empty(), "spec.checkpoint.url", || {
                "is empty: give a folder or object-store URL, or leave it out".to_owned()
            });
        }
        self.require(checkpoint.every.epochs > 0, "spec.checkpoint.every.epochs", || {
            "is 0, must be 1 or more".to_owned()
        });
        if let Some(minutes) = checkpoint.every.minutes {
            self.require(minutes.is_finite() && minutes > 0.0, "spec.checkpoint.every.minutes", || {
                format!("is {minutes}, must be more than 0, or null for epochs only")
            });
        }
        self.require(checkpoint.keep.last > 0, "spec.checkpoint.keep.last", || {
            "is 0, at least the newest checkpoint must stay".to_owned()
        });
        self.require(checkpoint.keep.every_epochs != Some(0), "spec.checkpoint.keep.everyEpochs", || {
            "is 0, must be 1 or more, or null".to_owned()
        });
    }
}
