//! Random events in random order: invariants hold after each, and once faults stop every job ends.

use proptest::prelude::*;

use super::kit::{Kit, job, submit};
use crate::*;

#[derive(Debug, Clone)]
enum Move {
    Submit(u8, u8, u8),
    Join(u8),
    Leave(u8, bool),
    Work(u8),
    Wait(u16),
    Cancel(u8),
    Request(u8),
    FailGeneration(u8),
    FailJob(u8),
    Manifests(bool),
    Stale(u8),
    Drain(u8),
    Pause(u8),
    Resume(u8),
    Requeue(u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => (0_u8..3, 1_u8..4, 0_u8..2).prop_map(|(name, min, priority)| Move::Submit(name, min, priority)),
        3 => (0_u8..5).prop_map(Move::Join),
        1 => (0_u8..5, any::<bool>()).prop_map(|(worker, goodbye)| Move::Leave(worker, goodbye)),
        20 => (0_u8..5).prop_map(Move::Work),
        3 => (0_u16..12_000).prop_map(Move::Wait),
        1 => (0_u8..3).prop_map(Move::Cancel),
        2 => (0_u8..3).prop_map(Move::Request),
        1 => (0_u8..5).prop_map(Move::FailGeneration),
        1 => (0_u8..5).prop_map(Move::FailJob),
        1 => any::<bool>().prop_map(Move::Manifests),
        1 => (0_u8..5).prop_map(Move::Stale),
        1 => (0_u8..5).prop_map(Move::Drain),
        1 => (0_u8..3).prop_map(Move::Pause),
        1 => (0_u8..3).prop_map(Move::Resume),
        1 => (0_u8..3).prop_map(Move::Requeue),
    ];
    proptest::collection::vec(one, 1..150)
}

/// The newest stream of a worker's name.
fn session(kit: &Kit, worker: u8) -> Option<Session> {
    let name = format!("w{worker}");
    kit.core.workers.iter().find(|(_, w)| w.info.name == name).map(|(s, _)| *s)
}

fn apply(kit: &mut Kit, step: Move, next: &mut u64) {
    *next += 1;
    let fresh = *next;
    let generation = |kit: &Kit, session: Session| {
        let name = kit.core.workers.get(&session).and_then(|w| w.job.clone());
        name.and_then(|name| kit.core.job(&name)).map_or(0, |view| view.generation)
    };
    match step {
        Move::Submit(name, min, priority) => {
            let min = min.min(2);
            let mut job = job(&format!("j{name}"), 2, &format!("{{minWorkers: {min}}}"));
            job.spec.priority = i32::from(priority);
            kit.feed(submit(job, fresh, Resume::Fresh));
        }
        Move::Pause(name) => kit.feed(Event::PauseRequested { job: format!("j{name}"), reason: String::new() }),
        Move::Resume(name) => kit.feed(Event::ResumeRequested { job: format!("j{name}") }),
        Move::Requeue(name) => kit.feed(Event::RequeueRequested { job: format!("j{name}") }),
        Move::Join(worker) => kit.join(fresh, &format!("w{worker}")),
        Move::Wait(ms) => {
            kit.now += Millis::from(ms);
            kit.feed(Event::Tick);
        }
        Move::Cancel(name) => kit.feed(Event::CancelRequested { job: format!("j{name}"), reason: String::new() }),
        Move::Request(name) => kit.feed(Event::CheckpointRequested { job: format!("j{name}"), request: fresh }),
        Move::Manifests(fail) => kit.fail_manifests = fail,
        Move::Leave(worker, goodbye) => {
            if let Some(session) = session(kit, worker) {
                kit.work.remove(&session);
                kit.states.remove(&session);
                kit.feed(Event::WorkerLeft { session, reason: "gone".into(), goodbye });
            }
        }
        Move::Drain(worker) => {
            if let Some(session) = session(kit, worker) {
                kit.feed(Event::WorkerDraining { session, reason: "SIGTERM".into() });
            }
        }
        Move::Work(worker) => {
            if let Some(session) = session(kit, worker) {
                kit.work(session);
            }
        }
        Move::FailGeneration(worker) => {
            if let Some(session) = session(kit, worker) {
                let generation = generation(kit, session);
                kit.feed(Event::GenerationFailed { session, generation, reason: "reset".into() });
            }
        }
        Move::FailJob(worker) => {
            if let Some(session) = session(kit, worker) {
                let generation = generation(kit, session);
                kit.feed(Event::JobFailed { session, generation, step: 0, reason: "NaN".into() });
            }
        }
        Move::Stale(worker) => {
            if let Some(session) = session(kit, worker) {
                let generation = generation(kit, session).wrapping_sub(1);
                kit.feed(Event::WorkerReady { session, generation, step: 0 });
                kit.feed(Event::StepReported { session, generation, step: 0, report: StepReport::default() });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_everything_ends_once_faults_stop(moves in moves()) {
        let mut kit = Kit::new();
        let mut next = 100;
        for step in moves {
            apply(&mut kit, step, &mut next);
        }
        kit.fail_manifests = false;
        kit.join(50, "x0");
        kit.join(51, "x1");
        for name in 0..3 {
            kit.feed(Event::ResumeRequested { job: format!("j{name}") });
        }
        for _ in 0..200 {
            kit.run();
            kit.wait(1_000);
        }
        for name in kit.core.job_names().map(str::to_owned).collect::<Vec<_>>() {
            prop_assert!(kit.view(&name).state.has_ended(), "{name}: {:?}", kit.view(&name).reason);
        }
        let answered = kit.answers();
        let requests: std::collections::BTreeSet<u64> = answered.iter().map(|(r, _)| *r).collect();
        prop_assert_eq!(requests.len(), answered.len(), "a request is answered once");
        let opened: Vec<u64> = kit.log.iter().filter_map(|c| match c {
            Command::RecordGeneration { generation, .. } => Some(*generation),
            _ => None,
        }).collect();
        prop_assert!(opened.windows(2).all(|pair| pair[0] < pair[1]), "numbers are never reused: {:?}", opened);
    }

    #[test]
    fn what_is_not_looked_at_would_have_changed_nothing(moves in moves()) {
        let run = |eager: bool| {
            let mut kit = Kit::new();
            kit.core.config.eager = eager;
            let mut next = 100;
            for step in moves.clone() {
                apply(&mut kit, step, &mut next);
            }
            kit.log
        };
        prop_assert_eq!(run(true), run(false));
    }

    #[test]
    fn the_same_events_give_the_same_commands(moves in moves()) {
        let run = || {
            let mut kit = Kit::new();
            let mut next = 100;
            for step in moves.clone() {
                apply(&mut kit, step, &mut next);
            }
            kit.log
        };
        prop_assert_eq!(run(), run());
    }
}
