//! One step of METHOD.md for all local lanes at once.
//!
//! Rows are lane-major everywhere; with both views a lane's rows are its view 1, then its view 2, so that a group of lanes
//! is one stretch of rows.

use r2o_types::{JobSpec, Precision};
use tch::{Kind, Tensor};

use crate::copy::Copying;
use crate::error::StepError;
use crate::kmeans::{self, Settings, Start};
use crate::lanes::by_lane;
use crate::masks::{self, Masks};
use crate::model::Model;
use crate::norm::NormScope;
use crate::roi_align::Aligner;
use crate::watch::Stopwatch;
use crate::{loss, prior};

/// What the coordinator granted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTicket {
    /// Steps of the run before this one.
    pub step: u64,
    /// Epochs before this one.
    pub epoch: u64,
    /// Clusters; above 128 the masks are the prior.
    pub k: u32,
    /// EMA momentum of the target network.
    pub tau: f64,
    /// Learning rate.
    pub learning_rate: f64,
}

/// Images of all local lanes, lane-major, N = lanes * B, on the engine's device.
#[derive(Debug)]
pub struct StepBatch {
    /// (N, 3, s, s) float32 or, for a job of that precision, bfloat16; normalised: the whole image.
    pub raw: Tensor,
    /// (N, 3, s, s), of the same type, normalised.
    pub view1: Tensor,
    /// (N, 3, s, s), of the same type, normalised.
    pub view2: Tensor,
    /// (N, s, s) integers: regions of the raw view, counted from 0.
    pub prior: Tensor,
    /// (N, 4) float32: y0, x0, y1, x1 of view 1 in the raw view, in [0, 1].
    pub boxes1: Tensor,
    /// (N, 4) float32, of view 2.
    pub boxes2: Tensor,
    /// (N) bool: view 1 is mirrored.
    pub flips1: Tensor,
    /// (N) bool, of view 2.
    pub flips2: Tensor,
    /// K-means' first centres, (L, K, C) float32, instead of k-means++.
    pub centres: Option<Tensor>,
    /// Hash the masks of each lane.
    pub audit: bool,
}

/// What the forward passes leave.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) masks: Masks,
    /// (L, 2, B, K, D), view 1 then view 2.
    pub(crate) predictions: Tensor,
    /// (L, 2, B, K, D), view 2 then view 1: beside the predictions that they are compared with.
    pub(crate) projections: Tensor,
    /// (L), with gradients.
    pub(crate) losses: Tensor,
    /// (L): regions that count, per image.
    pub(crate) valid: Tensor,
    /// (L, B, K): 0 for a region that does not count.
    pub(crate) weights: Tensor,
}

/// What is the same for all passes of a step.
pub(crate) struct Context<'a> {
    pub(crate) job: &'a JobSpec,
    pub(crate) model: &'a Model,
    pub(crate) scope: &'a NormScope,
    /// The job's numbers of the local lanes.
    pub(crate) lanes: &'a [u32],
    pub(crate) autocast: bool,
    /// A copy of the state that is being made.
    pub(crate) copying: Option<&'a Copying>,
}

