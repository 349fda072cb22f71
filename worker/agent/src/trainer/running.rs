//! A formed generation: computes granted steps, reports them, copies the state out, and keeps the gallery.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use r2o_data::{Batch, Loader};
use r2o_engine::host::HostBatch;
use r2o_engine::{LaneOutput, LaneWords, StepError, StepOutput, StepTicket};
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{LaneReport, Signal, StepReport, Timing};
use r2o_storage::gallery as pages;
use r2o_telemetry::TaskKind;
use r2o_telemetry::otlp::{Spans, step_place};
use r2o_types::{TraceContext, sample_digest};
use r2o_worker_core::{Assignment, Failure, Ticket};
use tokio::runtime::Handle;
use tracing::Instrument;

use super::base::Base;
use super::traced::Traced;
use super::{Settings, failure_of};
use crate::gallery::{self, Probe};
use crate::metrics::{self, Loaded, Metrics};
use crate::session::Outbox;
use crate::{checkpoint, wire};

/// One generation on this worker.
pub(super) struct Running {
    assignment: Arc<Assignment>,
    base: Box<Base>,
    loader: Loader,
    outbox: Outbox,
    metrics: Metrics,
    spans: Spans,
    name: String,
    loaded: Loaded,
    runtime: Handle,
    audit: bool,
    flip_bit_at: Option<u64>,
}

impl Running {
    pub(super) fn new(
        settings: &Settings,
        assignment: Arc<Assignment>,
        base: Box<Base>,
        loader: Loader,
        outbox: Outbox,
    ) -> Self {
        Self {
            metrics: Arc::clone(&settings.metrics),
            spans: settings.spans.clone(),
            name: settings.name.clone(),
            loaded: Loaded::default(),
            runtime: settings.runtime.clone(),
            audit: settings.audit,
            flip_bit_at: settings.flip_bit_at,
            assignment,
            base,
            loader,
            outbox,
        }
    }

    /// What the next generation can go on with.
    pub(super) fn into_base(self) -> Box<Base> {
        self.base
    }

    /// The generation.
    pub(super) fn generation(&self) -> u64 {
        self.assignment.generation
    }

    /// Committed steps of the state.
    pub(super) fn step(&self) -> u64 {
        self.base.step
    }

    /// Computes one step and reports it.
    ///
    /// # Errors
    /// A collective failure when a peer is lost; a job failure for damaged data or values that are not finite.
    pub(super) fn compute(&mut self, ticket: Ticket) -> Result<(), Failure> {
        let _place = step_place(&self.assignment.job, self.generation(), ticket.step, ticket.trace).entered();
        let mut traced = Traced::begin(&self.spans, &self.name, ticket.trace, "compute_step");
        let done = self.apply(ticket, &mut traced);
        traced.end(done.as_ref().err());
        done
    }

    fn apply(&mut self, ticket: Ticket, traced: &mut Traced) -> Result<(), Failure> {
        let mut seen = if ticket.step == 0 { self.picture(0, 0, ticket.k) } else { Vec::new() };
        let waited = Instant::now();
        let batch = self.loader.next().context("reading the next batch").map_err(failure_of)?;
        self.loaded.count(&self.metrics, self.loader.ready(), &self.loader.stats());
        let data_wait = waited.elapsed().as_secs_f64();
        if (batch.step, batch.epoch) != (ticket.step, ticket.epoch) {
            return Err(Failure::Job(format!(
                "the ticket is for step {} of epoch {}, but the data is for step {} of epoch {}: \
                 was the data set packed anew while the job ran?",
                ticket.step, ticket.epoch, batch.step, batch.epoch
            )));
        }
        let words = self.words(&batch);
        let input = host_batch(&batch, &words, self.audit);
        let mut output =
            self.base.engine.step_host(&input, &step_ticket(ticket)).map_err(|error| self.classify(error))?;
        let applied = ticket.step + 1;
        if applied.is_multiple_of(self.base.steps_per_epoch) {
            seen = self.picture(applied / self.base.steps_per_epoch, applied, ticket.k);
        }
        output.signals.extend(seen);
        let timings = self.report(ticket, &batch.lanes, &output, data_wait)?;
        traced.parts(&timings);
        tracing::debug!(seconds = waited.elapsed().as_secs_f64(), "step computed");
        Ok(())
    }

