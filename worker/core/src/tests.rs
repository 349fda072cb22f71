//! The lifecycle as a table of events and commands, and random walks over it.

use proptest::prelude::*;
use r2o_types::TraceContext;

use crate::{Assignment, Command, Core, Event, ExitReason, Failure, Held, Member, Phase, Start, Ticket};

fn assignment(generation: u64) -> Assignment {
    let member = |name: &str, lanes: &[u32]| Member {
        worker: name.to_owned(),
        address: "127.0.0.1".to_owned(),
        lanes: lanes.to_vec(),
    };
    Assignment {
        job: "demo".to_owned(),
        generation,
        spec: "{}".to_owned(),
        rank: 0,
        members: vec![member("a", &[0, 1]), member("b", &[2])],
        step: 0,
        start: Start::Seed,
        trace: None,
    }
}

fn ticket(step: u64) -> Ticket {
    Ticket { step, epoch: 0, k: 4, tau: 0.99, learning_rate: 0.1, hash_state: false, trace: None }
}

fn released(generation: u64, keep: bool) -> Event {
    Event::Released { job: "demo".to_owned(), generation, keep }
}

fn drain() -> Event {
    Event::Drain { reason: "SIGTERM".to_owned() }
}

fn trained() -> Core {
    let mut core = Core::new();
    core.handle(Event::Connected);
    core.handle(Event::Assigned(assignment(1)));
    core.handle(Event::Formed { generation: 1, step: 0 });
    core
}

#[test]
fn forms_then_computes_in_order() {
    let mut core = Core::new();
    assert_eq!(core.phase(), Phase::Disconnected);
    assert!(core.handle(Event::Connected).is_empty());
    assert_eq!(core.handle(Event::Assigned(assignment(1))), [Command::Form(assignment(1))]);
    assert!(core.handle(Event::Granted { generation: 1, ticket: ticket(0) }).is_empty(), "not before the group stands");
    assert_eq!(
        core.handle(Event::Formed { generation: 1, step: 0 }),
        [
            Command::SendReady { job: "demo".to_owned(), generation: 1, step: 0 },
            Command::Compute { generation: 1, ticket: ticket(0) },
        ]
    );
    let trace = Some(TraceContext { trace_id: 1, span_id: 2 });
    core.handle(Event::CheckpointAsked { generation: 1, step: 1, trace });
    core.handle(Event::Granted { generation: 1, ticket: ticket(1) });
    assert_eq!(core.handle(Event::WorkDone { generation: 1 }), [Command::CopyOut { generation: 1, step: 1, trace }]);
    assert_eq!(core.handle(Event::WorkDone { generation: 1 }), [Command::Compute { generation: 1, ticket: ticket(1) }]);
}

#[test]
fn another_generation_changes_nothing() {
    let mut core = trained();
    assert!(core.handle(Event::Granted { generation: 9, ticket: ticket(0) }).is_empty());
    assert!(core.handle(released(0, true)).is_empty());
    assert!(core.handle(Event::Assigned(assignment(1))).is_empty(), "the same generation is not formed twice");
    assert_eq!(core.phase(), Phase::Training);
}

#[test]
fn a_newer_generation_aborts_the_step_in_flight() {
    let mut core = trained();
    core.handle(Event::Granted { generation: 1, ticket: ticket(0) });
    assert_eq!(
        core.handle(Event::Assigned(assignment(2))),
        [Command::Abort { generation: 1 }, Command::Park { generation: 1 }, Command::Form(assignment(2)),]
    );
    assert!(core.handle(Event::WorkDone { generation: 1 }).is_empty(), "the aborted step leaves no trace");
}

#[test]
fn a_skipped_step_is_refused() {
    let mut core = trained();
    let commands = core.handle(Event::Granted { generation: 1, ticket: ticket(3) });
    assert!(matches!(
        commands[..],
        [Command::Abort { .. }, Command::SendFailure { failure: Failure::Collective(_), .. }]
    ));
    assert_eq!(core.phase(), Phase::Failed);
}

#[test]
fn drain_goes_on_until_it_is_released_and_a_second_one_leaves_at_once() {
    let mut core = trained();
    core.handle(Event::Granted { generation: 1, ticket: ticket(0) });
    assert_eq!(core.handle(drain()), [Command::SendDraining { reason: "SIGTERM".to_owned() }]);
    assert!(core.handle(Event::WorkDone { generation: 1 }).is_empty(), "the coordinator hands over");
    let commands = core.handle(released(1, true));
    assert_eq!(commands, [Command::Park { generation: 1 }, Command::Exit(ExitReason::Drained)]);

    let mut core = trained();
    core.handle(Event::Granted { generation: 1, ticket: ticket(0) });
    core.handle(drain());
    assert_eq!(core.handle(drain()), [Command::Exit(ExitReason::Forced)]);

    let mut core = Core::new();
    core.handle(Event::Connected);
    assert_eq!(core.handle(drain()), [Command::Exit(ExitReason::Drained)], "nothing to hand over");
}

