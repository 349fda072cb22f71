//! Between wire messages and the worker core's events.

use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{self as wire, WorkerMessage, coordinator_message};
use r2o_worker_core::{Assignment, Event, Failure, Held, Member, Start, Ticket};

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
        From::TakeCheckpoint(c) => {
            Event::CheckpointAsked { generation: c.generation, step: c.step, trace: c.traceparent.parse().ok() }
        }
        From::Release(r) => Event::Released { job: r.job, generation: r.generation, keep: r.keep },
        From::Prepare(p) => Event::PrepareAsked { job: p.job, spec: p.spec },
        From::Refused(r) => Event::Refused(r.reason),
    })
}

fn assignment(a: wire::Assignment) -> Assignment {
    Assignment {
        job: a.job,
        generation: a.generation,
        spec: a.spec,
        rank: a.rank as usize,
        members: members(a.members, a.world as usize, a.rank as usize, a.lanes),
        step: a.step,
        trace: a.traceparent.parse().ok(),
        start: match a.peers_since {
            0 if a.manifest.is_empty() => Start::Seed,
            0 => Start::Checkpoint { manifest: a.manifest },
            since => Start::Peers { since },
        },
    }
}

/// All members in rank order. Those of a large fleet are not listed: they are known by their ranks, and only this worker's
/// own lanes are.
fn members(listed: Vec<wire::Member>, world: usize, rank: usize, lanes: Vec<u32>) -> Vec<Member> {
    if !listed.is_empty() {
        return listed.into_iter().map(|m| Member { worker: m.worker, address: m.address, lanes: m.lanes }).collect();
    }
    let by_rank = |r: usize| Member {
        worker: format!("of rank {r}"),
        address: String::new(),
        lanes: if r == rank { lanes.clone() } else { Vec::new() },
    };
    (0..world).map(by_rank).collect()
}

fn ticket(t: &wire::Ticket) -> Ticket {
    Ticket {
        step: t.step,
        epoch: t.epoch,
        k: t.k,
        tau: t.tau,
        learning_rate: t.learning_rate,
        hash_state: t.hash_state,
        trace: t.traceparent.parse().ok(),
    }
}

/// What a hello says of the state that this worker keeps.
pub(crate) fn held(held: &Held) -> wire::Held {
    wire::Held { job: held.job.clone(), generation: held.generation, step: held.step }
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
