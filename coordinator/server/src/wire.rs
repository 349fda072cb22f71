//! Between wire messages and the core's types: the one place where both are named.

use r2o_coordinator_core::{
    Assignment, CommittedStep, Event, Held, JobState, LaneReport, Millis, Reason, Session, Start, StepReport, Tensor,
    Ticket, WorkerInfo, WorkerState, WorkerView,
};
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{self as wire, CoordinatorMessage, coordinator_message};
use r2o_storage::history::{LaneRecord, StepRecord};
use r2o_storage::run::EventRecord;

use crate::limits::sentence;

pub(crate) fn job_state(state: JobState) -> wire::JobState {
    match state {
        JobState::Queued => wire::JobState::Queued,
        JobState::Paused => wire::JobState::Paused,
        JobState::Starting => wire::JobState::Starting,
        JobState::Running => wire::JobState::Running,
        JobState::Succeeded => wire::JobState::Succeeded,
        JobState::Failed => wire::JobState::Failed,
        JobState::Cancelled => wire::JobState::Cancelled,
    }
}

pub(crate) fn reason(reason: &Reason, job: &str) -> wire::Reason {
    wire::Reason {
        word: reason.word().to_owned(),
        sentence: reason.to_string(),
        hint: reason.hint(job).unwrap_or_default(),
    }
}

pub(crate) fn message(kind: coordinator_message::Kind) -> CoordinatorMessage {
    CoordinatorMessage { kind: Some(kind) }
}

pub(crate) fn worker_info(hello: wire::Hello) -> WorkerInfo {
    let wire::Hello { worker, incarnation, version, device, address, threads, held: _, protocol: _ } = hello;
    WorkerInfo { name: worker, incarnation, version, device, address, threads }
}

/// What a worker says that it holds.
pub(crate) fn held(hello: &wire::Hello) -> Option<Held> {
    let wire::Held { job, generation, step } = hello.held.clone()?;
    Some(Held { job, generation, step })
}

/// The key of a checkpoint's manifest.
pub(crate) fn manifest_key(step: u64) -> String {
    format!("manifests/{step:012}.json")
}

/// Members that an assignment lists. A list of all that goes to all grows with the square of the fleet: 3 GB for 10,000.
const MEMBERS_LISTED: usize = 256;

pub(crate) fn assignment(a: &Assignment, traceparent: String) -> wire::Assignment {
    let member = |m: &r2o_coordinator_core::Member| wire::Member {
        worker: m.worker.clone(),
        address: m.address.clone(),
        lanes: m.lanes.clone(),
    };
    wire::Assignment {
        job: a.job.clone(),
        generation: a.generation,
        spec: a.spec.to_string(),
        rank: a.rank,
        members: if a.members.len() > MEMBERS_LISTED { Vec::new() } else { a.members.iter().map(member).collect() },
        world: a.members.len() as u32,
        lanes: a.members.get(a.rank as usize).map(|m| m.lanes.clone()).unwrap_or_default(),
        step: a.step,
        manifest: if a.start == Start::Checkpoint { manifest_key(a.step) } else { String::new() },
        peers_since: if let Start::Peers { since } = a.start { since } else { 0 },
        traceparent,
    }
}

pub(crate) fn ticket(t: &Ticket, traceparent: String) -> wire::Ticket {
    wire::Ticket {
        job: t.job.clone(),
        generation: t.generation,
        step: t.step,
        epoch: t.epoch,
        step_in_epoch: t.step_in_epoch,
        k: t.k,
        tau: t.tau,
        learning_rate: t.learning_rate,
        hash_state: t.hash_state,
        traceparent,
    }
}

