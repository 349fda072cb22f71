//! Workers that join a job while it trains.

use super::kit::{Kit, started};
use crate::*;

#[test]
fn a_worker_that_comes_later_prepares_and_joins_between_two_steps() {
    let mut kit = started("{}", 1);
    kit.work(1);
    kit.work(1);
    assert_eq!(kit.view("a").members.len(), 1);
    kit.join(2, "w2");
    assert!(kit.log.iter().any(|c| matches!(c, Command::Prepare { session: 2, .. })));
    kit.work(2);
    assert_eq!(kit.view("a").generation, 1, "granted steps are computed first");
    while kit.view("a").generation == 1 {
        assert!(kit.work(1));
    }
    assert_eq!(kit.view("a").members.len(), 2);
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert_eq!(kit.committed(), (0..8).collect::<Vec<_>>());
    assert_eq!(kit.view("a").generation, 2);
}

#[test]
fn who_prepares_waits_for_one_step_and_not_for_a_window() {
    let mut kit = started("{}", 1);
    let granted = |kit: &Kit| kit.log.iter().filter(|c| matches!(c, Command::Grant { .. })).count() as u64;
    let ahead = |kit: &Kit| granted(kit) - kit.view("a").committed;
    assert!(kit.work(1) && kit.work(1));
    assert!(ahead(&kit) > 1, "usually the next step is there before it is asked for");
    kit.join(2, "w2");
    while ahead(&kit) > 1 {
        assert!(kit.work(1));
    }
    for _ in 0..3 {
        assert!(kit.work(1), "the others train on meanwhile");
        assert_eq!(ahead(&kit), 1);
    }
    assert!(kit.work(2), "it is prepared");
    assert!(kit.work(1), "the step on its way");
    assert_eq!(kit.view("a").generation, 2);
}

#[test]
fn a_long_step_is_granted_just_before_it_is_to_begin() {
    let mut kit = started("{}", 1);
    let granted = |kit: &Kit| kit.log.iter().filter(|c| matches!(c, Command::Grant { .. })).count() as u64;
    let ahead = |kit: &Kit| granted(kit) - kit.view("a").committed;
    for _ in 0..4 {
        kit.wait(1_000);
        assert!(kit.work(1));
    }
    assert_eq!(ahead(&kit), 1, "who comes now waits for the step at work alone");
    let at = kit.core.next_deadline().unwrap();
    assert!((kit.now + 500..kit.now + 1_000).contains(&at), "in good time: at {at}, now {}", kit.now);
    kit.now = at;
    kit.feed(Event::Tick);
    assert_eq!(ahead(&kit), 2);
    assert!(kit.core.next_deadline() > Some(kit.now), "it is granted once");
}

#[test]
fn a_checkpoint_that_was_just_begun_gives_way_to_who_joins() {
    for (age, yields) in [(0, true), (3_000, false)] {
        let mut kit = started("{}", 1);
        let asked = |kit: &Kit| {
            let asked = kit.log.iter().filter_map(|command| match command {
                Command::TakeCheckpoint { generation, step, .. } => Some((*generation, *step)),
                _ => None,
            });
            asked.collect::<Vec<_>>()
        };
        while asked(&kit).is_empty() {
            kit.wait(600);
            assert!(kit.work(1));
        }
        kit.wait(age / 2);
        kit.wait(age / 2);
        kit.join(2, "w2");
        assert!(kit.work(2), "it is prepared");
        kit.run();
        assert_eq!(asked(&kit)[..2], if yields { [(1, 4), (2, 4)] } else { [(1, 4), (2, 8)] }, "{age} ms");
        assert_eq!(kit.view("a").state, JobState::Succeeded);
        assert_eq!(kit.committed(), (0..8).collect::<Vec<_>>());
    }
}