    /// Begins to copy this rank's share of the state to host memory, and uploads it, while training goes on.
    ///
    /// # Errors
    /// A job failure when the state cannot be copied.
    pub(super) fn copy_out(&mut self, step: u64, trace: Option<TraceContext>) -> Result<(), Failure> {
        let mut traced = Traced::begin(&self.spans, &self.name, trace, "save_share");
        let names = self.base.engine.tensor_sizes();
        let sizes: Vec<(&str, usize)> = names.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let ranks = checkpoint::share(&sizes, self.assignment.members.len());
        let mine: Vec<&str> =
            sizes.iter().zip(&ranks).filter(|(_, rank)| **rank == self.assignment.rank).map(|(t, _)| t.0).collect();
        let began = Instant::now();
        let copy = self.base.engine.begin_copy(&mine).map_err(failure_of)?;
        let (store, outbox) = (self.base.store.clone(), self.outbox.clone());
        let (job, generation) = (self.assignment.job.clone(), self.assignment.generation);
        let metrics = Arc::clone(&self.metrics);
        let place = step_place(&job, generation, step, trace);
        let _entered = self.runtime.enter();
        let upload = async move {
            let copied = r2o_telemetry::spawn_blocking("state copy", TaskKind::Work, || copy.wait()).await;
            let tensors = copied.map_err(anyhow::Error::new).and_then(|copied| Ok(copied?));
            let copied = began.elapsed();
            metrics.copy_seconds.observe(&[], copied.as_secs_f64());
            traced.measured("copy_state", copied.as_secs_f64());
            let began = Instant::now();
            let part = checkpoint::upload(store, job, generation, step, tensors).await;
            metrics::upload(&metrics, &part, began.elapsed());
            traced.measured("upload", began.elapsed().as_secs_f64());
            traced.end_with(Some(part.error.clone()).filter(|error| !error.is_empty()));
            outbox.send(wire::message(Kind::CheckpointPart(part)));
        };
        let _runs_on = r2o_telemetry::spawn("checkpoint upload", TaskKind::Work, upload.instrument(place));
        Ok(())
    }

    /// With peers, whatever libtorch reports may be the peer's doing: only values and data are the job's own fault.
    fn classify(&self, error: StepError) -> Failure {
        let own_fault = self.assignment.members.len() == 1 || matches!(error, StepError::NotFinite { .. });
        let text = format!("{:#}", anyhow::Error::new(error));
        if own_fault { Failure::Job(text) } else { Failure::Collective(text) }
    }

    /// What every peer should know of this worker's lanes: where their samples start, and hashes of samples and pixels.
    fn words(&self, batch: &Batch) -> Vec<LaneWords> {
        let samples_per_lane = self.base.job.spec.batch.samples_per_lane as usize;
        let samples = batch.samples.chunks(samples_per_lane);
        let words = |(at, samples): (usize, &[u64])| {
            let pixels = batch.pixel_digests.get(at).copied().unwrap_or_default();
            [batch.first_positions[at], sample_digest(samples), pixels]
        };
        samples.enumerate().map(words).collect()
    }