/// The core's event for a worker's message; `None` for those that do not concern the core.
pub(crate) fn event(session: Session, kind: Kind) -> Option<Event> {
    Some(match kind {
        Kind::Heartbeat(_) => Event::WorkerHeard { session },
        Kind::Ready(r) => Event::WorkerReady { session, generation: r.generation, step: r.step },
        Kind::StepReport(r) => {
            Event::StepReported { session, generation: r.generation, step: r.step, report: report(r) }
        }
        Kind::CheckpointPart(p) => {
            let part = if p.error.is_empty() {
                Ok(p.tensors.into_iter().map(tensor).collect())
            } else {
                Err(sentence(p.error))
            };
            Event::PartUploaded { session, generation: p.generation, step: p.step, part }
        }
        Kind::Draining(d) => Event::WorkerDraining { session, reason: sentence(d.reason) },
        Kind::Prepared(p) => Event::WorkerPrepared { session, job: p.job },
        Kind::Recovered(r) => Event::StepsRecovered {
            session,
            generation: r.generation,
            reports: r.reports.into_iter().map(|r| (r.step, report(r))).collect(),
        },
        Kind::GenerationFailed(f) => {
            Event::GenerationFailed { session, generation: f.generation, reason: sentence(f.reason) }
        }
        Kind::JobFailed(f) => {
            Event::JobFailed { session, generation: f.generation, step: f.step, reason: sentence(f.reason) }
        }
        Kind::Hello(_) | Kind::LogLine(_) | Kind::Notice(_) | Kind::Goodbye(_) => return None,
    })
}

fn report(report: wire::StepReport) -> StepReport {
    let mut lanes: Vec<LaneReport> = report
        .lanes
        .into_iter()
        .map(|l| LaneReport {
            lane: l.lane,
            loss: l.loss,
            valid_regions: l.valid_regions,
            first_position: l.first_position,
            sample_digest: l.sample_digest,
            pixel_digest: l.pixel_digest,
            mask_digest: l.mask_digest,
        })
        .collect();
    lanes.sort_by_key(|l| l.lane);
    StepReport {
        lanes,
        gradient_norm: report.gradient_norm,
        // The history has no word for a time that is no number.
        timings: report.timings.into_iter().filter(|t| t.seconds.is_finite()).map(|t| (t.phase, t.seconds)).collect(),
        tensor_digests: report.tensor_digests,
        tensor_names: report.tensor_names,
        signals: report.signals.into_iter().filter(|s| s.value.is_finite()).map(|s| (s.name, s.value)).collect(),
    }
}

fn tensor(t: wire::TensorObject) -> Tensor {
    Tensor { name: t.name, dtype: t.dtype, shape: t.shape, blake3: t.blake3, bytes: t.bytes }
}

/// A committed step as the history keeps it.
pub(crate) fn step_record(step: CommittedStep) -> StepRecord {
    StepRecord {
        step: step.ticket.step,
        epoch: step.ticket.epoch,
        generation: step.ticket.generation,
        k: step.ticket.k,
        tau: step.ticket.tau,
        learning_rate: step.ticket.learning_rate,
        loss: step.loss,
        gradient_norm: step.gradient_norm,
        valid_regions: step.valid_regions,
        images: step.images,
        seconds: step.seconds,
        timings: step.timings,
        lanes: step
            .lanes
            .into_iter()
            .map(|l| LaneRecord {
                lane: l.lane,
                loss: l.loss,
                valid_regions: l.valid_regions,
                first_position: l.first_position,
                sample_digest: l.sample_digest,
                pixel_digest: l.pixel_digest,
                mask_digest: l.mask_digest,
            })
            .collect(),
    }
}

pub(crate) fn job_event(event: EventRecord) -> wire::Event {
    wire::Event { unix_ms: event.unix_ms, reason: event.reason, message: event.message, warning: event.warning }
}

pub(crate) fn worker(view: &WorkerView) -> wire::Worker {
    let state = match view.state {
        WorkerState::Idle => "idle",
        WorkerState::Joining => "joining",
        WorkerState::Training => "training",
    };
    wire::Worker {
        name: view.info.name.clone(),
        device: view.info.device.clone(),
        address: view.info.address.clone(),
        state: state.to_owned(),
        job: view.job.clone().unwrap_or_default(),
        version: view.info.version.clone(),
        threads: view.info.threads,
        lanes: view.lanes.clone(),
    }
}

pub(crate) fn welcome(lease_ms: Millis) -> CoordinatorMessage {
    let lease_ms = u32::try_from(lease_ms).unwrap_or(u32::MAX);
    // Several heartbeats may be late or lost before the lease ends.
    message(coordinator_message::Kind::Welcome(wire::Welcome { heartbeat_ms: (lease_ms / 5).max(1), lease_ms }))
}
