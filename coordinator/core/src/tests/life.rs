//! Lives of jobs, one rule per test.

use super::kit::{Kit, job, started, submit};
use crate::*;

#[test]
fn a_job_trains_saves_and_succeeds() {
    let mut kit = started("{}", 2);
    assert_eq!(kit.view("a").state, JobState::Starting);
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert_eq!(kit.committed(), (0..8).collect::<Vec<_>>());
    assert_eq!(kit.checkpoints(), [4, 8], "one per epoch, the last at the end");
    assert!(kit.core.workers().iter().all(|w| w.state == WorkerState::Idle));
    let Some(Command::CommitStep(step)) = kit.log.iter().find(|c| matches!(c, Command::CommitStep(_))) else {
        panic!()
    };
    assert_eq!((step.loss, step.images, step.lanes.len()), (1.5, 8, 2), "the mean over lanes");
}

#[test]
fn the_generation_is_recorded_and_fenced_before_anybody_is_told() {
    let kit = started("{}", 1);
    let at = |found: fn(&Command) -> bool| kit.log.iter().position(found).unwrap();
    let recorded = at(|c| matches!(c, Command::RecordGeneration { generation: 1, .. }));
    let fenced = at(|c| matches!(c, Command::OpenRendezvous { generation: 1, .. }));
    assert!(recorded < fenced && fenced < at(|c| matches!(c, Command::Assign { .. })));
}

#[test]
fn without_workers_the_job_says_so() {
    let mut kit = Kit::new();
    kit.feed(submit(job("a", 1, "{minWorkers: 2}"), 0, Resume::Fresh));
    assert_eq!(kit.view("a").reason, Reason::NoWorkers { needed: 2 });
    kit.join(1, "w1");
    assert_eq!(kit.view("a").reason, Reason::TooFewWorkers { needed: 2, free: 1, busy: 0 });
    assert_eq!(kit.view("a").state, JobState::Queued);
    kit.feed(submit(job("b", 1, "{device: cuda}"), 1, Resume::Fresh));
    assert!(matches!(kit.view("b").reason, Reason::NoSuchDevice { connected: 1, .. }));
}

#[test]
fn a_job_waits_a_moment_for_more_workers_but_not_when_it_has_all() {
    let mut kit = Kit::new();
    kit.feed(submit(job("a", 1, "{}"), 0, Resume::Fresh));
    kit.join(1, "w1");
    assert_eq!(kit.view("a").reason, Reason::Joining { free: 1, most: 2 });
    assert!(kit.core.next_deadline().unwrap() <= kit.now + 100);
    kit.join(2, "w2");
    assert_eq!(kit.view("a").members.len(), 2, "two lanes: more than two workers are of no use");
}

#[test]
fn higher_priority_starts_first_and_those_behind_say_so() {
    let mut kit = Kit::new();
    kit.feed(submit(job("low", 1, "{maxWorkers: 1}"), 0, Resume::Fresh));
    let mut high = job("high", 1, "{minWorkers: 2}");
    high.spec.priority = 1;
    kit.feed(submit(high, 1, Resume::Fresh));
    kit.join(1, "w1");
    assert_eq!(kit.view("low").reason, Reason::Behind { job: "high".into() });
    kit.join(2, "w2");
    assert_eq!(kit.view("high").state, JobState::Starting);
    kit.run();
    assert_eq!(kit.view("low").state, JobState::Succeeded);
}

#[test]
fn tickets_are_granted_a_window_ahead() {
    let mut kit = started("{maxWorkers: 1}", 1);
    kit.work(1);
    let granted = |kit: &Kit| kit.log.iter().filter(|c| matches!(c, Command::Grant { .. })).count();
    assert_eq!(granted(&kit), 2, "as long as nobody knows how long a step takes");
    kit.now += 200;
    kit.work(1);
    assert_eq!(granted(&kit), 1 + 3, "two steps take longer than what is granted ahead");
}

