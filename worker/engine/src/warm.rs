//! A step that counts for nothing, so that the first one that counts takes no longer than those after it.

use tch::{Kind, Tensor};

use crate::engine::Engine;
use crate::error::StepError;
use crate::step::{StepBatch, StepTicket};

/// Clusters of the step.
const CLUSTERS: u32 = 4;
/// Regions on a side of an image; together more than clusters.
const REGIONS: i64 = 4;

impl Engine {
    /// Computes one step of one lane over grey images: kernels are chosen and built, threads started and memory taken. For an
    /// engine whose state is worth nothing yet, and is worth nothing afterwards.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn warm_up(&mut self) -> Result<(), StepError> {
        // A lane by itself, so that there is nobody to share statistics with.
        let (lanes, batch) = (std::mem::take(&mut self.lanes), self.job.batch.clone());
        (self.job.batch.lanes, self.job.batch.norm_group_lanes) = (1, 1);
        self.take_lanes(vec![0]);
        let ticket = StepTicket { step: 0, epoch: 0, k: CLUSTERS, tau: 1.0, learning_rate: 0.0 };
        let result = self.grey().and_then(|batch| self.step(&batch, &ticket));
        self.job.batch = batch;
        self.take_lanes(lanes);
        result.map(drop)
    }

    fn grey(&self) -> Result<StepBatch, StepError> {
        let (images, size) = (i64::from(self.job.batch.samples_per_lane), i64::from(self.job.data.image_size));
        let view = || Tensor::f_zeros([images, 3, size, size], (Kind::Float, self.device));
        let row = Tensor::f_arange(size, (Kind::Int64, self.device))? * REGIONS / size;
        let row = row.to_kind(Kind::Int64);
        let prior = (row.unsqueeze(1) * REGIONS + row.unsqueeze(0)).unsqueeze(0).repeat([images, 1, 1]);
        let boxes = Tensor::from_slice(&[0f32, 0.0, 1.0, 1.0]).to_device(self.device).repeat([images, 1]);
        let flips = Tensor::f_zeros([images], (Kind::Bool, self.device))?;
        Ok(StepBatch {
            raw: view()?,
            view1: view()?,
            view2: view()?,
            prior,
            boxes1: boxes.shallow_clone(),
            boxes2: boxes,
            flips1: flips.shallow_clone(),
            flips2: flips,
            centres: None,
            audit: false,
        })
    }
}
