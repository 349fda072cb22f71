//! Several jobs: priorities, shares, claims; pausing, resuming and requeueing.

use super::kit::{Kit, job, submit};
use crate::*;

/// A job of `epochs` epochs of 4 steps that up to 8 workers can share.
fn wide(name: &str, fleet: &str, priority: i32) -> r2o_types::TrainJob {
    let mut job = job(name, 4, fleet);
    job.spec.batch.lanes = 8;
    job.spec.priority = priority;
    job
}

fn fleet(workers: u64) -> Kit {
    let mut kit = Kit::new();
    for session in 1..=workers {
        kit.join(session, &format!("w{session}"));
    }
    kit
}

fn start(kit: &mut Kit, job: r2o_types::TrainJob, order: u64) {
    kit.feed(submit(job, order, Resume::Fresh));
    kit.wait(100);
}

/// Everybody does what it can until the job has committed `steps`.
fn train(kit: &mut Kit, job: &str, steps: u64) {
    while kit.view(job).committed < steps {
        let sessions: Vec<Session> = kit.work.keys().copied().collect();
        let mut any = false;
        for session in sessions {
            any |= kit.work(session);
        }
        assert!(any, "{job}: {}", kit.view(job).reason);
    }
}

fn members(kit: &Kit, job: &str) -> usize {
    kit.view(job).members.len()
}

#[test]
fn jobs_of_one_priority_all_start_and_share_what_is_left() {
    let mut kit = fleet(5);
    kit.feed(submit(wide("a", "{minWorkers: 1}", 0), 0, Resume::Fresh));
    kit.feed(submit(wide("b", "{minWorkers: 2}", 0), 1, Resume::Fresh));
    kit.wait(100);
    kit.wait(100);
    assert_eq!((members(&kit, "a"), members(&kit, "b")), (2, 3));
}

#[test]
fn workers_that_come_later_go_to_the_job_that_has_the_fewest() {
    let mut kit = fleet(3);
    kit.feed(submit(wide("a", "{minWorkers: 2}", 0), 0, Resume::Fresh));
    kit.feed(submit(wide("b", "{minWorkers: 1}", 0), 1, Resume::Fresh));
    kit.wait(100);
    kit.wait(100);
    train(&mut kit, "a", 1);
    train(&mut kit, "b", 1);
    kit.join(4, "w4");
    let asked = |kit: &Kit, name: &str, worker: Session| {
        kit.log.iter().any(|c| matches!(c, Command::Prepare { session, job, .. } if *session == worker && job == name))
    };
    assert!(asked(&kit, "b", 4));
    kit.join(5, "w5");
    assert!(asked(&kit, "a", 5), "both have two then, and a is older");
}

#[test]
fn a_job_takes_the_surplus_of_its_equals_and_nobody_starts_over() {
    let mut kit = fleet(4);
    start(&mut kit, wide("a", "{minWorkers: 2}", 0), 0);
    train(&mut kit, "a", 2);
    assert_eq!(members(&kit, "a"), 4);
    kit.feed(submit(wide("b", "{minWorkers: 2}", 0), 1, Resume::Fresh));
    assert_eq!(kit.view("b").reason, Reason::Claiming { workers: 2 });
    assert!(matches!(kit.view("a").reason, Reason::HandingOver { .. }), "{}", kit.view("a").reason);
    kit.run();
    kit.wait(100);
    kit.run();
    for job in ["a", "b"] {
        assert_eq!(kit.view(job).state, JobState::Succeeded, "{}", kit.view(job).reason);
    }
    let mut committed = kit.committed();
    committed.sort_unstable();
    assert_eq!(committed, (0..16).flat_map(|step| [step, step]).collect::<Vec<_>>(), "no step is done twice");
}

#[test]
fn equals_never_lose_what_they_need() {
    let mut kit = fleet(2);
    start(&mut kit, wide("a", "{minWorkers: 2}", 0), 0);
    train(&mut kit, "a", 1);
    kit.feed(submit(wide("b", "{minWorkers: 1}", 0), 1, Resume::Fresh));
    assert_eq!(kit.view("b").reason, Reason::TooFewWorkers { needed: 1, free: 0, busy: 2 });
    assert_eq!(kit.view("a").reason, Reason::Training { workers: 2 });
}