    /// Tells the coordinator of this worker's lanes, and remembers all of them. Gives back the parts of the step.
    fn report(
        &mut self,
        ticket: Ticket,
        mine: &[u32],
        output: &StepOutput,
        data_wait: f64,
    ) -> Result<Vec<Timing>, Failure> {
        let lane = |lane: &LaneOutput| {
            let [first_position, sample_digest, pixel_digest] = lane.words;
            LaneReport {
                lane: lane.lane,
                loss: lane.loss,
                valid_regions: lane.valid_regions,
                first_position,
                sample_digest,
                pixel_digest,
                mask_digest: lane.mask_digest,
            }
        };
        let timing = |phase: &str, seconds: f64| Timing { phase: phase.to_owned(), seconds };
        let mut timings = vec![timing("data_wait", data_wait)];
        timings.extend(output.timings.iter().map(|(phase, seconds)| timing(phase, *seconds)));
        let all = StepReport {
            job: self.assignment.job.clone(),
            generation: self.assignment.generation,
            step: ticket.step,
            lanes: output.lanes.iter().map(lane).collect(),
            gradient_norm: output.gradient_norm,
            timings,
            signals: output
                .signals
                .iter()
                .map(|(name, value)| Signal { name: (*name).to_owned(), value: *value })
                .collect(),
            ..StepReport::default()
        };
        let mut own = all.clone();
        own.lanes.retain(|lane| mine.contains(&lane.lane));
        self.base.applied(all);
        if self.flip_bit_at == Some(ticket.step) {
            self.flip_bit_at = None;
            self.base.engine.flip_bit().map_err(failure_of)?;
        }
        if ticket.hash_state {
            let start = Instant::now();
            let digests = self.base.engine.digests().map_err(failure_of)?;
            own.tensor_digests = digests.iter().map(|(_, digest)| *digest).collect();
            if self.assignment.rank == 0 {
                own.tensor_names = digests.into_iter().map(|(name, _)| name).collect();
            }
            own.timings.push(timing("hash_state", start.elapsed().as_secs_f64()));
        }
        let images = own.lanes.len() * self.base.job.spec.batch.samples_per_lane as usize;
        metrics::step(&self.metrics, &own.timings, images);
        let timings = own.timings.clone();
        self.outbox.send(wire::message(Kind::StepReport(own)));
        Ok(timings)
    }

    /// Writes one page of the gallery after `epoch` finished epochs and `step` steps, and gives back what it says of the masks
    /// in numbers. Pictures are for people: a page that cannot be made or stored is a notice, never a reason to stop.
    fn picture(&mut self, epoch: u64, step: u64, k: u32) -> Vec<(&'static str, f64)> {
        if self.assignment.rank != 0 || !gallery::due(epoch, self.base.job.spec.epochs) {
            return Vec::new();
        }
        let page = match self.page(epoch, step, k) {
            Ok(page) => page,
            Err(error) => {
                self.complain(&error);
                return Vec::new();
            }
        };
        let overlaps = [
            ("average_best_overlap", page.average_best_overlap),
            ("prior_average_best_overlap", page.prior_average_best_overlap),
        ];
        let (store, outbox, job) = (self.base.store.clone(), self.outbox.clone(), self.assignment.job.clone());
        let _entered = self.runtime.enter();
        let _runs_on = r2o_telemetry::spawn("gallery upload", TaskKind::Work, async move {
            if let Err(error) = pages::write_page(&store, &page).await {
                let error = anyhow::Error::new(error);
                outbox.send(wire::notice(
                    &job,
                    "GalleryFailed",
                    format!("cannot store a page of the gallery: {error:#}"),
                ));
            }
        });
        overlaps.into_iter().filter_map(|(name, overlap)| Some((name, overlap?))).collect()
    }

    fn page(&mut self, epoch: u64, step: u64, k: u32) -> Result<pages::GalleryPage> {
        if self.base.probe.is_none() {
            self.base.probe = Some(Probe::read(&self.base.dataset, &self.base.job.spec)?);
        }
        let probe = self.base.probe.as_ref().context("the gallery has no images")?;
        let masks = self
            .base
            .engine
            .predict_masks_host(&host_batch(&probe.batch, &[], false), k)
            .context("cannot predict the gallery's masks")?;
        gallery::page(&self.base.dataset, probe, &masks, epoch, step, k)
    }

    fn complain(&self, error: &anyhow::Error) {
        self.outbox.send(wire::notice(&self.assignment.job, "GalleryFailed", format!("{error:#}")));
    }
}

fn step_ticket(ticket: Ticket) -> StepTicket {
    StepTicket {
        step: ticket.step,
        epoch: ticket.epoch,
        k: ticket.k,
        tau: ticket.tau,
        learning_rate: ticket.learning_rate,
    }
}

fn host_batch<'a>(batch: &'a Batch, words: &'a [LaneWords], audit: bool) -> HostBatch<'a> {
    HostBatch {
        images: batch.images,
        size: batch.size as usize,
        dtype: batch.raw.dtype(),
        raw: batch.raw.bytes(),
        view1: batch.view1.bytes(),
        view2: batch.view2.bytes(),
        prior: &batch.prior,
        boxes1: &batch.boxes1,
        boxes2: &batch.boxes2,
        flips1: &batch.flips1,
        flips2: &batch.flips2,
        audit,
        words,
    }
}
