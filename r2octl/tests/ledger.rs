//! `ledger` on a run's folder: what is proven, and that each kind of damage is named.

#![allow(clippy::unwrap_used)]

#[path = "kit/output.rs"]
mod output;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use output::printed;
use r2o_storage::checkpoint::{Manifest, TensorEntry, commit, write_object};
use r2o_storage::history::{LaneRecord, StepRecord, append_segment};
use r2o_storage::ledger::{Range, Segment, read_all, write_segment};
use r2o_storage::shard::{ChunkEntry, FORMAT, PackedPrior, SetIndex, ShardEntry, write_set};
use r2o_storage::{Store, open, run};
use r2o_types::{EpochPlan, TrainJob, sample_digest};
use serde_json::json;

/// Samples of the set; with 3 lanes of 4 an epoch has 8 steps.
const SAMPLES: u32 = 100;
const PER_EPOCH: u64 = 8;

/// A run of two epochs: generation 1 got to step 7, generation 2 went back to step 5 and on to the end.
struct Run {
    folder: tempfile::TempDir,
    store: Store,
    job: TrainJob,
    set: SetIndex,
    runtime: tokio::runtime::Runtime,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = open(&folder.path().join("run").display().to_string()).unwrap();
        let set = set();
        let url = folder.path().join("set").display().to_string();
        let job = json!({
            "apiVersion": "r2o.dev/v1", "kind": "TrainJob", "metadata": {"name": "demo"},
            "spec": {
                "seed": 7, "epochs": 2, "data": {"url": url, "shuffleWindowChunks": 3},
                "batch": {"lanes": 3, "samplesPerLane": 4, "normGroupLanes": 3},
                "optimizer": {"warmupEpochs": 0},
            }
        });
        let job = TrainJob::parse(&job.to_string()).unwrap();
        let run = Self { folder, store, job, set, runtime };
        run.runtime.block_on(async {
            write_set(&open(&url).unwrap(), &run.set).await.unwrap();
            run::write_job(&run.store, &serde_json::to_value(&run.job).unwrap()).await.unwrap();
            for (generation, steps) in [(1, 0..7), (2, 5..16)] {
                let records: Vec<_> = steps.map(|step| run.record(generation, step)).collect();
                write_segment(&run.store, &fold(&records)).await.unwrap();
            }
            checkpoint(&run.store, 16).await;
        });
        run
    }

    fn url(&self) -> String {
        self.folder.path().join("run").display().to_string()
    }

    fn record(&self, generation: u64, step: u64) -> StepRecord {
        let (epoch, at) = (step / PER_EPOCH, step % PER_EPOCH);
        let plan = EpochPlan::new(&self.set.chunks(), 7, epoch, 3, 4, 3).unwrap();
        let lane = |lane| LaneRecord {
            lane,
            first_position: plan.first_position(at, lane),
            sample_digest: sample_digest(&plan.samples(at, lane)),
            pixel_digest: 1,
            ..LaneRecord::default()
        };
        StepRecord { step, epoch, generation, lanes: (0..3).map(lane).collect(), ..StepRecord::default() }
    }

    /// Writes the last generation's ranges again as `change` leaves them, with a right checksum.
    fn damage(&self, change: impl Fn(&mut Vec<Range>)) {
        self.runtime.block_on(async {
            let mut ranges = read_all(&self.store).await.unwrap();
            ranges.retain(|range| range.generation == 2);
            change(&mut ranges);
            write_segment(&self.store, &ranges).await.unwrap();
        });
    }

    fn segment(&self, first: u64, generation: u64) -> PathBuf {
        self.folder.path().join(format!("run/ledger/{first:012}-{generation}.jsonl"))
    }

    fn verify(&self) -> Output {
        r2octl(&["ledger", "verify", &self.url()])
    }
}

fn set() -> SetIndex {
    let chunk = |n: u64| ChunkEntry { offset: n * 10, bytes: 10, samples: SAMPLES / 10, blake3: "00".into() };
    let shard = ShardEntry {
        file: "shard-000000.tar".into(),
        bytes: 100,
        blake3: "00".into(),
        index: "shard-000000.json".into(),
        index_blake3: "00".into(),
        chunks: (0..10).map(chunk).collect(),
    };
    let prior = PackedPrior { segments: 100, size: 224, definition: "slic".into() };
    SetIndex { format: FORMAT, prior, classes: Vec::new(), shards: vec![shard] }
}

fn fold(records: &[StepRecord]) -> Vec<Range> {
    let mut segment = Segment::default();
    for record in records {
        assert!(segment.add(record, 1_700_000_000_000 + record.step as i64 * 1000));
    }
    segment.ranges().to_vec()
}

async fn checkpoint(store: &Store, step: u64) {
    let object = write_object(store, format!("{step:08}")).await.unwrap();
    let (name, dtype, blake3) = ("t".to_owned(), "U8".to_owned(), object.to_string());
    let manifest = Manifest {
        format: Manifest::FORMAT,
        job: "demo".into(),
        step,
        epoch: step / PER_EPOCH,
        generation: 2,
        spec: json!({}),
        tensors: vec![TensorEntry { name, dtype, shape: vec![8], blake3, bytes: 8 }],
        created_unix_ms: 1_700_000_000_000,
        versions: BTreeMap::new(),
    };
    commit(store, &manifest).await.unwrap();
}

