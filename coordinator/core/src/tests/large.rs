//! Fleets of thousands.

use super::kit::{Kit, job, submit};
use crate::*;

const WORKERS: u64 = 3_000;

/// A job of a lane per worker, on which all of them train.
fn fleet() -> Kit {
    let mut kit = Kit::new();
    let mut wide = job("a", 10, "{maxWorkers: 3000}");
    wide.spec.batch.lanes = WORKERS as u32;
    wide.spec.fleet.min_workers = wide.spec.batch.lanes - 10;
    kit.feed(submit(wide, 0, Resume::Fresh));
    for session in 1..=WORKERS {
        kit.now += u64::from(session % 10 == 0);
        let worker = WorkerInfo {
            name: format!("w{session}"),
            incarnation: String::new(),
            version: String::new(),
            device: "cpu".into(),
            address: String::new(),
            threads: 1,
        };
        assert!(kit.core.handle(kit.now, Event::WorkerJoined { session, worker, held: None }).len() < 3);
    }
    // Those that came within a moment are looked at together.
    kit.now = kit.core.next_deadline().unwrap();
    for command in kit.core.handle(kit.now, Event::Tick) {
        kit.log.push(command);
    }
    kit.core.check_invariants().unwrap();
    for session in 1..=WORKERS {
        let commands = kit.core.handle(kit.now, Event::WorkerReady { session, generation: 1, step: 0 });
        kit.log.extend(commands);
    }
    assert_eq!(kit.view("a").reason, Reason::Training { workers: WORKERS as usize });
    kit
}

#[test]
fn workers_that_come_together_start_together_and_the_names_of_thousands_fill_no_pages() {
    let kit = fleet();
    let assigned = kit.log.iter().filter(|c| matches!(c, Command::Assign { .. })).count();
    assert_eq!(assigned as u64, WORKERS);
    for command in &kit.log {
        if let Command::Announce { notice, .. } = command {
            assert!(notice.message.len() < 500, "{}", notice.message);
        }
    }
}

#[test]
fn a_large_fleet_is_heard_less_often() {
    let mut kit = fleet();
    assert_eq!(kit.core.lease_ms(), WORKERS);
    let joined = kit.now;
    // The first of them was told another lease, which is not shorter for it now.
    let lost = |commands: &[Command]| commands.iter().any(|c| matches!(c, Command::Disconnect { .. }));
    assert!(!lost(&kit.core.handle(joined + 2_500, Event::Tick)));
    for session in 2..=WORKERS {
        kit.core.handle(joined + 2_500, Event::WorkerHeard { session });
    }
    let commands = kit.core.handle(joined + WORKERS, Event::Tick);
    let gone: Vec<_> = commands.iter().filter(|c| matches!(c, Command::Disconnect { .. })).collect();
    assert!(matches!(gone[..], [Command::Disconnect { session: 1, refuse: false, .. }]), "{gone:?}");
    assert_eq!(kit.view("a").generation, 2, "the others go on without it");
}
