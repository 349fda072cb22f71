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

fn notices(kit: &Kit, reason: &str) -> usize {
    kit.log.iter().filter(|c| matches!(c, Command::Announce { notice, .. } if notice.reason == reason)).count()
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

#[test]
fn workers_lost_one_after_another_while_a_generation_forms_cost_no_committed_step() {
    let mut kit = training("{minWorkers: 1, maxWorkers: 2}", 2);
    (0..3).for_each(|_| assert!(kit.work(1) & kit.work(2)));
    let committed = kit.view("a").committed;
    for lost in [2, 3, 4, 5] {
        kit.feed(Event::WorkerLeft { session: lost, reason: "killed".into(), goodbye: false });
        kit.join(lost + 1, &format!("w{}", lost + 1));
        // The one that is left has begun to form alone; the other one joins it, and is lost before both are ready.
        kit.feed(Event::WorkerHeard { session: 1 });
        kit.wait(1_000);
    }
    kit.run();
    kit.wait(1_000);
    kit.run();
    assert!(committed > 0 && notices(&kit, "StateGivenUp") == 0);
    let again =
        kit.log.iter().filter(|c| matches!(c, Command::Assign { assignment, .. } if assignment.start == Start::Seed));
    assert_eq!(again.count(), 2, "only the first generation began from the seed");
}

#[test]
fn what_nobody_can_put_together_is_given_up_only_after_a_while_and_with_a_word() {
    let mut kit = training("{minWorkers: 2}", 2);
    (0..3).for_each(|_| assert!(kit.work(1) & kit.work(2)));
    (kit.core.config.budgets, kit.core.config.pause_ms) = (Budgets::default(), Config::default().pause_ms);
    let before = kit.now;
    let fail = |kit: &mut Kit| {
        let generation = kit.view("a").generation;
        kit.feed(Event::GenerationFailed { session: 1, generation, reason: "cannot connect".into() });
    };
    fail(&mut kit);
    while notices(&kit, "StateGivenUp") == 0 {
        if kit.view("a").state == JobState::Starting {
            assert!(matches!(kit.core.jobs["a"].active().unwrap().start, Start::Peers { .. }));
            fail(&mut kit);
        }
        kit.wait(100);
        assert!(!kit.view("a").state.has_ended(), "{}", kit.view("a").reason);
    }
    assert!(kit.now - before > kit.core.lease_ms(), "a peer that is dead is noticed before");
}

/// A job of many lanes, so that its fleet decides how many workers it has.
fn wide(name: &str, (least, most): (u32, u32), priority: i32) -> r2o_types::TrainJob {
    let mut wide = job(name, 4, "{}");
    (wide.spec.fleet.min_workers, wide.spec.fleet.max_workers) = (least, most);
    (wide.spec.batch.lanes, wide.spec.priority) = (8, priority);
    wide
}

fn fleet(workers: u64) -> Kit {
    let mut kit = Kit::new();
    (1..=workers).for_each(|n| kit.join(n, &format!("w{n}")));
    kit
}

#[test]
fn a_prepared_worker_that_another_job_waits_with_is_not_waited_for() {
    let mut kit = fleet(1);
    kit.feed(submit(wide("a", (1, 8), 0), 1, Resume::Fresh));
    kit.wait(200);
    assert!(kit.work(1));
    kit.join(2, "w2");
    kit.join(3, "w3");
    assert!(kit.work(2), "it prepares, and the other one has not yet");
    kit.feed(submit(wide("b", (4, 8), 1), 2, Resume::Fresh));
    kit.wait(1_000);
    assert_eq!(kit.view("a").reason, Reason::Training { workers: 1 });
    let deadline = kit.core.next_deadline().unwrap();
    assert!(deadline > kit.now, "a deadline of {deadline} at {} would wake the coordinator for ever", kit.now);
}

#[test]
fn a_worker_that_was_placed_in_another_job_does_not_count_as_holding_the_first_ones_state() {
    let mut kit = fleet(2);
    kit.feed(submit(wide("a", (1, 8), 0), 1, Resume::Fresh));
    kit.wait(200);
    (0..3).for_each(|_| assert!(kit.work(1) & kit.work(2)));
    kit.feed(Event::PauseRequested { job: "a".into(), reason: String::new() });
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Paused);
    assert!(kit.core.workers[&1].held.is_some());
    kit.feed(submit(wide("b", (1, 8), 0), 2, Resume::Fresh));
    kit.wait(200);
    let generation = kit.view("b").generation;
    kit.feed(Event::GenerationFailed { session: 1, generation, reason: "cannot connect".into() });
    assert_eq!(kit.core.workers[&1].held, None, "it let go of the one to begin the other");
}

