//! Between wire messages and the worker core's events.

use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{self as wire, WorkerMessage, coordinator_message};
use r2o_worker_core::{Assignment, Event, Failure, Member, Ticket};

/// Wraps one kind of message for the stream.
pub(crate) fn message(kind: Kind) -> WorkerMessage {
    WorkerMessage { kind: Some(kind) }
}

/// The event that a coordinator's message stands for; `None` for a message of a newer protocol.
pub(crate) fn event(message: wire::CoordinatorMessage) -> Option<Event> {
    use coordinator_message::Kind as From;
    Some(match message.kind? {
        From::Welcome(_) => Event::Connected,
        From::Assignment(a) => Event::Assigned(assignment(a)),
        From::Ticket(t) => Event::Granted { generation: t.generation, ticket: ticket(&t) },
        From::TakeCheckpoint(c) => Event::CheckpointAsked { generation: c.generation, step: c.step },
        From::Release(r) => Event::Released { generation: r.generation },
        From::Refused(r) => Event::Refused(r.reason),
    })
}

fn assignment(a: wire::Assignment) -> Assignment {
    Assignment {
        job: a.job,
        generation: a.generation,
        spec: a.spec,
        rank: a.rank as usize,
        members: a
            .members
            .into_iter()
            .map(|m| Member { worker: m.worker, address: m.address, lanes: m.lanes })
            .collect(),
        step: a.step,
        manifest: Some(a.manifest).filter(|key| !key.is_empty()),
    }
}

fn ticket(t: &wire::Ticket) -> Ticket {
    Ticket { step: t.step, epoch: t.epoch, k: t.k, tau: t.tau, learning_rate: t.learning_rate }
}

/// The message that reports a failure.
pub(crate) fn failure(job: String, generation: u64, step: u64, failure: Failure) -> WorkerMessage {
    message(match failure {
        Failure::Collective(reason) => Kind::GenerationFailed(wire::GenerationFailed { job, generation, reason }),
        Failure::Job(reason) => Kind::JobFailed(wire::JobFailed { job, generation, step, reason }),
    })
}

/// An event for people.
pub(crate) fn notice(job: &str, reason: &str, text: String) -> WorkerMessage {
    message(Kind::Notice(wire::Notice { job: job.to_owned(), reason: reason.to_owned(), message: text }))
}
