//! What the end-to-end tests share: the demo job in small variants, and what a run left in storage.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use r2o_storage::history::{self, StepRecord};
use r2o_storage::ledger::proof::{Plan, prove};
use r2o_storage::shard::read_set;
use r2o_storage::{Store, checkpoint, ledger};
use r2o_test_kit::{Fleet, WorkerOptions, packed_photos, repository};
use r2o_types::TrainJob;

/// Long enough for a run on two busy cores; a run that takes longer hangs.
pub const RUN: Duration = Duration::from_secs(420);

/// The demo job on the packed photographs, with its checkpoints under `folder`.
///
/// # Errors
/// When the recipe does not parse or the photographs cannot be packed.
pub fn demo_job(name: &str, folder: &Path, epochs: u64) -> Result<TrainJob> {
    let path = repository().join("deploy/jobs/demo.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut job = TrainJob::parse(&text).context("deploy/jobs/demo.yaml")?;
    name.clone_into(&mut job.metadata.name);
    job.spec.epochs = epochs;
    // What the tests ask does not depend on the size, and the smaller one takes half the time.
    job.spec.data.image_size = 64;
    job.spec.data.url = packed_photos()?.display().to_string();
    job.spec.checkpoint.url = Some(folder.join(name).display().to_string());
    Ok(job)
}

/// What a run left behind.
pub struct Run {
    /// One record per committed step, in order.
    pub steps: Vec<StepRecord>,
    /// BLAKE3 of every tensor of the newest checkpoint, by name.
    pub state: BTreeMap<String, String>,
    /// Committed steps of the newest checkpoint.
    pub checkpoint_step: u64,
}

impl Run {
    /// Reads it from the job's checkpoint URL.
    ///
    /// # Errors
    /// When history or checkpoint cannot be read.
    pub async fn read(job: &TrainJob) -> Result<Self> {
        Self::read_from(&store(job)?).await
    }

    /// [`Run::read`] from an open store.
    ///
    /// # Errors
    /// When history or checkpoint cannot be read.
    pub async fn read_from(store: &Store) -> Result<Self> {
        let steps = history::read_all(store).await?;
        let newest = checkpoint::list(store).await?.into_iter().map(|m| m.step).max().context("no checkpoint")?;
        let manifest = checkpoint::load_manifest(store, newest).await?;
        let state = manifest.tensors.into_iter().map(|t| (t.name, t.blake3.to_string())).collect();
        Ok(Self { steps, state, checkpoint_step: newest })
    }

    /// (step, lane) to (first position, digest of the sample ids): what was trained on.
    pub fn ledger(&self) -> BTreeMap<(u64, u32), (u64, u64)> {
        self.lanes(|lane| (lane.first_position, lane.sample_digest))
    }

    /// (step, lane) to the digest of the augmented pixels.
    pub fn pixels(&self) -> BTreeMap<(u64, u32), u64> {
        self.lanes(|lane| lane.pixel_digest)
    }

    /// Lane to the digest of the masks of one step.
    pub fn masks_of_step(&self, step: u64) -> BTreeMap<u32, u64> {
        let record = self.steps.iter().find(|r| r.step == step);
        record.into_iter().flat_map(|r| r.lanes.iter().map(|lane| (lane.lane, lane.mask_digest))).collect()
    }

    /// Loss of each step.
    pub fn losses(&self) -> Vec<f64> {
        self.steps.iter().map(|r| r.loss).collect()
    }

    fn lanes<T>(&self, pick: impl Fn(&history::LaneRecord) -> T) -> BTreeMap<(u64, u32), T> {
        let pick = &pick;
        self.steps.iter().flat_map(|r| r.lanes.iter().map(move |lane| ((r.step, lane.lane), pick(lane)))).collect()
    }
}

/// Proves from a run's store alone that each sample was trained on as the plan says, once: all steps of `job`.
///
/// # Errors
/// Names the first step at which the ledger does not show it.
pub async fn prove_ledger(job: &TrainJob, store: &Store) -> Result<()> {
    let set = read_set(&r2o_storage::open(&job.spec.data.url)?).await?;
    let plan = Plan::of(job, set.chunks());
    let steps = plan.steps_per_epoch() * job.spec.epochs;
    let kept = ledger::kept(ledger::read_all(store).await?);
    prove(&plan, &kept, steps).map_err(|flaw| anyhow!("the ledger does not show exactly once: {flaw}"))?;
    Ok(())
}

/// The store of a job's checkpoints.
///
/// # Errors
/// When the job has no checkpoint URL or it cannot be opened.
pub fn store(job: &TrainJob) -> Result<Store> {
    let url = job.spec.checkpoint.url.as_deref().context("the job has no checkpoint URL")?;
    Ok(r2o_storage::open(url)?)
}

/// Runs a job from its start to its end on `workers` workers and reads what it left.
///
/// # Errors
/// When the job does not succeed in time.
pub async fn train(job: &TrainJob, workers: u32) -> Result<Run> {
    let mut job = job.clone();
    job.spec.fleet.min_workers = workers;
    job.spec.fleet.max_workers = workers;
    let options = WorkerOptions { threads: 1, audit: true, more: Vec::new() };
    let mut fleet = Fleet::start(workers as usize, options).await?;
    fleet.submit(&job).await?;
    fleet.wait_success(&job.metadata.name, RUN).await?;
    Run::read(&job).await
}
