//! The real program against a coordinator that lives in the test: what it prints, and how it exits.

#![allow(clippy::unwrap_used)]

#[path = "cli/fake.rs"]
mod fake;

use std::process::{Command, Output, Stdio};

use fake::{Fake, Script};
use r2o_proto::v1::JobState;

/// Runs r2octl against `url`; no variable of the caller's leaks in.
fn r2octl(url: &str, args: &[&str]) -> Output {
    command(url, args).output().unwrap()
}

fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_r2octl"));
    command.args(args).env("R2O_COORDINATOR", url).env_remove("R2O_LOG").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What was printed, when it exits with `code`.
#[track_caller]
fn printed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    text(if code == 0 { &output.stdout } else { &output.stderr })
}

const JOB: &str = "apiVersion: r2o.dev/v1\nkind: TrainJob\nmetadata: {name: demo}\nspec: {data: {url: file:///data}}\n";

#[test]
fn jobs_are_submitted_from_files_and_from_the_standard_input() {
    let fake = Fake::start(Script::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.yaml");
    std::fs::write(&file, JOB).unwrap();
    let file = file.to_str().unwrap();
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["submit", "-f", file]), 0), @"job `demo` submitted");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["submit", "-f", file, "--dry-run"]), 0), @"job `demo` valid (nothing was submitted)");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["submit", file]), 0), @"job `demo` already there, unchanged");
    let mut child = command(&fake.url, &["submit", "-f", "-", "-o", "json"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), JOB.replace("demo", "other").as_bytes()).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((answer["created"].as_bool(), answer["job"]["name"].as_str()), (Some(true), Some("other")));
}

#[test]
fn a_misspelt_field_is_refused_with_its_path_and_no_coordinator_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.yaml");
    let submit = |job: String| {
        std::fs::write(&file, job).unwrap();
        printed(&r2octl("http://127.0.0.1:1", &["submit", file.to_str().unwrap()]), 4)
    };
    let error = submit(JOB.replace("spec: {", "spec: {epoch: 3, "));
    assert!(error.contains("epoch") && error.contains("job.yaml is not a valid job"), "{error}");
    let error = submit(JOB.replace("file:///data", "file:///data, imageSize: 100"));
    assert!(error.contains("imageSize") && error.contains("32"), "{error}");
    let error = submit(JOB.replace("spec: {", "spec: {batch: {samplesPerLane: 1}, "));
    assert!(error.contains("128"), "K is larger than the regions of a lane: {error}");
    assert!(printed(&r2octl("http://127.0.0.1:1", &["submit", "-f", "no.yaml"]), 3).contains("no.yaml"));
}

#[test]
fn tables_and_documents_of_jobs() {
    let fake = Fake::start(Script::running());
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["list"]), 0), @r"
    NAME  STATE    EPOCH   STEP   K   LOSS  IMAGES/S    ETA  AGE
    demo  Running    1/2  20/66  24  1.500     80.00  1m01s    -
    ");
    let jobs: serde_json::Value = serde_json::from_str(&printed(&r2octl(&fake.url, &["ls", "-o", "json"]), 0)).unwrap();
    assert_eq!(jobs[0]["progress"]["k"], 24);
    let yaml = printed(&r2octl(&fake.url, &["get", "demo", "-o", "yaml"]), 0);
    assert!(yaml.contains("name: demo") && yaml.contains("learningRate: "), "{yaml}");
    let described = printed(&r2octl(&fake.url, &["describe", "demo"]), 0);
    assert!(described.contains("GenerationOpened") && described.contains("Spec:"), "{described}");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["fleet"]), 0), @r"
    NAME   STATE     JOB   LANES  DEVICE  THREADS
    alpha  training  demo  0-2    cpu           2
    ");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["events", "demo"]), 0), @r"
    2023-11-14T22:13:20Z   GenerationOpened       generation 1 with 1 worker
    2023-11-14T22:13:20Z ! WorkerLost             beta missed its lease
    ");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["logs", "demo", "--tail", "1", "-o", "wide"]), 0), @"2023-11-14T22:13:20Z INFO  alpha r2o_engine: two threads");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["logs", "demo", "-o", "json"]), 0), @r#"{"time":"2023-11-14T22:13:20Z","unixMs":1700000000000,"worker":"alpha","level":"INFO","target":"r2o_engine","message":"two threads"}"#);
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["checkpoint", "demo"]), 0), @"checkpoint of job `demo` after step 120: manifests/000000000120.json");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["cancel", "demo", "--reason", "enough"]), 0), @"job `demo` is cancelled");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["pause", "demo", "--reason", "enough"]), 0), @"job `demo` is paused until `r2octl resume`: enough");
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["requeue", "demo"]), 0), @"job `demo` waits for workers: the free ones are kept for job b, which is ahead");
    let refused = r2octl(&fake.url, &["resume", "demo"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("job demo is not paused: it trains on 2 workers"));
}