#[test]
fn a_checkpoint_on_request_falls_between_two_tickets() {
    let mut kit = started("{maxWorkers: 1}", 1);
    kit.work(1);
    kit.work(1);
    kit.feed(Event::CheckpointRequested { job: "a".into(), request: 9 });
    let taken = kit.log.iter().find_map(|c| match c {
        Command::TakeCheckpoint { step, .. } if *step != 4 => Some(*step),
        _ => None,
    });
    assert_eq!(taken, None, "the one after the epoch is being written");
    kit.run();
    let answers = kit.answers();
    assert!(matches!(answers[..], [(9, Ok(step))] if step > 4 && step <= 8), "{answers:?}");
    kit.feed(Event::CheckpointRequested { job: "a".into(), request: 10 });
    assert!(matches!(kit.answers().last(), Some((10, Err(Refusal::NotTraining { .. })))));
}

#[test]
fn a_lost_worker_costs_a_generation_not_the_job() {
    let mut kit = started("{}", 2);
    while kit.committed().len() < 6 {
        assert!(kit.work(1) | kit.work(2));
    }
    kit.feed(Event::WorkerLeft { session: 2, reason: "the stream broke".into(), goodbye: false });
    assert_eq!(kit.view("a").state, JobState::Starting, "the other one goes on at once");
    assert_eq!(kit.view("a").committed, 6, "with the state that it holds");
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert_eq!(kit.view("a").generation, 2);
    assert_eq!(kit.committed(), (0..8).collect::<Vec<_>>(), "no step is lost or repeated");
}

#[test]
fn when_all_are_lost_the_storage_has_the_last_word() {
    let mut kit = started("{}", 2);
    while kit.committed().len() < 6 {
        assert!(kit.work(1) | kit.work(2));
    }
    for session in [1, 2] {
        kit.states.remove(&session);
        kit.work.remove(&session);
        kit.feed(Event::WorkerLeft { session, reason: "the stream broke".into(), goodbye: false });
    }
    assert_eq!(kit.view("a").state, JobState::Queued);
    kit.join(3, "w3");
    kit.wait(100);
    kit.wait(100);
    assert_eq!(kit.view("a").committed, 4, "from the newest checkpoint");
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert_eq!(kit.committed(), [0, 1, 2, 3, 4, 5, 4, 5, 6, 7]);
}

#[test]
fn steps_that_only_a_survivor_knows_of_count() {
    let mut kit = started("{}", 2);
    kit.work(1);
    kit.work(2);
    // The first one applied two steps and the second one is lost before it reported any.
    kit.work(1);
    kit.work(1);
    assert_eq!(kit.view("a").committed, 0);
    kit.feed(Event::WorkerLeft { session: 2, reason: "the stream broke".into(), goodbye: false });
    let lane = |lane| LaneReport { lane, loss: 3.0, ..LaneReport::default() };
    let report = StepReport { lanes: vec![lane(0), lane(1)], ..StepReport::default() };
    let reports = vec![(0, report.clone()), (1, report.clone()), (7, report)];
    kit.feed(Event::StepsRecovered { session: 1, generation: 2, reports });
    kit.work(1);
    assert_eq!(kit.committed(), [0, 1], "not more than the state holds");
    kit.run();
    assert_eq!(kit.committed(), (0..8).collect::<Vec<_>>());
}

#[test]
fn a_draining_worker_hands_over_and_is_let_go() {
    let mut kit = started("{}", 2);
    while kit.committed().len() < 2 {
        assert!(kit.work(1) | kit.work(2));
    }
    kit.feed(Event::WorkerDraining { session: 1, reason: "SIGTERM".into() });
    kit.run();
    assert!(kit.log.iter().any(|c| matches!(c, Command::Release { session: 1, generation: 1, .. })));
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert_eq!(kit.committed(), (0..8).collect::<Vec<_>>(), "no step is lost or repeated");
    assert_eq!(kit.view("a").generation, 2);
}

#[test]
fn the_last_one_saves_before_it_goes() {
    let mut kit = Kit::new();
    kit.join(1, "w1");
    kit.feed(submit(job("a", 4, "{maxWorkers: 1}"), 0, Resume::Fresh));
    while kit.committed().len() < 2 {
        assert!(kit.work(1));
    }
    kit.feed(Event::WorkerDraining { session: 1, reason: "SIGTERM".into() });
    kit.run();
    let step = kit.view("a").committed;
    assert!((3..16).contains(&step), "{step}");
    assert_eq!(kit.view("a").checkpoint, Some(step));
    assert!(matches!(kit.log.last(), Some(Command::Release { .. } | Command::JobChanged { .. })));
    assert!(kit.log.iter().any(|c| matches!(c, Command::Release { session: 1, .. })));
    kit.feed(Event::WorkerLeft { session: 1, reason: "drained".into(), goodbye: true });
    kit.join(2, "w2");
    kit.wait(100);
    kit.wait(100);
    kit.run();
    assert_eq!(kit.committed(), (0..16).collect::<Vec<_>>());
}

