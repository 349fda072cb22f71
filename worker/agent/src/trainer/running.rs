//! A formed generation: computes granted steps, reports them, copies the state out, and keeps the gallery.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use r2o_data::{Batch, Dataset, Loader};
use r2o_engine::host::{HostBatch, HostTensor};
use r2o_engine::{Engine, StepError, StepOutput, StepTicket};
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{LaneReport, StepReport, Timing};
use r2o_storage::{Store, gallery as pages};
use r2o_telemetry::TaskKind;
use r2o_types::{TrainJob, sample_digest, steps_per_epoch};
use r2o_worker_core::{Assignment, Failure, Ticket};
use tokio::runtime::Handle;

use super::{Settings, job_failure};
use crate::session::Outbox;
use crate::{checkpoint, gallery, wire};

/// One generation on this worker.
pub(super) struct Running {
    assignment: Arc<Assignment>,
    job: TrainJob,
    dataset: Arc<Dataset>,
    store: Store,
    engine: Engine,
    loader: Loader,
    outbox: Outbox,
    runtime: Handle,
    /// Committed steps of the engine's state.
    step: u64,
    steps_per_epoch: u64,
    audit: bool,
    /// The gallery's images, on the first rank only.
    probe: Option<Batch>,
}

impl Running {
    #[expect(clippy::too_many_arguments, reason = "one caller, and each part is used as it is")]
    pub(super) fn new(
        settings: &Settings,
        assignment: Arc<Assignment>,
        job: TrainJob,
        dataset: Arc<Dataset>,
        store: Store,
        engine: Engine,
        loader: Loader,
        outbox: Outbox,
    ) -> Self {
        Self {
            steps_per_epoch: steps_per_epoch(dataset.samples(), job.spec.batch.lanes, job.spec.batch.samples_per_lane),
            step: assignment.step,
            runtime: settings.runtime.clone(),
            audit: settings.audit,
            probe: None,
            assignment,
            job,
            dataset,
            store,
            engine,
            loader,
            outbox,
        }
    }

    /// The generation.
    pub(super) fn generation(&self) -> u64 {
        self.assignment.generation
    }

    /// Committed steps of the state.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Computes one step and reports it.
    ///
    /// # Errors
    /// A collective failure when a peer is lost; a job failure for damaged data or values that are not finite.
    pub(super) fn compute(&mut self, ticket: Ticket) -> Result<(), Failure> {
        if ticket.step == 0 {
            self.picture(0, ticket.k);
        }
        let waited = Instant::now();
        let batch = self.loader.next().context("reading the next batch").map_err(job_failure)?;
        let data_wait = waited.elapsed().as_secs_f64();
        if (batch.step, batch.epoch) != (ticket.step, ticket.epoch) {
            return Err(Failure::Job(format!(
                "the ticket is for step {} of epoch {}, but the data is for step {} of epoch {}: \
                 was the data set packed anew while the job ran?",
                ticket.step, ticket.epoch, batch.step, batch.epoch
            )));
        }
        let input = host_batch(&batch, self.audit);
        let output = self.engine.step_host(&input, &step_ticket(ticket)).map_err(|error| self.classify(error))?;
        self.report(ticket, &batch, &output, data_wait);
        self.step = ticket.step + 1;
        if self.step.is_multiple_of(self.steps_per_epoch) {
            self.picture(self.step / self.steps_per_epoch, ticket.k);
        }
        Ok(())
    }

    /// Copies the state to host memory, then uploads this rank's share while training goes on.
    ///
    /// # Errors
    /// A job failure when the state cannot be copied.
    pub(super) fn copy_out(&mut self, step: u64) -> Result<(), Failure> {
        let names = self.engine.tensor_sizes();
        let sizes: Vec<(&str, usize)> = names.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let ranks = checkpoint::share(&sizes, self.assignment.members.len());
        let mine: Vec<&str> =
            sizes.iter().zip(&ranks).filter(|(_, rank)| **rank == self.assignment.rank).map(|(t, _)| t.0).collect();
        let tensors: Vec<HostTensor> = self.engine.copy_out(&mine).map_err(job_failure)?;
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        let (job, generation) = (self.assignment.job.clone(), self.assignment.generation);
        let _entered = self.runtime.enter();
        let _runs_on = r2o_telemetry::spawn("checkpoint upload", TaskKind::Work, async move {
            let part = checkpoint::upload(store, job, generation, step, tensors).await;
            outbox.send(wire::message(Kind::CheckpointPart(part)));
        });
        Ok(())
    }