#[test]
fn a_higher_priority_takes_a_whole_job_after_it_has_saved_its_state() {
    let mut kit = fleet(2);
    start(&mut kit, wide("low", "{minWorkers: 2}", 0), 0);
    train(&mut kit, "low", 1);
    kit.feed(submit(wide("high", "{minWorkers: 1, maxWorkers: 2}", 5), 1, Resume::Fresh));
    while kit.view("high").generation == 0 {
        assert!(kit.work(1) | kit.work(2), "{}", kit.view("low").reason);
    }
    let low = kit.view("low");
    assert_eq!(low.checkpoint, Some(low.committed), "nobody could go on with the state, so it was saved");
    assert_eq!(low.state, JobState::Queued);
    for _ in 0..6 {
        kit.run();
        kit.wait(100);
    }
    assert_eq!(kit.view("high").state, JobState::Succeeded);
    assert_eq!(kit.view("low").state, JobState::Succeeded, "{}", kit.view("low").reason);
}

#[test]
fn a_claim_that_would_not_suffice_disturbs_nobody() {
    let mut kit = fleet(2);
    start(&mut kit, wide("low", "{minWorkers: 1}", 0), 0);
    train(&mut kit, "low", 1);
    let mut high = wide("high", "{}", 5);
    high.spec.fleet.min_workers = 3;
    kit.feed(submit(high, 1, Resume::Fresh));
    assert_eq!(kit.view("low").reason, Reason::Training { workers: 2 });
    assert!(matches!(kit.view("high").reason, Reason::TooFewWorkers { needed: 3, .. }));
}

#[test]
fn a_paused_job_saves_its_state_and_goes_on_when_resumed() {
    let mut kit = fleet(2);
    start(&mut kit, wide("a", "{minWorkers: 1}", 0), 0);
    train(&mut kit, "a", 2);
    kit.feed(Event::PauseRequested { job: "a".into(), reason: "the weekend".into() });
    kit.run();
    let paused = kit.view("a");
    assert_eq!((paused.state, paused.checkpoint), (JobState::Paused, Some(paused.committed)));
    assert_eq!(paused.reason, Reason::Paused { reason: "the weekend".into() });
    assert!(kit.log.contains(&Command::RecordPaused { job: "a".into(), reason: "the weekend".into() }));
    kit.wait(1_000);
    assert_eq!(kit.view("a").state, JobState::Paused);
    assert!(kit.core.workers().iter().all(|w| w.job.is_none()), "its workers are free for others");
    kit.feed(Event::ResumeRequested { job: "a".into() });
    kit.wait(100);
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded, "{}", kit.view("a").reason);
    assert_eq!(kit.committed(), (0..16).collect::<Vec<_>>());
}

#[test]
fn a_paused_job_that_is_cancelled_ends_and_one_that_waits_pauses_at_once() {
    let mut kit = fleet(0);
    kit.feed(submit(wide("a", "{minWorkers: 1}", 0), 0, Resume::Fresh));
    kit.feed(Event::PauseRequested { job: "a".into(), reason: String::new() });
    assert_eq!(kit.view("a").state, JobState::Paused);
    kit.join(1, "w1");
    kit.wait(1_000);
    assert_eq!(kit.view("a").generation, 0);
    kit.feed(Event::CancelRequested { job: "a".into(), reason: String::new() });
    assert_eq!(kit.view("a").state, JobState::Cancelled);
}

#[test]
fn a_requeued_job_lets_its_equals_go_first() {
    let mut kit = fleet(2);
    start(&mut kit, wide("a", "{minWorkers: 2}", 0), 0);
    train(&mut kit, "a", 1);
    kit.feed(submit(wide("b", "{minWorkers: 2}", 0), 1, Resume::Fresh));
    kit.feed(Event::RequeueRequested { job: "a".into() });
    kit.run();
    kit.wait(100);
    assert_eq!(kit.view("a").state, JobState::Queued);
    assert_eq!(kit.view("a").checkpoint, Some(kit.view("a").committed));
    for _ in 0..6 {
        kit.run();
        kit.wait(100);
    }
    for job in ["a", "b"] {
        assert_eq!(kit.view(job).state, JobState::Succeeded, "{}", kit.view(job).reason);
    }
}

#[test]
fn workers_that_are_asked_to_leave_do_not_use_up_the_budget_of_failures() {
    let mut kit = fleet(1);
    start(&mut kit, wide("a", "{minWorkers: 1}", 0), 0);
    for session in 2..12 {
        kit.join(session, &format!("w{session}"));
        kit.feed(Event::WorkerLeft { session: session - 1, reason: "preempted".into(), goodbye: true });
        kit.wait(1_000);
    }
    assert!(!kit.view("a").state.has_ended(), "{}", kit.view("a").reason);
    kit.wait(60_000 - 58_500);
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded, "{}", kit.view("a").reason);
}