#[test]
fn why_says_what_a_job_waits_for_and_what_to_do() {
    let why = |state| {
        let fake = Fake::start(Script { states: vec![(state, 20)], breaks: 0 });
        printed(&r2octl(&fake.url, &["why", "demo"]), 0)
    };
    insta::assert_snapshot!(why(JobState::Queued), @r"
    job `demo` waits for workers: none is connected and the job needs at least 2
      try: start `r2o-worker run --coordinator URL` on each machine
    ");
    insta::assert_snapshot!(why(JobState::Running), @"job `demo` trains on 1 worker");
    insta::assert_snapshot!(why(JobState::Failed), @r"
    job `demo` failed: loss is NaN at step 66, lane 3
      try: mend the cause
    ");
    insta::assert_snapshot!(why(JobState::Cancelled), @"job `demo` was cancelled: enough");
    insta::assert_snapshot!(why(JobState::Succeeded), @"job `demo` succeeded: all epochs are done and saved");
    let fake = Fake::start(Script { states: vec![(JobState::Queued, 0)], breaks: 0 });
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["why", "demo", "-o", "json"]), 0), @r#"
    {
      "job": "demo",
      "state": "Queued",
      "word": "NoWorkers",
      "sentence": "waits for workers: none is connected and the job needs at least 2",
      "hint": "start `r2o-worker run --coordinator URL` on each machine"
    }
    "#);
    printed(&r2octl(&fake.url, &["why", "nope"]), 3);
}

#[test]
fn watching_prints_plain_lines_without_a_terminal() {
    let fake = Fake::start(Script::ending(JobState::Succeeded));
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["watch", "demo", "--interval", "0"]), 0), @r"
    Queued    epoch 0/2  step 0/66
    Running   epoch 0/2  step 0/66
    Running   epoch 1/2  step 1/66  K 24  tau 0.99000  lr 0.0500  loss 1.500  80.00 images/s  ETA 1m01s
    Running   epoch 1/2  step 33/66  K 24  tau 0.99000  lr 0.0500  loss 1.500  80.00 images/s  ETA 1m01s
    Running   epoch 2/2  step 34/66  K 24  tau 0.99000  lr 0.0500  loss 1.500  80.00 images/s  ETA 1m01s
    Succeeded epoch 2/2  step 66/66  K 24  tau 0.99000  lr 0.0500  loss 1.500  80.00 images/s  ETA -
    ");
    let lines = printed(&r2octl(&fake.url, &["watch", "demo", "-o", "json"]), 0);
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["state"], "Succeeded");
}

/// `script` of util-linux gives the program a terminal.
#[test]
fn watching_draws_a_bar_on_a_terminal() {
    if !Command::new("script").arg("--version").output().is_ok_and(|out| out.status.success()) {
        println!("not run: progress bar on a terminal: needs `script` (util-linux)");
        return;
    }
    let fake = Fake::start(Script::ending(JobState::Succeeded));
    let watch = format!("stty cols 160; {} watch demo", env!("CARGO_BIN_EXE_r2octl"));
    let mut command = Command::new("script");
    command.args(["-qec", &watch, "/dev/null"]).env("R2O_COORDINATOR", &fake.url).stdin(Stdio::null());
    let output = command.output().unwrap();
    let screen = printed(&output, 0);
    assert!(screen.contains("demo Running") && screen.contains("step 0/66"), "{screen}");
    assert!(screen.contains("Succeeded epoch 2/2  step 66/66"), "the last line stays: {screen}");
}

#[test]
fn a_watched_job_that_fails_has_its_own_exit_code() {
    let fake = Fake::start(Script::ending(JobState::Failed));
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["watch", "demo"]), 6), @r"
    error: job `demo` failed: loss is NaN at step 66, lane 3
      try: `r2octl describe demo` and `r2octl logs demo` say more
    ");
    let fake = Fake::start(Script::ending(JobState::Cancelled));
    printed(&r2octl(&fake.url, &["watch", "demo"]), 6);
}

#[test]
fn watching_outlives_a_broken_stream() {
    let fake = Fake::start(Script { breaks: 2, ..Script::ending(JobState::Succeeded) });
    let lines = printed(&r2octl(&fake.url, &["watch", "demo", "--interval", "0"]), 0);
    assert!(lines.lines().last().unwrap().starts_with("Succeeded"), "{lines}");
    assert_eq!(fake.watches(), 3);
}

#[test]
fn what_cannot_be_reached_or_found_is_said_so() {
    let nobody = "http://127.0.0.1:1";
    let error = printed(&r2octl(nobody, &["list"]), 5);
    assert!(error.contains("cannot reach the coordinator at http://127.0.0.1:1") && error.contains("--coordinator"));
    assert!(printed(&r2octl(nobody, &["watch", "demo"]), 5).contains("cannot reach"));
    let fake = Fake::start(Script::default());
    insta::assert_snapshot!(printed(&r2octl(&fake.url, &["get", "nope"]), 3), @r"
    error: job `nope`: there is no job `nope`
      try: `r2octl list` shows the jobs of this coordinator
    ");
    assert!(printed(&r2octl(&fake.url, &["watch", "nope"]), 3).contains("nope"));
    printed(&r2octl(&fake.url, &["frobnicate"]), 2);
    printed(&r2octl(&fake.url, &["logs", "demo", "--tail", "x"]), 2);
}

#[test]
fn what_needs_no_coordinator() {
    let nobody = "http://127.0.0.1:1";
    let schema: serde_json::Value = serde_json::from_str(&printed(&r2octl(nobody, &["schema"]), 0)).unwrap();
    assert!(schema["properties"]["spec"].is_object());
    assert!(printed(&r2octl(nobody, &["completion", "bash"]), 0).contains("_r2octl"));
    assert!(printed(&r2octl(nobody, &["completion", "zsh"]), 0).contains("checkpoints"));
    insta::assert_snapshot!(printed(&r2octl(nobody, &["version"]), 0), @r"
    r2octl:            0.1.0
    job API:           r2o.dev/v1
    protocol:          r2o.v1
    checkpoint format: 1
    ");
}
