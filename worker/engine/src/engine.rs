//! Weights and the step around the forward passes: backward, update, and the way back when something fails.

use r2o_c10d::{NormLayout, ProcessGroup, Reducer, ReducerOptions};
use r2o_types::{JobSpec, Objective, Precision};
use tch::{Device, Kind, Tensor};

use crate::copy::Copying;
use crate::error::{EngineError, StepError};
use crate::kmeans::{self, Start};
use crate::model::Model;
use crate::norm::NormScope;
use crate::peers::{LaneOutput, LaneWords};
use crate::signals;
use crate::step::{self, Context, Forward, StepBatch, StepTicket};
use crate::watch::{self, Stopwatch};
use crate::weights::MemoryFormat;

/// CPU memory kept for the next tensors, at most.
const CACHED_BYTES: usize = 8 << 30;

/// What an engine computes.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The job.
    pub job: JobSpec,
    /// Where.
    pub device: Device,
    /// The lanes of this worker, ascending.
    pub lanes: Vec<u32>,
    /// Threads of libtorch; none: as many as it likes.
    pub threads: Option<i32>,
}

/// What a step reports.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutput {
    /// All lanes of the group in order; those of this worker when it has no peers.
    pub lanes: Vec<LaneOutput>,
    /// Euclidean norm of the mean gradient over all lanes.
    pub gradient_norm: f64,
    /// Every few steps, what tells learning from collapse: names and values, finite all of them.
    pub signals: Vec<(&'static str, f64)>,
    /// Seconds by phase.
    pub timings: Vec<(&'static str, f64)>,
}

/// Masks of some images.
#[derive(Debug)]
pub struct MaskPrediction {
    /// (N, M, M) int64 labels, M a quarter of the image's side.
    pub map: Tensor,
    /// Labels are below this.
    pub count: i64,
}

/// The method on one worker.
#[derive(Debug)]
pub struct Engine {
    pub(crate) job: JobSpec,
    pub(crate) model: Model,
    pub(crate) device: Device,
    pub(crate) lanes: Vec<u32>,
    pub(crate) total_lanes: u32,
    pub(crate) scope: NormScope,
    reducer: Option<Reducer>,
    /// A copy of the state that is not whole yet.
    pub(crate) copying: Option<Copying>,
}

impl Engine {
    /// Weights from the job's seed, equal on every worker, and no peers.
    ///
    /// # Errors
    /// When the job asks for what is not available, or memory is short.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        Self::with_format(options, MemoryFormat::ChannelsLast)
    }

    /// An engine whose state is zero, for one that is loaded, received from a peer, or [`Engine::reset`] later.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn blank(options: EngineOptions) -> Result<Self, EngineError> {
        Self::build(options, MemoryFormat::ChannelsLast)
    }

    /// [`Engine::new`] with images and filters in a given memory format.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_format(options: EngineOptions, format: MemoryFormat) -> Result<Self, EngineError> {
        let mut engine = Self::build(options, format)?;
        engine.reset()?;
        Ok(engine)
    }

    /// Puts the state back to that of the job's seed.
    ///
    /// # Errors
    /// When the device fails.
    pub fn reset(&mut self) -> Result<(), EngineError> {
        self.settle();
        self.model.reset(self.job.seed)
    }

    fn build(options: EngineOptions, format: MemoryFormat) -> Result<Self, EngineError> {
        let EngineOptions { job, device, lanes, threads } = options;
        if job.method.objective != Objective::Byol {
            return Err(EngineError::Unsupported {
                path: "spec.method.objective",
                reason: "nt_xent is not available yet: use byol".to_owned(),
            });
        }
        if let Some(threads) = threads {
            tch::set_num_threads(threads.max(1));
        }
        r2o_aten::cache_memory(CACHED_BYTES)?;
        let model = Model::blank(&job, device, format)?;
        let total_lanes = job.batch.lanes;
        if device.is_cuda() {
            // Otherwise the fastest kernels for these shapes, found by trying.
            r2o_aten::deterministic(job.reproducible)?;
        }
        let scope = NormScope { layout: layout(&job, &lanes), group: None };
        Ok(Self { job, model, device, lanes, total_lanes, scope, reducer: None, copying: None })
    }

    /// An engine of one lane by itself, whatever the job's lanes.
    pub(crate) fn single(mut job: JobSpec, device: Device, format: MemoryFormat) -> Result<Self, EngineError> {
        job.batch.lanes = 1;
        job.batch.norm_group_lanes = 1;
        Self::with_format(EngineOptions { job, device, lanes: vec![0], threads: None }, format)
    }

    /// Joins the peers that compute the other lanes; none: this worker has all of them. Every rank must hold the same
    /// state. Collective.
    ///
    /// # Errors
    /// When peers are lost, or together they do not have every lane once.
    pub fn attach(&mut self, group: Option<ProcessGroup>) -> Result<(), EngineError> {
        let layout = layout(&self.job, &self.lanes);
        // The old reducer's hooks must be gone before new ones are set.
        self.reducer = None;
        let layout = match &group {
            Some(group) if self.job.reproducible => layout.agree(group)?,
            Some(group) => {
                let params: Vec<Tensor> = self.model.online.params.iter().map(Tensor::shallow_clone).collect();
                self.reducer = Some(Reducer::new(group, &params, ReducerOptions::default())?);
                layout.agree(group)?
            }
            None => layout,
        };
        self.scope = NormScope { layout, group };
        Ok(())
    }

    /// Lets go of the peers and takes other lanes, ascending, in the same state.
    pub fn take_lanes(&mut self, lanes: Vec<u32>) {
        self.reducer = None;
        self.lanes = lanes;
        self.scope = NormScope { layout: layout(&self.job, &self.lanes), group: None };
    }

    /// One optimiser step over the batches of all local lanes.
    ///
    /// # Errors
    /// When the batch does not fit, a value is not finite, or a peer is lost. The state is then that before the step.
    pub fn step(&mut self, batch: &StepBatch, ticket: &StepTicket) -> Result<StepOutput, StepError> {
        self.step_with(batch, &[], ticket, Stopwatch::new(self.device))
    }

    /// [`Engine::step`] with words for the peers.
    pub(crate) fn step_with(
        &mut self,
        batch: &StepBatch,
        words: &[LaneWords],
        ticket: &StepTicket,
        watch: Stopwatch,
    ) -> Result<StepOutput, StepError> {
        self.check(batch, ticket)?;
        let before = Snapshot::take(&self.model);
        let result = self.advance(batch, words, ticket, watch).map(|(output, _)| output);
        if result.is_err() {
            self.settle();
            before.restore(&mut self.model);
        }
        result
    }

    /// The step, with what its forward passes left.
    pub(crate) fn advance(
        &mut self,
        batch: &StepBatch,
        words: &[LaneWords],
        ticket: &StepTicket,
        mut watch: Stopwatch,
    ) -> Result<(StepOutput, Forward), StepError> {
        r2o_aten::drop_grads(&self.model.online.params)?;
        if self.job.reproducible {
            self.model.online.renew_leaves();
        }
        if let Some(reducer) = &self.reducer {
            reducer.prepare_forward()?;
        }
        let context = Context {
            job: &self.job,
            model: &self.model,
            scope: &self.scope,
            lanes: &self.lanes,
            autocast: self.job.precision == Precision::Bfloat16,
            copying: self.copying.as_ref(),
        };
        let forward = context.forward(batch, ticket, &mut watch)?;
        watch.time("backward", || self.backward(&forward.losses))?;
        let due = signals::due(ticket.step);
        let signals =
            due.then(|| watch.time("signals", || signals::signals(&forward))).transpose()?.unwrap_or_default();
        let mut held = None;
        let grads = watch.time("all_reduce_wait", || self.reduced_gradients())?;
        let (lanes, gradient_norm) = watch.time("update", || {
            let local = self.local_lanes(batch, words, &forward)?;
            self.update(&local, &grads, ticket, &mut held)
        })?;
        if let Some(seconds) = held {
            watch.took("checkpoint_hold", seconds);
        }
        let mut timings = watch.finish()?;
        if let Some(seconds) = self.reducer.as_ref().map(Reducer::wait_seconds).transpose()? {
            // The reducer waits at the end of backward.
            watch::shift(&mut timings, "backward", "all_reduce_wait", seconds);
        }
        Ok((StepOutput { lanes, gradient_norm, signals, timings }, forward))
    }

    fn local_lanes(
        &self,
        batch: &StepBatch,
        words: &[LaneWords],
        forward: &Forward,
    ) -> Result<Vec<LaneOutput>, StepError> {
        let values = |t: &Tensor| Vec::<f64>::try_from(t.detach().to_device(Device::Cpu).to_kind(Kind::Double));
        let (losses, valid) = (values(&forward.losses)?, values(&forward.valid)?);
        let masks = if batch.audit { digests(&forward.masks.map, self.lanes.len())? } else { Vec::new() };
        let lane = |(at, lane): (usize, &u32)| LaneOutput {
            lane: *lane,
            loss: losses[at],
            valid_regions: valid[at],
            mask_digest: masks.get(at).copied().unwrap_or_default(),
            words: words.get(at).copied().unwrap_or_default(),
        };
        Ok(self.lanes.iter().enumerate().map(lane).collect())
    }

    /// Gradients of the mean loss over all lanes of the job: the reducer takes the mean over ranks, which have different
    /// numbers of lanes.
    fn backward(&self, losses: &Tensor) -> Result<(), StepError> {
        let world = self.scope.group.as_ref().filter(|_| self.reducer.is_some()).map_or(1, ProcessGroup::world);
        let total = if self.scope.group.is_some() { self.total_lanes } else { self.lanes.len() as u32 };
        let loss = losses.sum(Kind::Float) * (world as f64 / f64::from(total));
        if let Some(reducer) = &self.reducer {
            reducer.prepare_backward()?;
        }
        Ok(loss.f_backward()?)
    }

    /// Gradients in the order of parameters, summed over all workers; float32.
    pub(crate) fn reduced_gradients(&self) -> Result<Vec<Tensor>, StepError> {
        let online = &self.model.online;
        if !self.job.reproducible {
            return Ok(online.params.iter().map(Tensor::grad).collect());
        }
        let mut grads: Vec<Tensor> = online.leaves.iter().map(Tensor::grad).collect();
        if let Some(group) = &self.scope.group {
            let flat: Vec<_> = grads.iter().map(|grad| grad.reshape([-1])).collect();
            let mut flat = Tensor::f_cat(&flat, 0)?;
            group.all_reduce_sum(&mut flat)?;
            let sizes: Vec<i64> = grads.iter().map(|grad| grad.numel() as i64).collect();
            let parts = flat.f_split_with_sizes(sizes, 0)?;
            grads = parts.iter().zip(&online.leaves).map(|(part, leaf)| part.view_as(leaf)).collect();
        }
        let rounded = |(grad, param): (&Tensor, &Tensor)| {
            // In the parameter's memory format.
            let mut rounded = param.detach().empty_like();
            rounded.f_copy_(&(grad.select(0, 0) + grad.select(0, 1)))?;
            Ok(rounded)
        };
        grads.iter().zip(&online.params).map(rounded).collect()
    }

    /// LARS, once everything is known to be finite and every peer knows of every lane. Returns all lanes, and the gradient's
    /// norm. `held`: for how long a copy of the state held it.
    fn update(
        &mut self,
        local: &[LaneOutput],
        grads: &[Tensor],
        ticket: &StepTicket,
        held: &mut Option<f64>,
    ) -> Result<(Vec<LaneOutput>, f64), StepError> {
        let buffers = [&self.model.online.flat_buffers, &self.model.target.flat_buffers].map(Tensor::shallow_clone);
        r2o_c10d::average_running(&self.scope.layout, self.scope.group.as_ref(), &buffers)?;
        let norms = Vec::<f64>::try_from(r2o_aten::norms(grads)?)?;
        let lanes = self.all_lanes(local)?;
        if let Some(group) = &self.scope.group {
            // An aborted collective may have left its numbers unreduced without an error.
            group.check("step")?;
        }
        let not_finite = |lane, tensor| StepError::NotFinite { step: ticket.step, lane, tensor };
        if let Some(lane) = lanes.iter().find(|lane| !lane.loss.is_finite()) {
            return Err(not_finite(Some(lane.lane), "loss".to_owned()));
        }
        if let Some(index) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(not_finite(
                None,
                format!("grad.{}", self.model.online_name(&self.model.slots.params[index].name)),
            ));
        }
        *held = self.copying.take().map(Copying::release);
        let optimizer = &self.job.optimizer;
        r2o_aten::lars(
            &self.model.online.params,
            grads,
            &self.model.momentum.params,
            &self.model.adapt,
            r2o_aten::LarsOptions {
                learning_rate: ticket.learning_rate,
                momentum: optimizer.momentum,
                weight_decay: optimizer.weight_decay,
                trust: optimizer.trust_coefficient,
            },
        )?;
        Ok((lanes, norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt()))
    }

    pub(crate) fn check(&self, batch: &StepBatch, ticket: &StepTicket) -> Result<(), StepError> {
        let images = i64::from(self.job.batch.samples_per_lane) * self.lanes.len() as i64;
        step::check(batch, images, i64::from(self.job.data.image_size), self.job.precision)
            .map_err(|reason| StepError::Input { step: ticket.step, reason })
    }

    /// Masks of raw views (N, 3, s, s) with their prior (N, s, s), as a lane of their own: for pictures. Leaves no trace
    /// in the state.
    ///
    /// # Errors
    /// When shapes do not fit, or there are fewer regions than clusters.
    pub fn predict_masks(&mut self, raw: &Tensor, prior: &Tensor, k: u32) -> Result<MaskPrediction, StepError> {
        self.settle();
        let before = Snapshot::take(&self.model);
        let context = Context {
            job: &self.job,
            model: &self.model,
            scope: &NormScope::single(),
            lanes: &[0],
            autocast: self.job.precision == Precision::Bfloat16,
            copying: None,
        };
        let start = |clusters| Start::PlusPlus(kmeans::uniforms("gallery", &[vec![self.job.seed]], clusters));
        let masks = tch::no_grad(|| context.masks(raw, prior, k, start, 0, &mut Stopwatch::new(raw.device())));
        before.restore(&mut self.model);
        masks.map(|masks| MaskPrediction { map: masks.map, count: masks.count })
    }
}

