//! Sequences that need bad luck, each of which the simulator (tests/sim) has met.

use super::kit::{Kit, job, submit};
use crate::*;

/// A job whose workers train, with the first tickets granted.
fn training(fleet: &str, workers: u64) -> Kit {
    let mut kit = Kit::new();
    (1..=workers).for_each(|n| kit.join(n, &format!("w{n}")));
    kit.feed(submit(job("a", 4, fleet), 1, Resume::Fresh));
    kit.wait(200);
    (1..=workers).for_each(|n| assert!(kit.work(n)));
    kit
}

#[test]
fn a_generation_that_is_to_end_waits_for_its_reports_and_not_for_the_clock() {
    let mut kit = training("{minWorkers: 2}", 2);
    // The first checkpoint is written slowly: the next falls due meanwhile.
    while kit.core.jobs["a"].active().unwrap().granted < 8 {
        for session in [1, 2] {
            kit.work.get_mut(&session).unwrap().retain(|c| !matches!(c, Command::TakeCheckpoint { .. }));
            kit.work(session);
        }
    }
    kit.work.values_mut().for_each(|queue| queue.retain(|c| !matches!(c, Command::TakeCheckpoint { .. })));
    assert!(kit.core.jobs["a"].saving.overdue);
    kit.feed(Event::WorkerDraining { session: 2, reason: "SIGTERM".into() });
    for session in [1, 2] {
        kit.feed(Event::PartUploaded { session, generation: 1, step: 4, part: Ok(Vec::new()) });
    }
    assert_eq!(kit.view("a").checkpoint, Some(4));
    let deadline = kit.core.next_deadline().unwrap();
    assert!(deadline > kit.now, "a deadline of {deadline} at {} would wake the coordinator for ever", kit.now);
    kit.join(3, "w3");
    kit.run();
    kit.wait(200);
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded, "{}", kit.view("a").reason);
}

#[test]
fn a_worker_that_nobody_may_use_does_not_count_as_free() {
    let mut kit = Kit::new();
    kit.join(1, "w1");
    kit.join(2, "w2");
    kit.feed(Event::WorkerDraining { session: 2, reason: "SIGTERM".into() });
    kit.feed(submit(job("a", 1, "{minWorkers: 2}"), 1, Resume::Fresh));
    assert_eq!(kit.view("a").reason, Reason::TooFewWorkers { needed: 2, free: 1, busy: 0 });
}
