//! Workers of different program versions.

use super::kit::{Kit, job, submit};
use crate::*;

fn join(kit: &mut Kit, session: Session, version: &str) {
    let worker = WorkerInfo {
        name: format!("w{session}"),
        incarnation: session.to_string(),
        version: version.to_owned(),
        device: "cpu".to_owned(),
        address: "127.0.0.1".to_owned(),
        threads: 1,
    };
    kit.feed(Event::WorkerJoined { session, worker, held: None });
}

/// A job of 8 lanes with at least `least` workers.
fn wide(least: u32, reproducible: bool) -> r2o_types::TrainJob {
    let mut wide = job("a", 4, "{}");
    (wide.spec.batch.lanes, wide.spec.reproducible) = (8, reproducible);
    (wide.spec.fleet.min_workers, wide.spec.fleet.max_workers) = (least, 8);
    wide
}

fn members(kit: &Kit) -> Vec<String> {
    kit.view("a").members.iter().map(|m| m.worker.clone()).collect()
}

fn notices(kit: &Kit) -> usize {
    kit.log.iter().filter(|c| matches!(c, Command::Announce { notice, .. } if notice.reason == "MixedVersions")).count()
}

#[test]
fn a_reproducible_job_takes_the_most_frequent_version_and_no_other_joins() {
    let mut kit = Kit::new();
    join(&mut kit, 1, "2");
    join(&mut kit, 2, "1");
    join(&mut kit, 3, "1");
    kit.feed(submit(wide(1, true), 1, Resume::Fresh));
    kit.wait(200);
    kit.wait(200);
    assert_eq!(members(&kit), ["w2", "w3"]);
    kit.work(2);
    kit.work(3);
    kit.wait(1_000);
    assert!(!kit.work(1), "it is not even asked to prepare");
    assert_eq!(notices(&kit), 0);
}

#[test]
fn a_reproducible_job_stays_with_the_version_of_those_who_hold_its_state() {
    let mut kit = Kit::new();
    join(&mut kit, 1, "1");
    kit.feed(submit(wide(1, true), 1, Resume::Fresh));
    kit.wait(200);
    (0..3).for_each(|_| assert!(kit.work(1)));
    (2..=4).for_each(|session| join(&mut kit, session, "2"));
    let generation = kit.view("a").generation;
    kit.feed(Event::GenerationFailed { session: 1, generation, reason: "reset".into() });
    assert_eq!(members(&kit), ["w1"]);
    assert_eq!(kit.core.jobs["a"].active().map(|g| g.start), Some(Start::Peers { since: 1 }));
}

#[test]
fn a_reproducible_job_that_lacks_workers_of_its_version_says_so() {
    let mut kit = Kit::new();
    join(&mut kit, 1, "1");
    join(&mut kit, 2, "2");
    kit.feed(submit(wide(2, true), 1, Resume::Fresh));
    kit.wait(200);
    let reason = Reason::OtherVersions { needed: 2, version: "2".into(), free: 1, others: 1 };
    assert_eq!(kit.view("a").reason, reason);
    join(&mut kit, 3, "1");
    kit.wait(200);
    assert_eq!(members(&kit), ["w1", "w3"]);
}

#[test]
fn a_fast_job_mixes_versions_and_says_so_once() {
    let mut kit = Kit::new();
    join(&mut kit, 1, "1");
    join(&mut kit, 2, "2");
    kit.feed(submit(wide(2, false), 1, Resume::Fresh));
    kit.wait(200);
    assert_eq!(members(&kit), ["w1", "w2"]);
    let generation = kit.view("a").generation;
    kit.feed(Event::GenerationFailed { session: 1, generation, reason: "reset".into() });
    assert_eq!((kit.view("a").generation, notices(&kit)), (2, 1));
}