fn layout(job: &JobSpec, lanes: &[u32]) -> NormLayout {
    let layout = NormLayout::new(job.batch.lanes, job.batch.norm_group_lanes.max(1), lanes);
    if job.reproducible { layout.reproducible() } else { layout }
}

/// What a step changes before it is known to succeed.
struct Snapshot {
    target: Tensor,
    target_buffers: Tensor,
    online_buffers: Tensor,
}

impl Snapshot {
    fn take(model: &Model) -> Self {
        let copy = |t: &Tensor| tch::no_grad(|| t.copy());
        Self {
            target: copy(&model.target.flat),
            target_buffers: copy(&model.target.flat_buffers),
            online_buffers: copy(&model.online.flat_buffers),
        }
    }

    fn restore(&self, model: &mut Model) {
        tch::no_grad(|| {
            model.target.flat.copy_(&self.target);
            model.target.flat_buffers.copy_(&self.target_buffers);
            model.online.flat_buffers.copy_(&self.online_buffers);
        });
    }
}

/// XXH3 of each lane's labels, as bytes.
fn digests(map: &Tensor, lanes: usize) -> Result<Vec<u64>, StepError> {
    let labels = Vec::<u8>::try_from(map.to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous().view(-1))?;
    Ok(labels.chunks((labels.len() / lanes.max(1)).max(1)).map(xxhash_rust::xxh3::xxh3_64).collect())
}