#[test]
fn workers_that_outlived_the_coordinator_go_on_with_what_they_hold() {
    let mut kit = Kit::new();
    let Event::JobSubmitted(mut new) = submit(job("a", 2, "{}"), 0, Resume::Locate) else { panic!() };
    (new.last_generation, new.lineage) = (7, 5);
    new.last_workers = vec!["w1".into(), "w2".into()];
    kit.core.handle(1, Event::JobSubmitted(new));
    kit.feed(Event::CheckpointLocated { job: "a".into(), step: Some(4) });
    let held = |generation, step| Held { job: "a".into(), generation, step };
    let mut join = |session, held: Option<Held>| {
        if let Some(held) = held.clone().filter(|h| h.generation >= 5) {
            kit.states.insert(session, held);
        }
        let worker = WorkerInfo {
            name: format!("w{session}"),
            incarnation: session.to_string(),
            version: "0.1.0".into(),
            device: "cpu".into(),
            address: "127.0.0.1".into(),
            threads: 1,
        };
        kit.feed(Event::WorkerJoined { session, worker, held });
        kit.view("a").members.len()
    };
    assert_eq!(join(3, Some(held(4, 7))), 0);
    assert_eq!(join(1, Some(held(7, 6))), 0, "the other one is worth waiting for");
    assert_eq!(join(2, Some(held(7, 5))), 2);
    let stale = |c: &Command| matches!(c, Command::Release { session: 3, generation: 4, keep: false, .. });
    assert!(kit.log.iter().any(stale), "what is of an earlier course is dropped");
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert_eq!(kit.committed(), [6, 7], "nothing is computed again");
}

#[test]
fn members_that_keep_the_others_waiting_are_sent_away() {
    let mut kit = started("{}", 2);
    kit.work(1);
    kit.work(2);
    kit.work(1);
    for _ in 0..400 {
        kit.wait(1_000);
    }
    let gone = |c: &Command| matches!(c, Command::Disconnect { session: 2, refuse: false, .. });
    assert!(kit.log.iter().any(gone));
    assert_eq!(kit.view("a").members.len(), 1);
}

#[test]
fn a_silent_worker_is_lost_when_its_lease_ends() {
    let mut kit = started("{}", 1);
    kit.now += 10_000;
    kit.feed(Event::Tick);
    assert!(kit.core.workers().is_empty());
    assert!(kit.log.iter().any(|c| matches!(c, Command::Disconnect { session: 1, refuse: false, .. })));
    assert!(matches!(kit.view("a").reason, Reason::NoWorkers { .. } | Reason::BackingOff { .. }));
}

#[test]
fn a_coordinator_that_was_away_takes_nobody_for_lost() {
    let mut kit = started("{}", 2);
    kit.now += 60_000;
    kit.feed(Event::WasAway);
    assert_eq!(kit.core.workers().len(), 2);
    kit.now += 2_000;
    kit.feed(Event::Tick);
    assert!(kit.core.workers().is_empty(), "from then on they must be heard of again");
}

#[test]
fn what_is_late_changes_nothing() {
    let mut kit = started("{maxWorkers: 1}", 1);
    kit.work(1);
    let late = StepReport { lanes: Vec::new(), ..StepReport::default() };
    kit.feed(Event::StepReported { session: 1, generation: 99, step: 0, report: late.clone() });
    kit.feed(Event::StepReported { session: 77, generation: 1, step: 0, report: late });
    kit.feed(Event::CheckpointCommitted { job: "a".into(), generation: 1, step: 3 });
    assert_eq!((kit.view("a").committed, kit.view("a").checkpoint), (0, None));
}

#[test]
fn a_job_whose_generations_fail_again_and_again_stops() {
    let mut kit = started("{maxWorkers: 1}", 1);
    for _ in 0..4 {
        kit.wait(1_000);
        let generation = kit.view("a").generation;
        kit.work(1);
        kit.feed(Event::GenerationFailed { session: 1, generation, reason: "reset by peer".into() });
    }
    let view = kit.view("a");
    assert_eq!(view.state, JobState::Failed);
    assert!(view.reason.to_string().contains("4 generations in a row"), "{}", view.reason);
    assert!(view.reason.to_string().contains("reset by peer"), "{}", view.reason);
}

