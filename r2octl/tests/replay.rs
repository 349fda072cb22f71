//! `replay` on a journal that the real code wrote: whole, broken, trimmed.

#![allow(clippy::unwrap_used)]

#[path = "kit/output.rs"]
mod output;

use std::process::{Command, Output};

use output::printed;
use r2o_coordinator_core::{End, Fold, Record};
use r2o_storage::history::{LaneRecord, StepRecord};
use r2o_storage::journal::{Journal, trim};
use r2o_storage::ledger::{Segment, write_segment};
use r2o_storage::run::{EventRecord, write_events};
use r2o_storage::{Store, open};
use r2o_types::TrainJob;
use tempfile::TempDir;

const START: u64 = 1_700_000_000_000;

struct Place {
    folder: TempDir,
    state: Store,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    /// A state with this journal.
    fn new(records: impl Fn(&Place) -> Vec<Record>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let state = open(&folder.path().join("state").display().to_string()).unwrap();
        let place = Self { folder, state, runtime };
        place.append(&records(&place));
        place
    }

    fn append(&self, records: &[Record]) {
        self.runtime.block_on(async {
            let (mut journal, _) = Journal::open(&self.state).await.unwrap();
            for record in records {
                journal.append(journal.next(), &serde_json::to_vec(record).unwrap()).await.unwrap();
            }
        });
    }

    fn job(&self, name: &str) -> Box<TrainJob> {
        let text = format!(
            "{{apiVersion: r2o.dev/v1, kind: TrainJob, metadata: {{name: {name}}}, spec: {{epochs: 3, data: {{url: /set}}, \
             checkpoint: {{url: {}}}}}}}",
            self.folder.path().join(name).display()
        );
        Box::new(TrainJob::parse(&text).unwrap())
    }

    fn replay(&self, more: &[&str]) -> Output {
        let url = self.state.folder().unwrap().display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_r2octl"));
        command.args([&["replay", &url], more].concat()).env("R2O_COORDINATOR", "http://127.0.0.1:1").output().unwrap()
    }

    fn record(&self, number: u64) -> std::path::PathBuf {
        self.folder.path().join(format!("state/journal/{number:012}.rec"))
    }
}

/// Two jobs; the first is paused, goes on and succeeds, the second waits.
fn story(place: &Place) -> Vec<Record> {
    let at = |seconds: u64| START + seconds * 1000;
    let submitted = |name, seconds| Record::JobSubmitted {
        job: place.job(name),
        steps_per_epoch: 4,
        last_generation: 0,
        unix_ms: at(seconds),
    };
    let opened = |generation, lineage, seconds| Record::GenerationOpened {
        job: "a".into(),
        generation,
        workers: vec!["w1".into(), "w2".into()],
        lineage,
        unix_ms: at(seconds),
    };
    let saved = |generation, step, seconds| Record::CheckpointCommitted {
        job: "a".into(),
        generation,
        step,
        unix_ms: at(seconds),
    };
    vec![
        submitted("a", 0),
        submitted("b", 1),
        opened(1, 1, 2),
        saved(1, 4, 10),
        Record::JobPaused { job: "a".into(), reason: "the weekend".into(), unix_ms: at(11) },
        Record::JobResumed { job: "a".into(), unix_ms: at(20) },
        opened(2, 1, 21),
        Record::JobRequeued { job: "b".into(), unix_ms: at(22) },
        saved(2, 8, 30),
        Record::JobEnded { job: "a".into(), outcome: End::Succeeded, unix_ms: at(31) },
    ]
}

