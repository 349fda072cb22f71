//! Builds what a generation needs: data, engine, state, process group, and the proof that all replicas are equal.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, TryStreamExt, stream};
use r2o_c10d::{GlooOptions, NcclOptions, ProcessGroup, Store as _};
use r2o_data::{Dataset, Loader, LoaderOptions};
use r2o_engine::host::HostTensor;
use r2o_engine::{Engine, EngineOptions};
use r2o_storage::checkpoint::{self, CheckpointError};
use r2o_types::TrainJob;
use r2o_worker_core::{Assignment, Failure};

use super::running::Running;
use super::{Fence, Settings, collective_failure, job_failure};
use crate::session::Outbox;
use crate::store::RendezvousStore;

/// Objects of a checkpoint read at a time.
const CONCURRENT_READS: usize = 8;
/// Steps decoded ahead of the one that trains.
const PREFETCH_STEPS: usize = 3;

/// Forms one generation on this worker.
///
/// # Errors
/// A job failure for bad data, state or configuration; a collective failure when peers cannot be reached.
pub(super) fn form(
    settings: &Settings,
    fence: &Fence,
    assignment: Arc<Assignment>,
    outbox: Outbox,
) -> Result<Running, Failure> {
    let job = TrainJob::parse(&assignment.spec).context("the assignment's job").map_err(job_failure)?;
    let lanes = assignment.members.get(assignment.rank).map(|m| m.lanes.clone()).unwrap_or_default();
    if lanes.is_empty() {
        return Err(Failure::Job(format!(
            "rank {} of generation {} has no lanes",
            assignment.rank, assignment.generation
        )));
    }
    let dataset = open_dataset(settings, &job).map_err(job_failure)?;
    let url = job.spec.checkpoint.url.as_deref().unwrap_or_default();
    let store = r2o_storage::open(url).map_err(job_failure)?;
    let mut engine = Engine::new(EngineOptions {
        job: job.spec.clone(),
        device: settings.device.into(),
        lanes: lanes.clone(),
        threads: Some(i32::try_from(settings.threads).unwrap_or(i32::MAX)),
    })
    .map_err(job_failure)?;
    if let Some(key) = &assignment.manifest {
        restore(settings, &store, key, assignment.step, &mut engine).map_err(job_failure)?;
    }

    let rendezvous = RendezvousStore::new(
        settings.channel.clone(),
        settings.runtime.clone(),
        &assignment.job,
        assignment.generation,
    );
    let group = (assignment.members.len() > 1).then(|| process_group(settings, &assignment, &rendezvous)).transpose();
    let group = group.map_err(collective_failure)?;
    if let Some(group) = &group {
        fence.publish(assignment.generation, group.clone());
        agree_on_state(settings, &rendezvous, &assignment, &engine)?;
    }
    engine.attach(group).map_err(collective_failure)?;

    let loader = Loader::start(LoaderOptions {
        dataset: Arc::clone(&dataset),
        seed: job.spec.seed,
        image_size: job.spec.data.image_size,
        prior: job.spec.method.prior.clone(),
        lanes,
        total_lanes: job.spec.batch.lanes,
        samples_per_lane: job.spec.batch.samples_per_lane,
        window_chunks: job.spec.data.shuffle_window_chunks,
        first_step: assignment.step,
        threads: settings.loader_threads,
        prefetch_steps: PREFETCH_STEPS,
        audit: settings.audit,
    })
    .map_err(job_failure)?;
    Ok(Running::new(settings, assignment, job, dataset, store, engine, loader, outbox))
}

/// NCCL between GPUs, Gloo between CPUs.
fn process_group(
    settings: &Settings,
    assignment: &Assignment,
    rendezvous: &RendezvousStore,
) -> Result<ProcessGroup, r2o_c10d::Error> {
    let (store, rank, world) = (Arc::new(rendezvous.clone()), assignment.rank, assignment.members.len());
    let timeout = settings.collective_timeout;
    match settings.device.cuda_index() {
        Some(device) => ProcessGroup::nccl(store, rank, world, NcclOptions { device, timeout }),
        None => {
            let options = GlooOptions { address: settings.advertise.clone(), timeout };
            ProcessGroup::gloo(store, rank, world, options)
        }
    }
}

fn open_dataset(settings: &Settings, job: &TrainJob) -> Result<Arc<Dataset>> {
    let url = &job.spec.data.url;
    let dataset =
        settings.runtime.block_on(Dataset::open(url)).with_context(|| format!("cannot open the data set {url}"))?;
    Ok(Arc::new(dataset))
}

/// Loads the state of a checkpoint, every tensor checked against its hash.
fn restore(settings: &Settings, store: &r2o_storage::Store, key: &str, step: u64, engine: &mut Engine) -> Result<()> {
    let tensors: Vec<HostTensor> = settings.runtime.block_on(async {
        let manifest = checkpoint::load_manifest(store, step).await?;
        stream::iter(manifest.tensors)
            .map(|entry| async move {
                let bytes = checkpoint::read_object(store, &entry).await?;
                Ok::<_, CheckpointError>(HostTensor {
                    name: entry.name,
                    dtype: entry.dtype,
                    shape: entry.shape,
                    bytes: bytes.to_vec(),
                })
            })
            .buffer_unordered(CONCURRENT_READS)
            .try_collect()
            .await
    })?;
    engine.load(tensors).with_context(|| format!("checkpoint {key} does not fit the job's model"))?;
    tracing::info!(step, "restored from checkpoint {key}");
    Ok(())
}

/// Replicas that start from different weights would train apart without anybody noticing: compare hashes first.
fn agree_on_state(
    settings: &Settings,
    rendezvous: &RendezvousStore,
    assignment: &Assignment,
    engine: &Engine,
) -> Result<(), Failure> {
    let mine = engine.digest().map_err(job_failure)?;
    let key = |rank: usize| format!("state/{rank}");
    let put = rendezvous.set(&key(assignment.rank), &mine.to_le_bytes());
    put.map_err(|reason| collective_failure(anyhow!(reason)))?;
    for (rank, member) in assignment.members.iter().enumerate() {
        let theirs = rendezvous.get(&key(rank), settings.collective_timeout).map_err(|reason| {
            collective_failure(anyhow!(reason).context(format!("waiting for worker {}", member.worker)))
        })?;
        if theirs != mine.to_le_bytes() {
            return Err(Failure::Job(format!(
                "worker {} starts from another state than worker {}: are they of the same build and kind of processor?",
                member.worker, assignment.members[assignment.rank].worker
            )));
        }
    }
    Ok(())
}