#[test]
fn a_job_that_fails_the_same_way_at_the_same_step_three_times_stops_and_says_so() {
    let mut kit = started("{maxWorkers: 1}", 1);
    let fail = |kit: &mut Kit, reason: &str| {
        kit.wait(1_000);
        kit.wait(1_000);
        kit.work(1);
        let generation = kit.view("a").generation;
        kit.feed(Event::JobFailed { session: 1, generation, step: 2, reason: reason.to_owned() });
        kit.view("a")
    };
    fail(&mut kit, "another machine's fault");
    for _ in 0..2 {
        let view = fail(&mut kit, "shard-3.tar is truncated");
        assert!(!view.state.has_ended(), "{}", view.reason);
        assert!(matches!(view.reason, Reason::BackingOff { .. }), "{}", view.reason);
    }
    let view = fail(&mut kit, "shard-3.tar is truncated");
    assert_eq!(view.state, JobState::Failed);
    let reason = view.reason.to_string();
    assert!(reason.contains("step 2, worker w1: shard-3.tar is truncated (the same 3 times"), "{reason}");
}

#[test]
fn a_loss_that_is_no_number_fails_the_job_with_step_and_lane() {
    let mut kit = started("{maxWorkers: 1}", 1);
    kit.work(1);
    let lane = |lane, loss| LaneReport { lane, loss, ..LaneReport::default() };
    let report = StepReport { lanes: vec![lane(0, 1.0), lane(1, f64::NAN)], ..StepReport::default() };
    kit.feed(Event::StepReported { session: 1, generation: 1, step: 0, report: report.clone() });
    for _ in 0..2 {
        assert_eq!(kit.view("a").state, JobState::Queued, "it may have been the machine");
        kit.wait(1_000);
        kit.wait(1_000);
        let generation = kit.view("a").generation;
        let fresh = |c: &Command| {
            matches!(c, Command::Assign { assignment, .. } if assignment.generation == generation
                && assignment.start == Start::Seed)
        };
        assert!(kit.log.iter().any(fresh), "nobody goes on with a state that has that step in it");
        kit.work(1);
        kit.feed(Event::StepReported { session: 1, generation, step: 0, report: report.clone() });
    }
    assert_eq!(kit.view("a").state, JobState::Failed);
    assert!(kit.view("a").reason.to_string().contains("lane 1 at step 0"), "{}", kit.view("a").reason);
    assert!(kit.committed().is_empty());
}

#[test]
fn a_full_disk_costs_checkpoints_but_not_the_run() {
    let mut kit = started("{maxWorkers: 1}", 1);
    kit.fail_manifests = true;
    kit.run();
    assert_eq!(kit.committed().len(), 8, "training goes on");
    assert!(matches!(kit.view("a").reason, Reason::CheckpointsFail { .. }));
    assert_eq!(kit.view("a").state, JobState::Running);
    kit.fail_manifests = false;
    kit.wait(1_900);
    kit.wait(1_900);
    kit.run();
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert_eq!(kit.checkpoints().last(), Some(&8));
}

#[test]
fn cancelling_frees_the_workers_and_a_name_can_be_used_again() {
    let mut kit = started("{maxWorkers: 1}", 1);
    kit.run();
    let mut kit2 = started("{maxWorkers: 1}", 1);
    kit2.work(1);
    kit2.feed(Event::CancelRequested { job: "a".into(), reason: "half-way".into() });
    assert_eq!(kit2.view("a").state, JobState::Cancelled);
    assert_eq!(kit2.view("a").reason.to_string(), "cancelled: half-way");
    kit2.feed(submit(job("a", 2, "{maxWorkers: 1}"), 5, Resume::Checkpoint(4)));
    kit2.wait(100);
    kit2.run();
    assert_eq!(kit2.view("a").state, JobState::Succeeded);
    assert_eq!(kit2.committed(), [4, 5, 6, 7]);
}

