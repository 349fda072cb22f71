//! What outlives generations: a job's data set, stores, engine, and the state in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use r2o_data::Dataset;
use r2o_engine::{Engine, EngineOptions};
use r2o_proto::v1::StepReport;
use r2o_storage::Store;
use r2o_telemetry::chain;
use r2o_types::{TrainJob, steps_per_epoch};

use super::Settings;
use crate::gallery::Probe;

/// Steps whose reports are kept, for a coordinator that did not hear of them.
const REPORTS_KEPT: usize = 1024;

/// A job on this worker.
pub(super) struct Base {
    pub(super) name: String,
    /// As the coordinator sent it.
    pub(super) spec: String,
    pub(super) job: TrainJob,
    pub(super) dataset: Arc<Dataset>,
    pub(super) store: Store,
    pub(super) engine: Engine,
    pub(super) steps_per_epoch: u64,
    /// The last generation in which the state was complete; none: the engine holds nothing of worth.
    pub(super) since: Option<u64>,
    /// Committed steps of the state.
    pub(super) step: u64,
    /// The last steps that this worker applied, each with all lanes.
    pub(super) reports: VecDeque<StepReport>,
    /// The gallery's images, once they were needed.
    pub(super) probe: Option<Probe>,
}

impl Base {
    /// Opens the data and builds the engine; its state is to come from somewhere.
    ///
    /// # Errors
    /// When the spec cannot be read, or data, store or engine cannot be had.
    pub(super) fn build(settings: &Settings, name: &str, spec: &str) -> Result<Self> {
        let job = TrainJob::parse(spec).context("the assignment's job")?;
        let url = &job.spec.data.url;
        let opened = settings.runtime.block_on(Dataset::open_with(url, settings.stream.clone()));
        let dataset = opened.with_context(|| format!("cannot open the data set {url}"))?;
        let store = r2o_storage::open(job.spec.checkpoint.url.as_deref().unwrap_or_default())?;
        let engine = Engine::blank(EngineOptions {
            job: job.spec.clone(),
            device: settings.device.into(),
            lanes: Vec::new(),
            threads: Some(i32::try_from(settings.threads).unwrap_or(i32::MAX)),
        })?;
        Ok(Self {
            name: name.to_owned(),
            spec: spec.to_owned(),
            steps_per_epoch: steps_per_epoch(dataset.samples(), job.spec.batch.lanes, job.spec.batch.samples_per_lane),
            dataset: Arc::new(dataset),
            store,
            engine,
            job,
            since: None,
            step: 0,
            reports: VecDeque::new(),
            probe: None,
        })
    }

    /// Makes the first step as quick as those after it, unless there is a state to lose. It is of use to no one but those who
    /// would wait for this worker, and so no error.
    pub(super) fn warm_up(&mut self) {
        let start = Instant::now();
        if self.since.is_none() {
            match self.engine.warm_up() {
                Ok(()) => tracing::info!(job = self.name, seconds = start.elapsed().as_secs_f64(), "warmed up"),
                Err(error) => tracing::warn!(job = self.name, "cannot warm up: {}", chain(&error)),
            }
        }
    }

    /// Whether this is the same job in the same words.
    pub(super) fn serves(&self, name: &str, spec: &str) -> bool {
        self.name == name && self.spec == spec
    }

    /// The steps of a state that is of the course that began with this generation.
    pub(super) fn holds(&self, since: u64) -> Option<u64> {
        self.since.filter(|at| *at >= since).map(|_| self.step)
    }

    /// Remembers a step that was just applied.
    pub(super) fn applied(&mut self, report: StepReport) {
        self.step = report.step + 1;
        self.reports.push_back(report);
        if self.reports.len() > REPORTS_KEPT {
            self.reports.pop_front();
        }
    }
}