#[test]
fn jobs_that_want_the_same_workers_do_not_wait_for_each_other() {
    let mut kit = fleet(4);
    kit.feed(submit(wide("low", (3, 3), 0), 1, Resume::Fresh));
    kit.wait(200);
    (1..=3).for_each(|n| assert!(kit.work(n)));
    kit.feed(submit(wide("high", (3, 3), 5), 2, Resume::Fresh));
    while kit.view("low").state == JobState::Running {
        assert!((1..=3).any(|n| kit.work(n)), "{}", kit.view("low").reason);
    }
    kit.wait(200);
    assert_eq!(kit.view("high").state, JobState::Starting, "{}", kit.view("high").reason);
    for _ in 0..20 {
        kit.run();
        kit.wait(200);
    }
    assert_eq!(kit.view("low").state, JobState::Succeeded, "{}", kit.view("low").reason);
}

#[test]
fn a_worker_with_steps_in_no_checkpoint_is_kept_for_its_job() {
    let mut kit = fleet(2);
    kit.feed(submit(wide("a", (2, 8), 0), 1, Resume::Fresh));
    kit.wait(200);
    (0..3).for_each(|_| assert!(kit.work(1) & kit.work(2)));
    kit.feed(Event::WorkerLeft { session: 2, reason: "killed".into(), goodbye: false });
    kit.feed(submit(wide("b", (1, 8), 5), 2, Resume::Fresh));
    kit.wait(1_000);
    assert_eq!(kit.view("b").reason, Reason::Behind { job: "a".into() });
    kit.join(3, "w3");
    kit.wait(200);
    let start = kit.core.jobs["a"].active().map(|g| g.start);
    assert_eq!(start, Some(Start::Peers { since: 1 }), "{}", kit.view("a").reason);
}

#[test]
fn a_job_that_is_paused_while_it_forms_saves_what_its_workers_hold() {
    let mut kit = training("{minWorkers: 1}", 2);
    (0..3).for_each(|_| assert!(kit.work(1) & kit.work(2)));
    kit.feed(Event::WorkerLeft { session: 2, reason: "killed".into(), goodbye: false });
    assert_eq!(kit.view("a").state, JobState::Starting);
    kit.feed(Event::PauseRequested { job: "a".into(), reason: String::new() });
    kit.run();
    let view = kit.view("a");
    assert_eq!((view.state, view.checkpoint), (JobState::Paused, Some(view.committed)));
    assert!(view.committed > 0);
}

#[test]
fn a_pause_after_a_restart_saves_what_workers_came_back_with() {
    let mut kit = Kit::new();
    let Event::JobSubmitted(mut new) = submit(wide("a", (1, 8), 0), 1, Resume::Checkpoint(4)) else { panic!() };
    (new.lineage, new.last_generation, new.last_workers) = (3, 3, vec!["w1".to_owned()]);
    kit.feed(Event::JobSubmitted(new));
    let held = Held { job: "a".into(), generation: 3, step: 6 };
    kit.states.insert(1, held.clone());
    kit.join_with(1, "w1", Some(held));
    assert_eq!(kit.view("a").state, JobState::Starting);
    kit.feed(Event::PauseRequested { job: "a".into(), reason: String::new() });
    kit.run();
    assert_eq!((kit.view("a").state, kit.view("a").checkpoint), (JobState::Paused, Some(6)));
}

#[test]
fn workers_that_others_gave_up_wait_for_those_who_may_hold_the_state() {
    let mut kit = fleet(1);
    kit.feed(submit(wide("low", (1, 8), 0), 1, Resume::Fresh));
    kit.wait(200);
    assert!(kit.work(1));
    let Event::JobSubmitted(mut new) = submit(wide("high", (1, 8), 5), 2, Resume::Checkpoint(4)) else { panic!() };
    (new.lineage, new.last_generation, new.last_workers) = (3, 3, vec!["w9".to_owned()]);
    kit.feed(Event::JobSubmitted(new));
    while kit.view("low").state == JobState::Running {
        assert!(kit.work(1), "{}", kit.view("low").reason);
    }
    assert!(matches!(kit.view("high").reason, Reason::Joining { .. }), "{}", kit.view("high").reason);
    let worker = WorkerInfo { name: "w9".to_owned(), ..kit.core.workers[&1].info.clone() };
    let held = Some(Held { job: "high".into(), generation: 3, step: 6 });
    kit.feed(Event::WorkerJoined { session: 9, worker, held });
    assert_eq!(kit.core.jobs["high"].active().map(|g| g.start), Some(Start::Peers { since: 3 }));
}