#[test]
fn drain_without_a_coordinator_finishes_the_step_in_flight() {
    let mut core = trained();
    core.handle(Event::Granted { generation: 1, ticket: ticket(0) });
    core.handle(drain());
    assert!(core.handle(Event::Disconnected).is_empty());
    let commands = core.handle(Event::WorkDone { generation: 1 });
    assert_eq!(commands, [Command::Park { generation: 1 }, Command::Exit(ExitReason::Drained)]);
}

#[test]
fn a_broken_stream_ends_nothing_that_was_granted() {
    let mut core = trained();
    core.handle(Event::Granted { generation: 1, ticket: ticket(0) });
    core.handle(Event::Granted { generation: 1, ticket: ticket(1) });
    assert_eq!(core.handle(Event::Disconnected), [Command::Reconnect]);
    let next = Command::Compute { generation: 1, ticket: ticket(1) };
    assert_eq!(core.handle(Event::WorkDone { generation: 1 }), [next]);
    assert!(core.handle(Event::WorkDone { generation: 1 }).is_empty());
    assert_eq!(core.held(), Some(&Held { job: "demo".to_owned(), generation: 1, step: 2 }));
    assert!(core.handle(Event::Connected).is_empty());
    let next = Assignment { start: Start::Peers { since: 1 }, ..assignment(2) };
    let commands = core.handle(Event::Assigned(next.clone()));
    assert_eq!(commands, [Command::Park { generation: 1 }, Command::Form(next)]);
}

#[test]
fn what_a_failed_generation_leaves_is_kept_until_the_job_ends() {
    let mut core = trained();
    core.handle(Event::Granted { generation: 1, ticket: ticket(0) });
    let failure = Failure::Collective("reset".to_owned());
    core.handle(Event::WorkFailed { generation: 1, step: 0, failure });
    assert_eq!(core.handle(released(1, true)), [Command::Park { generation: 1 }]);
    assert_eq!(core.held().map(|held| held.step), Some(0));
    assert_eq!(core.handle(released(1, false)), [Command::Discard { generation: 1 }]);
    assert_eq!(core.held(), None);
}

#[test]
fn a_free_worker_prepares_and_one_at_work_does_not() {
    let asked = || Event::PrepareAsked { job: "demo".to_owned(), spec: "{}".to_owned() };
    let mut core = Core::new();
    core.handle(Event::Connected);
    let prepare = Command::Prepare { job: "demo".to_owned(), spec: "{}".to_owned() };
    assert_eq!(core.handle(asked()), [prepare]);
    let said = core.handle(Event::Prepared { job: "demo".to_owned() });
    assert_eq!(said, [Command::SendPrepared { job: "demo".to_owned() }]);
    assert!(trained().handle(asked()).is_empty());
}

fn event() -> impl Strategy<Value = Event> {
    let generation = 0..4_u64;
    prop_oneof![
        Just(Event::Connected),
        Just(Event::Disconnected),
        generation.clone().prop_map(|g| Event::Assigned(assignment(g))),
        (generation.clone(), 0..4_u64).prop_map(|(generation, s)| Event::Granted { generation, ticket: ticket(s) }),
        (generation.clone(), 0..4_u64).prop_map(|(generation, step)| Event::CheckpointAsked {
            generation,
            step,
            trace: None
        }),
        (generation.clone(), any::<bool>()).prop_map(|(generation, keep)| released(generation, keep)),
        Just(Event::PrepareAsked { job: "demo".to_owned(), spec: "{}".to_owned() }),
        Just(Event::Prepared { job: "demo".to_owned() }),
        generation.clone().prop_map(|generation| Event::Formed { generation, step: 0 }),
        generation.clone().prop_map(|generation| Event::WorkDone { generation }),
        generation.prop_map(|generation| Event::WorkFailed {
            generation,
            step: 0,
            failure: Failure::Collective("reset".to_owned()),
        }),
        Just(drain()),
    ]
}

proptest! {
    #[test]
    fn any_walk_keeps_the_invariants(events in proptest::collection::vec(event(), 0..60)) {
        let mut core = Core::new();
        let mut in_flight: Option<u64> = None;
        for event in events {
            if let Event::WorkDone { generation } | Event::WorkFailed { generation, .. } = &event
                && in_flight == Some(*generation)
            {
                in_flight = None;
            }
            for command in core.handle(event.clone()) {
                match command {
                    Command::Compute { generation, .. } | Command::CopyOut { generation, .. } => {
                        prop_assert!(in_flight.is_none(), "one piece of work at a time");
                        in_flight = Some(generation);
                    }
                    Command::Discard { .. } | Command::Park { .. } => in_flight = None,
                    _ => {}
                }
            }
            prop_assert_eq!(core.check_invariants(), Ok(()));
        }
    }
}

#[test]
fn a_worker_that_prepares_for_another_job_holds_nothing_of_the_first() {
    let mut core = trained();
    core.handle(released(1, true));
    assert!(core.held().is_some());
    core.handle(Event::PrepareAsked { job: "other".to_owned(), spec: String::new() });
    assert_eq!(core.held(), None);
}
