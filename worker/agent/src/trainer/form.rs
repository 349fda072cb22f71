//! Forms a generation: group, state, and the proof that all replicas are equal.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, TryStreamExt, stream};
use r2o_c10d::{GlooOptions, NcclOptions, ProcessGroup};
use r2o_data::{Loader, LoaderOptions, Memory};
use r2o_engine::host::HostTensor;
use r2o_proto::v1::Recovered;
use r2o_proto::v1::worker_message::Kind;
use r2o_storage::checkpoint::{self, CheckpointError};
use r2o_worker_core::{Assignment, Failure, Start};

use super::base::Base;
use super::memory::DeviceMemory;
use super::traced::Traced;
use super::{Fence, Settings, collective_failure, failure_of};
use crate::session::Outbox;
use crate::store::RendezvousStore;
use crate::wire;

/// Objects of a checkpoint read at a time.
const CONCURRENT_READS: usize = 8;
/// Steps decoded ahead of the one that trains.
const PREFETCH_STEPS: usize = 3;
/// A member's word for "I hold nothing".
const NOTHING: u64 = u64::MAX;

/// Forms one generation on this worker; afterwards `base` holds the state that all members hold.
///
/// # Errors
/// A job failure for bad data, state or configuration; a collective failure when peers cannot be reached.
pub(super) fn form(
    settings: &Settings,
    fence: &Fence,
    base: &mut Base,
    assignment: &Assignment,
    outbox: &Outbox,
    traced: &mut Traced,
) -> Result<Loader, Failure> {
    let generation = assignment.generation;
    let lanes = assignment.members.get(assignment.rank).map(|m| m.lanes.clone()).unwrap_or_default();
    if lanes.is_empty() {
        return Err(Failure::Job(format!("rank {} of generation {generation} has no lanes", assignment.rank)));
    }
    base.engine.take_lanes(lanes.clone());
    let store = RendezvousStore::new(settings.channel.clone(), settings.runtime.clone(), &assignment.job, generation);
    traced.part("rendezvous", || {
        let group = (assignment.members.len() > 1).then(|| process_group(settings, assignment, store)).transpose();
        let group = group.map_err(collective_failure)?;
        if let Some(group) = &group {
            fence.publish(generation, group.clone());
        }
        base.engine.attach(group).map_err(collective_failure)
    })?;
    traced.part("state", || state(settings, base, assignment, outbox))?;
    base.since = Some(generation);
    traced.part("loader", || start_loader(settings, base, lanes)).map_err(failure_of)
}

/// Takes the state from where the assignment says.
fn state(settings: &Settings, base: &mut Base, assignment: &Assignment, outbox: &Outbox) -> Result<(), Failure> {
    match &assignment.start {
        Start::Peers { since } => take_over(base, assignment, *since, outbox),
        Start::Checkpoint { manifest } => {
            base.since = None;
            restore(settings, base, manifest, assignment.step).map_err(failure_of)?;
            settle(base, assignment)
        }
        Start::Seed => {
            base.since = None;
            base.engine.reset().map_err(failure_of)?;
            settle(base, assignment)
        }
    }
}

fn start_loader(settings: &Settings, base: &Base, lanes: Vec<u32>) -> Result<Loader> {
    let spec = &base.job.spec;
    Ok(Loader::start(LoaderOptions {
        dataset: Arc::clone(&base.dataset),
        seed: spec.seed,
        image_size: spec.data.image_size,
        prior: spec.method.prior.clone(),
        lanes,
        total_lanes: spec.batch.lanes,
        samples_per_lane: spec.batch.samples_per_lane,
        window_chunks: spec.data.shuffle_window_chunks,
        first_step: base.step,
        threads: settings.loader_threads,
        prefetch_steps: PREFETCH_STEPS,
        audit: settings.audit,
        dtype: spec.pixel_dtype(),
        memory: settings.device.cuda_index().map(|_| Arc::new(DeviceMemory) as Arc<dyn Memory>),
    })?)
}

/// NCCL between GPUs, Gloo between CPUs.
fn process_group(
    settings: &Settings,
    assignment: &Assignment,
    store: RendezvousStore,
) -> Result<ProcessGroup, r2o_c10d::Error> {
    let (store, rank, world) = (Arc::new(store), assignment.rank, assignment.members.len());
    let timeout = settings.collective_timeout;
    match settings.device.cuda_index() {
        Some(device) => ProcessGroup::nccl(store, rank, world, NcclOptions { device, timeout }),
        None => {
            let options = GlooOptions { address: settings.advertise.clone(), timeout };
            ProcessGroup::gloo(store, rank, world, options)
        }
    }
}

/// Goes on with the state of the member that holds the most steps: whoever holds less receives it. A step that one member
/// has applied counts, because all members computed it.
fn take_over(base: &mut Base, assignment: &Assignment, since: u64, outbox: &Outbox) -> Result<(), Failure> {
    let mine = base.holds(since);
    let all = base.engine.gather(mine.unwrap_or(NOTHING)).map_err(collective_failure)?;
    let Some(newest) = all.iter().copied().filter(|step| *step != NOTHING).max() else {
        return Err(collective_failure(anyhow!("none of the members holds the state that they were to go on with")));
    };
    let source = all.iter().position(|step| *step == newest).unwrap_or_default();
    // Everybody says what it knows: who joined a moment ago knows nothing of the steps before.
    let reports: Vec<_> =
        base.reports.iter().filter(|r| mine.is_some() && r.step >= assignment.step).cloned().collect();
    if !reports.is_empty() {
        let (job, generation) = (assignment.job.clone(), assignment.generation);
        outbox.send(wire::message(Kind::Recovered(Recovered { job, generation, reports })));
    }
    if all.iter().any(|step| *step != newest) {
        if mine != Some(newest) {
            // Should the way break off, what is here is neither the one nor the other.
            base.since = None;
            base.reports.clear();
        }
        base.engine.share_state(source).map_err(collective_failure)?;
        base.step = newest;
        same_state(base, assignment)?;
        tracing::info!(step = newest, source, behind = ?mine, "received the state from a peer");
    }
    Ok(())
}

/// A state that every member made for itself.
fn settle(base: &mut Base, assignment: &Assignment) -> Result<(), Failure> {
    base.reports.clear();
    base.step = assignment.step;
    same_state(base, assignment)
}

/// Loads the state of a checkpoint, every tensor checked against its hash.
fn restore(settings: &Settings, base: &mut Base, key: &str, step: u64) -> Result<()> {
    let store = &base.store;
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
    base.engine.load(tensors).with_context(|| format!("checkpoint {key} does not fit the job's model"))?;
    tracing::info!(step, "restored from checkpoint {key}");
    Ok(())
}

/// Replicas that start from different weights would train apart without anybody noticing: compare hashes first.
fn same_state(base: &Base, assignment: &Assignment) -> Result<(), Failure> {
    if assignment.members.len() == 1 {
        return Ok(());
    }
    let mine = base.engine.digest().map_err(failure_of)?;
    let all = base.engine.gather(mine).map_err(collective_failure)?;
    match all.iter().position(|theirs| *theirs != mine) {
        None => Ok(()),
        Some(rank) => Err(Failure::Job(format!(
            "worker {} starts from another state than worker {}: are they of the same build and kind of processor?",
            assignment.members[rank].worker, assignment.members[assignment.rank].worker
        ))),
    }
}