#[test]
fn a_restarted_coordinator_looks_for_the_checkpoint_first_and_never_starts_over() {
    let mut kit = Kit::new();
    let commands = kit.core.handle(1, submit(job("a", 2, "{}"), 0, Resume::Locate));
    assert!(commands.contains(&Command::LocateCheckpoint { job: "a".into() }));
    kit.feed(Event::CheckpointsUnreadable { job: "a".into(), reason: "none can be read".into() });
    assert_eq!(kit.view("a").state, JobState::Failed);
}

#[test]
fn a_job_whose_checkpoint_has_all_steps_succeeds_without_workers() {
    let mut kit = Kit::new();
    kit.feed(submit(job("a", 2, "{}"), 0, Resume::Checkpoint(8)));
    assert_eq!(kit.view("a").state, JobState::Succeeded);
}

#[test]
fn the_newer_process_of_a_name_wins() {
    let mut kit = started("{}", 1);
    kit.join(2, "w1");
    assert!(kit.log.iter().any(|c| matches!(c, Command::Disconnect { session: 1, refuse: true, .. })));
    assert_eq!(kit.core.workers().len(), 1);
}

#[test]
fn a_generation_that_does_not_form_names_who_is_missing() {
    let mut kit = started("{}", 2);
    kit.work(1);
    assert_eq!(kit.view("a").reason, Reason::Forming { generation: 1, missing: vec!["w2".into()], more: 0 });
    for _ in 0..700 {
        kit.wait(1_000);
    }
    assert!(kit.view("a").generation > 1);
}

#[test]
fn a_replica_that_differs_is_kept_out_and_receives_the_state_of_the_others() {
    let mut kit = Kit::new();
    kit.core.config.parity_steps = 2;
    for session in 1..=3 {
        kit.join(session, &format!("w{session}"));
    }
    let mut wide = job("a", 4, "{}");
    wide.spec.batch.lanes = 3;
    kit.feed(submit(wide, 0, Resume::Fresh));
    kit.wait(100);
    kit.odd = Some(2);
    while kit.view("a").generation == 1 {
        assert!(kit.work(1) | kit.work(2) | kit.work(3));
    }
    let said = |kit: &Kit, word: &str| {
        kit.log.iter().any(|c| matches!(c, Command::Announce { notice, .. } if notice.reason == word))
    };
    assert!(said(&kit, "ReplicaDiffers"));
    let away = |c: &Command| matches!(c, Command::Release { session: 2, keep: false, .. });
    assert!(kit.log.iter().any(away), "its state is of no use to anybody");
    assert_eq!(kit.view("a").members.iter().map(|m| m.session).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(kit.committed(), [0, 1], "the step itself counts");
    kit.odd = None;
    kit.work(1);
    kit.work(3);
    kit.wait(1_900);
    assert_eq!(kit.core.workers.get(&2).unwrap().prepared, None, "not yet");
    for _ in 0..6 {
        kit.wait(1_900);
    }
    kit.work(2);
    kit.run();
    assert_eq!(kit.committed(), (0..16).collect::<Vec<_>>());
    assert_eq!(kit.view("a").state, JobState::Succeeded);
    assert!(
        kit.log.iter().any(|c| matches!(c, Command::Assign { session: 2, assignment } if assignment.generation > 2))
    );
}

#[test]
fn a_worker_that_differs_again_and_again_is_not_served_any_more() {
    let mut kit = Kit::new();
    (kit.core.config.parity_steps, kit.core.config.quarantine_ms) = (1, 1);
    for session in 1..=3 {
        kit.join(session, &format!("w{session}"));
    }
    let mut wide = job("a", 40, "{}");
    wide.spec.batch.lanes = 3;
    wide.spec.fleet.min_workers = 3;
    kit.feed(submit(wide, 0, Resume::Fresh));
    kit.wait(100);
    kit.odd = Some(2);
    for _ in 0..20 {
        kit.run();
        kit.wait(1_000);
    }
    assert!(kit.log.iter().any(|c| matches!(c, Command::Disconnect { session: 2, refuse: true, .. })));
}

#[test]
fn two_replicas_that_differ_both_go_back_to_the_checkpoint() {
    let mut kit = started("{}", 2);
    kit.core.config.parity_steps = 1;
    kit.odd = Some(2);
    kit.run();
    kit.wait(1_000);
    let fresh = |c: &Command| matches!(c, Command::Assign { assignment, .. } if assignment.generation == 2 && assignment.start == Start::Seed);
    assert!(kit.log.iter().any(fresh));
}