#[test]
fn each_record_is_shown_with_what_it_amounts_to() {
    let place = Place::new(story);
    insta::assert_snapshot!(printed(&place.replay(&[]), 0), @r"
    0 2023-11-14T22:13:20Z   JobSubmitted         job a: 12 steps of 4 an epoch
      -> a Queued, no checkpoint
    1 2023-11-14T22:13:21Z   JobSubmitted         job b: 12 steps of 4 an epoch
      -> b Queued, no checkpoint
    2 2023-11-14T22:13:22Z   GenerationOpened     job a: generation 1 on w1, w2
      -> a Running, generation 1, no checkpoint
    3 2023-11-14T22:13:30Z   CheckpointCommitted  job a: after step 4, by generation 1
      -> a Running, generation 1, checkpoint after step 4
    4 2023-11-14T22:13:31Z   JobPaused            job a: the weekend
      -> a Paused (the weekend), generation 1, checkpoint after step 4
    5 2023-11-14T22:13:40Z   JobResumed           job a
      -> a Queued, generation 1, checkpoint after step 4
    6 2023-11-14T22:13:41Z   GenerationOpened     job a: generation 2 on w1, w2
      -> a Running, generation 2 of the course since 1, checkpoint after step 4
    7 2023-11-14T22:13:42Z   JobRequeued          job b: behind all others of its priority
      -> b Queued, no checkpoint
    8 2023-11-14T22:13:50Z   CheckpointCommitted  job a: after step 8, by generation 2
      -> a Running, generation 2 of the course since 1, checkpoint after step 8
    9 2023-11-14T22:13:51Z   JobEnded             job a: all epochs are done and saved
      -> a Succeeded (all epochs are done and saved), generation 2 of the course since 1, checkpoint after step 8
    ");
    let text = printed(&place.replay(&["--until", "4", "-o", "json"]), 0);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!((&lines[4]["number"], &lines[4]["what"]), (&4.into(), &"JobPaused".into()));
    assert_eq!(lines[4]["record"]["reason"], "the weekend");
    let job = &lines[4]["jobs"][0];
    assert_eq!((&job["state"], &job["lineage"], &job["checkpointStep"]), (&"Paused".into(), &1.into(), &4.into()));
}

#[test]
fn a_jobs_events_and_steps_stand_between_its_records() {
    let place = Place::new(story);
    let store = open(&place.folder.path().join("a").display().to_string()).unwrap();
    let event = |seconds: i64, reason: &str, message: &str| EventRecord {
        unix_ms: START as i64 + seconds * 1000,
        reason: reason.into(),
        message: message.into(),
        warning: reason == "WorkerLost",
    };
    let mut steps = Segment::default();
    for step in 0..4 {
        let lanes = vec![LaneRecord { first_position: step, ..LaneRecord::default() }];
        let record = StepRecord { step, generation: 1, lanes, ..StepRecord::default() };
        assert!(steps.add(&record, START as i64 + 3000 + step as i64 * 1000));
    }
    place.runtime.block_on(async {
        let events = [event(0, "Submitted", "8 steps of 4 an epoch"), event(25, "WorkerLost", "worker w2 is lost")];
        write_events(&store, &events).await.unwrap();
        write_segment(&store, steps.ranges()).await.unwrap();
    });
    insta::assert_snapshot!(printed(&place.replay(&["--job", "a"]), 0), @r"
     event 2023-11-14T22:13:20Z   Submitted            8 steps of 4 an epoch
         0 2023-11-14T22:13:20Z   JobSubmitted         job a: 12 steps of 4 an epoch
           -> a Queued, no checkpoint
         2 2023-11-14T22:13:22Z   GenerationOpened     job a: generation 1 on w1, w2
           -> a Running, generation 1, no checkpoint
    ledger 2023-11-14T22:13:26Z   4 steps              0-3 of epoch 0 by generation 1, 1 lane, in 3s
         3 2023-11-14T22:13:30Z   CheckpointCommitted  job a: after step 4, by generation 1
           -> a Running, generation 1, checkpoint after step 4
         4 2023-11-14T22:13:31Z   JobPaused            job a: the weekend
           -> a Paused (the weekend), generation 1, checkpoint after step 4
         5 2023-11-14T22:13:40Z   JobResumed           job a
           -> a Queued, generation 1, checkpoint after step 4
         6 2023-11-14T22:13:41Z   GenerationOpened     job a: generation 2 on w1, w2
           -> a Running, generation 2 of the course since 1, checkpoint after step 4
     event 2023-11-14T22:13:45Z ! WorkerLost           worker w2 is lost
         8 2023-11-14T22:13:50Z   CheckpointCommitted  job a: after step 8, by generation 2
           -> a Running, generation 2 of the course since 1, checkpoint after step 8
         9 2023-11-14T22:13:51Z   JobEnded             job a: all epochs are done and saved
           -> a Succeeded (all epochs are done and saved), generation 2 of the course since 1, checkpoint after step 8
    ");
    let until = printed(&place.replay(&["--job", "a", "--until", "2"]), 0);
    assert!(until.contains("Submitted") && !until.contains("WorkerLost"), "{until}");
    let none = printed(&place.replay(&["--job", "c"]), 3);
    assert!(none.contains("no job `c`"), "{none}");
}

#[test]
fn a_damaged_record_is_named_and_those_before_it_are_shown() {
    let place = Place::new(story);
    let whole = std::fs::read(place.record(6)).unwrap();
    std::fs::write(place.record(6), &whole[..whole.len() - 5]).unwrap();
    let text = printed(&place.replay(&[]), 4);
    assert!(text.contains("JobResumed") && !text.contains("JobRequeued"), "{text}");
    assert!(text.contains("000000000006.rec") && text.contains("does not match its BLAKE3"), "{text}");
    std::fs::remove_file(place.record(6)).unwrap();
    let text = printed(&place.replay(&[]), 4);
    assert!(text.contains("JobResumed") && text.contains("is missing although later ones exist"), "{text}");
    printed(&place.replay(&["--until", "5"]), 0);
    let lines = place.replay(&["-o", "json"]);
    let last: serde_json::Value =
        serde_json::from_str(String::from_utf8_lossy(&lines.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((&last["kind"], &last["number"]), (&"damage".into(), &6.into()));
}

#[test]
fn a_trimmed_journal_begins_with_its_snapshot() {
    let place = Place::new(story);
    let records: Vec<_> = (0..).zip(story(&place).iter().map(|r| serde_json::to_vec(r).unwrap())).collect();
    place.append(&[Fold::of(&records).unwrap().snapshot(START + 40_000)]);
    place.runtime.block_on(trim(&place.state, 9)).unwrap();
    let text = printed(&place.replay(&[]), 0);
    assert!(text.contains("JobEnded") && text.contains("-> not known: the records before it are gone"), "{text}");
    assert!(
        text.contains("-> a Succeeded (all epochs are done and saved), generation 2 of the course since 1"),
        "{text}"
    );
    assert!(text.contains("-> b Queued, no checkpoint"), "{text}");
    let nothing = Place::new(|_| Vec::new());
    assert!(printed(&nothing.replay(&[]), 3).contains("has no journal"));
}