#[test]
fn a_worker_that_was_claimed_is_not_taken_back_by_a_job_that_can_do_without() {
    let mut kit = fleet(3);
    kit.feed(submit(wide("a", (1, 8), 0), 1, Resume::Fresh));
    kit.wait(200);
    (0..3).for_each(|_| assert!(kit.work(1) & kit.work(2) & kit.work(3)));
    kit.feed(submit(wide("b", (1, 1), 0), 2, Resume::Fresh));
    while kit.view("a").generation == 1 {
        assert!((1..=3).any(|n| kit.work(n)), "{}", kit.view("a").reason);
    }
    assert_eq!((kit.view("a").members.len(), kit.view("b").members.len()), (2, 1));
    assert_eq!(notices(&kit, "Preempted"), 1);
}

#[test]
fn replicas_are_compared_before_a_checkpoint_is_taken() {
    let mut kit = Kit::new();
    kit.core.config.parity_steps = 100;
    (1..=3).for_each(|n| kit.join(n, &format!("w{n}")));
    kit.odd = Some(2);
    kit.feed(submit(wide("a", (3, 8), 0), 1, Resume::Fresh));
    kit.wait(200);
    kit.run();
    assert_eq!(notices(&kit, "ReplicaDiffers"), 1, "after step 3, the last one before the checkpoint");
    assert_eq!(kit.checkpoints(), [0_u64; 0], "what differs is not saved");
}

#[test]
fn the_last_checkpoint_is_taken_also_when_it_falls_into_the_pause_after_a_failure() {
    let mut kit = training("{minWorkers: 1}", 1);
    kit.fail_manifests = true;
    while kit.view("a").committed < 15 {
        assert!(kit.work(1), "{}", kit.view("a").reason);
    }
    kit.fail_manifests = false;
    // The failed manifest was there after all, which a new generation found out.
    let job = kit.core.jobs.get_mut("a").unwrap();
    (job.saving.overdue, job.saving.retry_at) = (false, kit.now + 5_000);
    kit.run();
    assert_eq!(kit.view("a").committed, 16);
    kit.wait(6_000);
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded, "{}", kit.view("a").reason);
}

#[test]
fn a_worker_that_drains_while_its_generation_forms_hands_over_first() {
    let mut kit = training("{minWorkers: 1}", 1);
    (0..3).for_each(|_| assert!(kit.work(1)));
    kit.join(2, "w2");
    assert!(kit.work(2), "it prepares");
    while kit.view("a").state == JobState::Running {
        assert!(kit.work(1), "{}", kit.view("a").reason);
    }
    kit.feed(Event::WorkerDraining { session: 1, reason: "SIGTERM".into() });
    assert_eq!(kit.view("a").members.len(), 2, "they meet all the same");
    let committed = kit.view("a").committed;
    kit.work(1);
    kit.work(2);
    kit.feed(Event::WorkerLeft { session: 1, reason: "Drained".into(), goodbye: true });
    let start = kit.core.jobs["a"].active().map(|g| g.start);
    assert_eq!((start, kit.view("a").committed), (Some(Start::Peers { since: 1 }), committed));
}

#[test]
fn what_a_worker_was_ready_with_counts_though_its_generation_has_ended() {
    let mut kit = training("{minWorkers: 2}", 2);
    (0..3).for_each(|_| assert!(kit.work(1) & kit.work(2)));
    kit.feed(Event::WorkerLeft { session: 2, reason: "killed".into(), goodbye: false });
    kit.join(3, "w3");
    let (generation, step) = (kit.view("a").generation, kit.view("a").committed);
    kit.feed(Event::WorkerLeft { session: 1, reason: "killed".into(), goodbye: false });
    kit.feed(Event::WorkerReady { session: 3, generation, step });
    kit.join(4, "w4");
    assert_eq!(kit.core.jobs["a"].active().map(|g| g.start), Some(Start::Peers { since: 1 }));
    kit.feed(Event::WorkerReady { session: 3, generation: generation - 1, step: 0 });
    assert_eq!(kit.view("a").committed, step, "what is older changes nothing");
}