impl Context<'_> {
    fn autocast(&self, on: &Tensor) -> Result<Option<r2o_aten::Autocast>, StepError> {
        Ok(self.autocast.then(|| r2o_aten::Autocast::enter(on.device())).transpose()?)
    }

    /// Masks from the raw view, by the target network as it is.
    pub(crate) fn masks(
        &self,
        raw: &Tensor,
        prior: &Tensor,
        k: u32,
        start: impl FnOnce(i64) -> Start,
        step: u64,
        watch: &mut Stopwatch,
    ) -> Result<Masks, StepError> {
        let side = prior.size()[1] / 4;
        let regions = prior::regions_per_lane(prior, self.lanes.len() as i64);
        if !masks::predicted(&self.job.method, k) {
            let most = self.most_regions(&regions)?;
            return watch.time("masks", || Ok(masks::from_prior(prior, most, side)));
        }
        let images = raw.size()[0] / self.lanes.len() as i64;
        if let Some((lane, points)) = self.lanes.iter().zip(&regions).find(|(_, r)| images * **r < i64::from(k)) {
            return Err(StepError::Clusters { step, lane: *lane, k, points: images * points });
        }
        let c4 = watch.time("mask_features", || {
            let _bfloat16 = self.autocast(raw)?;
            self.model.mask_features(raw, self.scope)
        })?;
        let prediction = &self.job.method.mask_prediction;
        let clusters = i64::from(k);
        let settings = Settings {
            clusters,
            max_iterations: i64::from(prediction.max_iterations),
            tolerance: prediction.tolerance,
        };
        watch.time("masks", || masks::predict(&c4, prior, &regions, &start(clusters), settings, self.scope))
    }

    /// Regions of the job's lane that has most: as many rows enter the heads' norms whoever computes a lane.
    fn most_regions(&self, regions: &[i64]) -> Result<i64, StepError> {
        let mut most = regions.iter().copied().max().unwrap_or(1);
        if let Some(group) = &self.scope.group {
            for theirs in group.all_gather(&Tensor::from_slice(&[most]).to_device(group.device()))? {
                most = most.max(theirs.int64_value(&[0]));
            }
        }
        Ok(most)
    }

    /// Everything up to the loss. The target network follows between the online pass and its own.
    pub(crate) fn forward(
        &self,
        batch: &StepBatch,
        ticket: &StepTicket,
        watch: &mut Stopwatch,
    ) -> Result<Forward, StepError> {
        let method = &self.job.method;
        let start = |clusters| match &batch.centres {
            Some(centres) => Start::Centres(centres.shallow_clone()),
            None => {
                let key = |lane: &u32| vec![self.job.seed, ticket.epoch, ticket.step, u64::from(*lane)];
                Start::PlusPlus(kmeans::uniforms("kmeans", &self.lanes.iter().map(key).collect::<Vec<_>>(), clusters))
            }
        };
        let masks = tch::no_grad(|| self.masks(&batch.raw, &batch.prior, ticket.k, start, ticket.step, watch))?;
        let (aligned1, aligned2, weighting) = watch.time("align", || {
            let maps = masks.one_hot();
            let side = maps.size()[2];
            let align = |boxes: &Tensor, flips: &Tensor| {
                let aligned = by_lane(self.scope, [&maps, boxes, flips], |_, [maps, boxes, flips]| {
                    Ok(Aligner::new(boxes, flips, side, side / 8).apply(maps))
                });
                Ok::<_, StepError>(self.split(&aligned?))
            };
            let aligned = (align(&batch.boxes1, &batch.flips1)?, align(&batch.boxes2, &batch.flips2)?);
            let w = loss::weighting(&aligned.0, &aligned.1, method.validity_threshold, method.weight_by_area);
            Ok((aligned.0, aligned.1, w))
        })?;
        let (view1, view2) = (self.split(&batch.view1), self.split(&batch.view2));
        let both = |first: &Tensor, second: &Tensor| Tensor::stack(&[first, second], 1).flatten(0, 2);

        let predictions = watch.time("online", || {
            let _bfloat16 = self.autocast(&view1)?;
            self.model.predict(&both(&view1, &view2), &both(&aligned1, &aligned2), self.scope)
        })?;
        if let Some(copying) = self.copying {
            copying.release_target();
        }
        watch.time("follow", || self.model.follow(ticket.tau))?;
        let projections = watch.time("target", || {
            let _bfloat16 = self.autocast(&view1)?;
            tch::no_grad(|| self.model.target(&both(&view2, &view1), &both(&aligned2, &aligned1), self.scope))
        })?;
        watch.time("loss", || {
            let lanes = self.lanes.len() as i64;
            let shape = [lanes, 2, view1.size()[1], masks.count, -1];
            let (predictions, projections) = (predictions.view(shape), projections.view(shape));
            let losses =
                by_lane(self.scope, [&predictions, &projections, &weighting.weights], |_, [q, z, weights]| {
                    Ok(loss::byol(q, z, weights))
                })?;
            let loss::Weighting { weights, valid } = weighting;
            Ok(Forward { masks, predictions, projections, losses, valid, weights })
        })
    }

    /// (N, ...) to (L, B, ...).
    fn split(&self, x: &Tensor) -> Tensor {
        let mut shape = vec![self.lanes.len() as i64, x.size()[0] / self.lanes.len() as i64];
        shape.extend(&x.size()[1..]);
        x.view(shape.as_slice())
    }
}

/// Checks the shapes of a batch of `images` of `size`.
pub(crate) fn check(batch: &StepBatch, images: i64, size: i64, precision: Precision) -> Result<(), String> {
    let expect = |name: &str, tensor: &Tensor, shape: &[i64]| {
        if tensor.size() == shape {
            Ok(())
        } else {
            Err(format!("`{name}` is {:?}, expected {shape:?}", tensor.size()))
        }
    };
    for (name, tensor) in [("raw", &batch.raw), ("view1", &batch.view1), ("view2", &batch.view2)] {
        expect(name, tensor, &[images, 3, size, size])?;
        let fits = match tensor.kind() {
            Kind::Float => true,
            // What autocast would make of them anyway, at once.
            Kind::BFloat16 => precision == Precision::Bfloat16,
            _ => false,
        };
        if !fits {
            return Err(format!("`{name}` is {:?}, expected the precision of the job or float32", tensor.kind()));
        }
    }
    expect("prior", &batch.prior, &[images, size, size])?;
    expect("boxes1", &batch.boxes1, &[images, 4])?;
    expect("boxes2", &batch.boxes2, &[images, 4])?;
    expect("flips1", &batch.flips1, &[images])?;
    expect("flips2", &batch.flips2, &[images])
}