fn r2octl(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_r2octl"));
    command.args(args).env("R2O_COORDINATOR", "http://127.0.0.1:1").output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, things: &[&str]) {
    let text = printed(output, code);
    for thing in things {
        assert!(text.contains(thing), "`{thing}` is not in: {text}");
    }
}

#[test]
fn a_run_with_a_roll_back_is_proven_from_its_folder_alone() {
    let run = Run::new();
    insta::assert_snapshot!(printed(&run.verify(), 0), @r"
    EPOCH  STEPS  SAMPLES  LEFT OUT  GENERATIONS
        0    8/8       96         4  1-2
        1    8/8       96         4  2
    exactly once: job `demo`, 16 steps over 2 epochs, 192 samples of a set of 100; the newest checkpoint is after step 16
    ");
    let found: serde_json::Value =
        serde_json::from_str(&printed(&r2octl(&["ledger", "verify", &run.url(), "-o", "json"]), 0)).unwrap();
    assert_eq!((&found["exactlyOnce"], &found["epochs"][0]["generations"]), (&json!(true), &json!([1, 2])));
    let text = printed(&r2octl(&["ledger", "show", &run.url()]), 0);
    let columns = |line: &str| line.split_whitespace().take(6).map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = text.lines().skip(1).map(columns).collect();
    assert_eq!(
        rows,
        [["0-4", "0", "1", "3", "4", "2"], ["5-7", "0", "2", "3", "4", "0"], ["8-15", "1", "2", "3", "4", "0"]]
    );
}

#[test]
fn planted_damage_is_named_and_has_its_own_exit_code() {
    let run = Run::new();
    run.damage(|ranges| _ = ranges.pop());
    says(&run.verify(), 8, &["step 8: no range of the ledger has it; missing from there on: 8", "try: "]);
    let found = r2octl(&["ledger", "verify", &run.url(), "-o", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((&found["exactlyOnce"], &found["flaw"]["step"]), (&json!(false), &json!(8)));

    let run = Run::new();
    run.damage(|ranges| ranges.push(ranges[1].clone()));
    says(&run.verify(), 8, &["step 8: it is in two ranges, of generations 2 and 2"]);

    let run = Run::new();
    run.damage(|ranges| ranges[1].lanes.swap(1, 2));
    says(&run.verify(), 8, &["step 8, lane 1: the ledger has lane 2 where the plan has lane 1"]);

    let run = Run::new();
    run.damage(|ranges| ranges[1].digest ^= 1);
    says(&run.verify(), 8, &["step 8: the samples of steps 8 to 15 are not those of the plan"]);
}

#[test]
fn a_lane_that_read_other_samples_is_named_where_the_history_has_it() {
    let run = Run::new();
    let mut records: Vec<_> = (5..16).map(|step| run.record(2, step)).collect();
    records[6].lanes[2].sample_digest ^= 1;
    run.runtime.block_on(async {
        append_segment(&run.store, 2, &records).await.unwrap();
        write_segment(&run.store, &fold(&records)).await.unwrap();
    });
    says(&run.verify(), 8, &["step 11, lane 2: its samples are not those of the plan"]);
}

#[test]
fn a_cut_or_lost_object_is_named() {
    let run = Run::new();
    let whole = std::fs::read(run.segment(5, 2)).unwrap();
    std::fs::write(run.segment(5, 2), &whole[..whole.len() - 40]).unwrap();
    says(&run.verify(), 8, &["ledger/000000000005-2.jsonl is damaged", "was cut or changed"]);
    says(&r2octl(&["ledger", "show", &run.url()]), 4, &["ledger/000000000005-2.jsonl is damaged"]);
    std::fs::remove_file(run.segment(5, 2)).unwrap();
    says(&run.verify(), 8, &["step 7: no range of the ledger has it; missing from there on: 1"]);
}

#[test]
fn another_data_set_than_that_of_the_run_is_not_proven() {
    let run = Run::new();
    let mut other = set();
    other.shards[0].chunks.swap(0, 1);
    other.shards[0].chunks[0] = ChunkEntry { samples: 20, offset: 0, ..other.shards[0].chunks[0].clone() };
    other.shards[0].chunks.remove(1);
    run.runtime.block_on(write_set(&open(&run.job.spec.data.url).unwrap(), &other)).unwrap();
    says(&run.verify(), 8, &["step 0: the samples of steps 0 to 6", "packed again"]);
}

#[test]
fn what_is_not_there_is_said_so() {
    let nothing = tempfile::tempdir().unwrap();
    let url = nothing.path().display().to_string();
    says(&r2octl(&["ledger", "verify", &url]), 3, &["holds no run"]);
    says(&r2octl(&["ledger", "show", &url]), 0, &["There is no ledger"]);
    says(&r2octl(&["ledger", "verify", "demo"]), 5, &["./demo"]);
    let run = Run::new();
    std::fs::remove_dir_all(Path::new(&run.job.spec.data.url)).unwrap();
    says(&run.verify(), 3, &["no data set at"]);
}
