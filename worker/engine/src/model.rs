//! The three networks: online (backbone, projector), its predictor, and the target, which follows by moving average.

use r2o_types::JobSpec;
use tch::{Device, Tensor};

use crate::backbone::Backbone;
use crate::error::{EngineError, StepError};
use crate::heads::Head;
use crate::lanes::by_lane;
use crate::loss;
use crate::norm::NormScope;
use crate::weights::{MemoryFormat, Slots, Weights};

/// Drawing and values of everything that is trained or follows.
#[derive(Debug)]
pub(crate) struct Model {
    backbone: Backbone,
    projector: Head,
    predictor: Head,
    /// Of online network and predictor; the target's are the first of them.
    pub(crate) slots: Slots,
    /// Of the target.
    pub(crate) target_slots: Slots,
    pub(crate) online: Weights,
    pub(crate) target: Weights,
    pub(crate) momentum: Weights,
    /// Which parameters are decayed and adapted: those with more than one dimension.
    pub(crate) adapt: Vec<bool>,
    format: MemoryFormat,
}

impl Model {
    /// All values zero.
    pub(crate) fn blank(job: &JobSpec, device: Device, format: MemoryFormat) -> Result<Self, EngineError> {
        let mut slots = Slots::default();
        let backbone = Backbone::new(&mut slots, "backbone", job.model.backbone).ok_or(EngineError::Unsupported {
            path: "spec.model.backbone",
            reason: "vit_b_16 is not available yet: use resnet18, resnet34 or resnet50".to_owned(),
        })?;
        let (hidden, output) = (i64::from(job.model.projector.hidden), i64::from(job.model.projector.output));
        let projector = Head::new(&mut slots, "projector", backbone.channels(), hidden, output);
        let target_slots = slots.prefix(slots.params.len(), slots.buffers.len());
        let hidden = i64::from(job.model.predictor.hidden);
        let predictor = Head::new(&mut slots, "predictor", output, hidden, output);

        let mut online = Weights::zeros(&slots, device, format)?;
        let target = Weights::zeros(&target_slots, device, format)?;
        online.require_gradients();
        let no_buffers = slots.prefix(slots.params.len(), 0);
        let momentum = Weights::zeros(&no_buffers, device, format)?;
        let adapt = slots.params.iter().map(|slot| slot.shape.len() > 1).collect();
        Ok(Self { backbone, projector, predictor, slots, target_slots, online, target, momentum, adapt, format })
    }

    /// First values from the seed; the target starts equal to the online network, and momentum at zero.
    pub(crate) fn reset(&mut self, seed: u64) -> Result<(), EngineError> {
        self.online.initialise(&self.slots, seed)?;
        tch::no_grad(|| {
            let Weights { flat, flat_buffers, .. } = &mut self.target;
            flat.f_copy_(&self.online.flat.narrow(0, 0, flat.size()[0]))?;
            flat_buffers.f_copy_(&self.online.flat_buffers.narrow(0, 0, flat_buffers.size()[0]))?;
            drop(self.momentum.flat.f_zero_()?);
            Ok(())
        })
    }

    /// C4 of raw views, by the target network; moves its running statistics.
    pub(crate) fn mask_features(&self, raw: &Tensor, scope: &NormScope) -> Result<Tensor, StepError> {
        self.backbone.c4(&self.arrange(raw)?, &self.target, scope)
    }

    /// Predictions (rows, D) for views (N, 3, s, s) under masks (N, K, cells).
    pub(crate) fn predict(&self, views: &Tensor, masks: &Tensor, scope: &NormScope) -> Result<Tensor, StepError> {
        let projections = self.project(views, masks, &self.online, scope)?;
        self.predictor.forward(&projections, &self.online, scope)
    }

    /// The target's projections (rows, D).
    pub(crate) fn target(&self, views: &Tensor, masks: &Tensor, scope: &NormScope) -> Result<Tensor, StepError> {
        self.project(views, masks, &self.target, scope)
    }

    fn arrange(&self, images: &Tensor) -> Result<Tensor, StepError> {
        match self.format {
            MemoryFormat::Contiguous => Ok(images.f_contiguous()?),
            MemoryFormat::ChannelsLast => Ok(r2o_aten::channels_last(images)?),
        }
    }

    fn project(
        &self,
        views: &Tensor,
        masks: &Tensor,
        weights: &Weights,
        scope: &NormScope,
    ) -> Result<Tensor, StepError> {
        let features = self.backbone.c5(&self.arrange(views)?, weights, scope)?;
        let pooled = by_lane(scope, [masks, &features], |_, [masks, features]| Ok(loss::pool(masks, features)))?;
        let channels = pooled.size()[2];
        self.projector.forward(&pooled.reshape([-1, channels]), weights, scope)
    }

    /// Moves the target's parameters (not its buffers) towards the online network's.
    pub(crate) fn follow(&self, tau: f64) -> Result<(), StepError> {
        let length = self.target.flat.size()[0];
        let online = self.online.flat.narrow(0, 0, length);
        Ok(r2o_aten::ema(&[self.target.flat.shallow_clone()], &[online], tau)?)
    }
}