    /// With peers, whatever libtorch reports may be the peer's doing: only values and data are the job's own fault.
    fn classify(&self, error: StepError) -> Failure {
        let own_fault = self.assignment.members.len() == 1 || matches!(error, StepError::NotFinite { .. });
        let text = format!("{:#}", anyhow::Error::new(error));
        if own_fault { Failure::Job(text) } else { Failure::Collective(text) }
    }

    fn report(&self, ticket: Ticket, batch: &Batch, output: &StepOutput, data_wait: f64) {
        let samples_per_lane = self.job.spec.batch.samples_per_lane as usize;
        let lanes = batch
            .lanes
            .iter()
            .enumerate()
            .map(|(i, &lane)| LaneReport {
                lane,
                loss: output.loss_per_lane[i],
                valid_regions: output.valid_regions[i],
                first_position: batch.first_positions[i],
                sample_digest: sample_digest(&batch.samples[i * samples_per_lane..(i + 1) * samples_per_lane]),
                pixel_digest: batch.pixel_digests.get(i).copied().unwrap_or_default(),
                mask_digest: output.mask_digests.get(i).copied().unwrap_or_default(),
            })
            .collect();
        let timing = |phase: &str, seconds: f64| Timing { phase: phase.to_owned(), seconds };
        let mut timings = vec![timing("data_wait", data_wait)];
        timings.extend(output.timings.iter().map(|(phase, seconds)| timing(phase, *seconds)));
        self.outbox.send(wire::message(Kind::StepReport(StepReport {
            job: self.assignment.job.clone(),
            generation: self.assignment.generation,
            step: ticket.step,
            lanes,
            gradient_norm: output.gradient_norm,
            timings,
        })));
    }

    /// Writes one page of the gallery after `epoch` finished epochs. Pictures are for people: a page that cannot be
    /// made or stored is a notice, never a reason to stop.
    fn picture(&mut self, epoch: u64, k: u32) {
        if self.assignment.rank != 0 || !gallery::due(epoch, self.job.spec.epochs) {
            return;
        }
        let page = match self.page(epoch, k) {
            Ok(page) => page,
            Err(error) => return self.complain(&error),
        };
        let (store, outbox, job) = (self.store.clone(), self.outbox.clone(), self.assignment.job.clone());
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
    }

    fn page(&mut self, epoch: u64, k: u32) -> Result<pages::GalleryPage> {
        if self.probe.is_none() {
            let spec = &self.job.spec;
            let chosen = gallery::choose(self.dataset.samples());
            self.probe = Some(
                r2o_data::probe(&self.dataset, &chosen, spec.data.image_size, &spec.method.prior, spec.seed)
                    .context("cannot read the gallery's images")?,
            );
        }
        let probe = self.probe.as_ref().context("the gallery has no images")?;
        let masks = self
            .engine
            .predict_masks_host(&host_batch(probe, false), k)
            .context("cannot predict the gallery's masks")?;
        gallery::page(&self.dataset, probe, &masks, epoch, self.step, k)
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

fn host_batch(batch: &Batch, audit: bool) -> HostBatch<'_> {
    HostBatch {
        images: batch.images,
        size: batch.size as usize,
        raw: &batch.raw,
        view1: &batch.view1,
        view2: &batch.view2,
        prior: &batch.prior,
        boxes1: &batch.boxes1,
        boxes2: &batch.boxes2,
        flips1: &batch.flips1,
        flips2: &batch.flips2,
        audit,
    }
}
