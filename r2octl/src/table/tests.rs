//! Snapshots of what people see.

use r2o_proto::v1;

use super::*;

const NOW: i64 = 1_700_000_600_000;

fn job(name: &str, state: v1::JobState, step: u64) -> v1::Job {
    v1::Job {
        name: name.into(),
        state: state as i32,
        reason: if state == v1::JobState::Queued { "waits for 2 workers, 1 is there".into() } else { String::new() },
        spec: r#"{"apiVersion":"r2o.dev/v1","kind":"TrainJob","metadata":{"name":"demo","labels":{"team":"vision"}},
            "spec":{"seed":0,"epochs":12,"checkpoint":{"url":"file:///runs/demo"}}}"#
            .into(),
        generation: 3,
        steps: 400,
        steps_per_epoch: 33,
        workers: if step > 0 { vec!["alpha".into(), "beta".into()] } else { vec![] },
        progress: (step > 0).then(|| progress(step)),
        submitted_unix_ms: NOW - 600_000,
        started_unix_ms: if step > 0 { NOW - 590_000 } else { 0 },
        ended_unix_ms: 0,
        checkpoint_step: step / 33 * 33,
        report: String::new(),
        why: Some(match state {
            v1::JobState::Queued => why("TooFewWorkers", "waits for 2 workers, 1 is there", "start 1 more worker"),
            _ => why("Training", "trains on 2 workers", ""),
        }),
    }
}

fn why(word: &str, sentence: &str, hint: &str) -> v1::Reason {
    v1::Reason { word: word.into(), sentence: sentence.into(), hint: hint.into() }
}

fn progress(step: u64) -> v1::Progress {
    v1::Progress {
        job: "demo".into(),
        state: v1::JobState::Running as i32,
        step,
        steps: 400,
        epoch: step / 33 + 1,
        epochs: 12,
        k: 24,
        tau: 0.993_121,
        learning_rate: 0.042_13,
        loss: 1.234_56,
        images_per_second: 85.43,
        eta_seconds: 192.0,
        gradient_norm: 0.812,
        valid_regions: 17.25,
        generation: 3,
        reason: String::new(),
    }
}

fn event(reason: &str, message: &str, warning: bool) -> EventView {
    v1::Event { unix_ms: NOW - 1000, reason: reason.into(), message: message.into(), warning }.into()
}

fn views() -> Vec<JobView> {
    let jobs = [
        job("demo", v1::JobState::Running, 120),
        job("imagenet-300", v1::JobState::Queued, 0),
        job("old", v1::JobState::Failed, 7),
    ];
    jobs.map(JobView::from).into()
}

#[test]
fn jobs_in_lines() {
    insta::assert_snapshot!(jobs(&views(), NOW, false), @r"
    NAME          STATE    EPOCH     STEP   K   LOSS  IMAGES/S    ETA     AGE
    demo          Running   4/12  120/400  24  1.235     85.43  3m12s  10m00s
    imagenet-300  Queued       -    0/400   -      -         -      -  10m00s
    old           Failed    1/12    7/400  24  1.235     85.43      -  10m00s
    ");
    insta::assert_snapshot!(jobs(&views(), NOW, true), @r"
    NAME          STATE    EPOCH     STEP   K   LOSS  IMAGES/S    ETA     AGE  GENERATION  WORKERS     CHECKPOINT  REASON
    demo          Running   4/12  120/400  24  1.235     85.43  3m12s  10m00s  3           alpha,beta  99
    imagenet-300  Queued       -    0/400   -      -         -      -  10m00s  3           -           -           waits for 2 workers, 1 is there
    old           Failed    1/12    7/400  24  1.235     85.43      -  10m00s  3           alpha,beta  -
    ");
    insta::assert_snapshot!(jobs(&[], NOW, false), @"There are no jobs; `r2octl submit job.yaml` adds one.");
}

#[test]
fn a_job_described() {
    let events = [event("Submitted", "by r2octl", false), event("WorkerLost", "gamma broke its stream", true)];
    insta::assert_snapshot!(describe(&views()[0], &events, NOW), @r"
    Name:        demo
    Labels:      team=vision
    State:       Running
    Submitted:   2023-11-14T22:13:20Z (10m00s ago)
    Started:     2023-11-14T22:13:30Z
    Ended:       -
    Progress:    step 120/400, epoch 4/12, 30.0%
    Now:         K 24  tau 0.99312  lr 0.0421  loss 1.235  85.43 images/s  ETA 3m12s
    Gradient:    norm 0.8120, 17.25 valid regions an image
    Generation:  3 (workers: alpha, beta)
    Checkpoint:  after step 99
    Stored at:   file:///runs/demo
    Report:      not written yet

    Events:
      2023-11-14T22:23:19Z   Submitted              by r2octl
      2023-11-14T22:23:19Z ! WorkerLost             gamma broke its stream

    Spec:
      apiVersion: r2o.dev/v1
      kind: TrainJob
      metadata:
        labels:
          team: vision
        name: demo
      spec:
        checkpoint:
          url: file:///runs/demo
        epochs: 12
        seed: 0
    ");
}

#[test]
fn a_queued_job_described() {
    insta::assert_snapshot!(describe(&views()[1], &[], NOW), @r"
    Name:        imagenet-300
    Labels:      team=vision
    State:       Queued (waits for 2 workers, 1 is there)
    Try:         start 1 more worker
    Submitted:   2023-11-14T22:13:20Z (10m00s ago)
    Started:     -
    Ended:       -
    Progress:    step 0/400, epoch -, 0.0%
    Generation:  3 (workers: none)
    Checkpoint:  none yet
    Stored at:   file:///runs/demo
    Report:      not written yet

    Events:
      none

    Spec:
      apiVersion: r2o.dev/v1
      kind: TrainJob
      metadata:
        labels:
          team: vision
        name: demo
      spec:
        checkpoint:
          url: file:///runs/demo
        epochs: 12
        seed: 0
    ");
}

#[test]
fn a_job_for_programs() {
    let mut view = views().remove(0);
    view.spec = Value::Null;
    insta::assert_snapshot!(serde_json::to_string_pretty(&view).unwrap(), @r#"
    {
      "name": "demo",
      "state": "Running",
      "reason": "",
      "why": {
        "word": "Training",
        "sentence": "trains on 2 workers",
        "hint": null
      },
      "generation": 3,
      "steps": 400,
      "stepsPerEpoch": 33,
      "workers": [
        "alpha",
        "beta"
      ],
      "progress": {
        "job": "demo",
        "state": "Running",
        "step": 120,
        "steps": 400,
        "epoch": 4,
        "epochs": 12,
        "k": 24,
        "tau": 0.993121,
        "learningRate": 0.04213,
        "loss": 1.23456,
        "imagesPerSecond": 85.43,
        "etaSeconds": 192.0,
        "gradientNorm": 0.812,
        "validRegions": 17.25,
        "generation": 3,
        "reason": ""
      },
      "submittedAt": "2023-11-14T22:13:20Z",
      "startedAt": "2023-11-14T22:13:30Z",
      "endedAt": null,
      "checkpointStep": 99,
      "report": null,
      "spec": null
    }
    "#);
    insta::assert_snapshot!(crate::output::yaml(&view).unwrap(), @r#"
    name: demo
    state: Running
    reason: ""
    why:
      word: Training
      sentence: trains on 2 workers
      hint: null
    generation: 3
    steps: 400
    stepsPerEpoch: 33
    workers:
    - alpha
    - beta
    progress:
      job: demo
      state: Running
      step: 120
      steps: 400
      epoch: 4
      epochs: 12
      k: 24
      tau: 0.993121
      learningRate: 0.04213
      loss: 1.23456
      imagesPerSecond: 85.43
      etaSeconds: 192.0
      gradientNorm: 0.812
      validRegions: 17.25
      generation: 3
      reason: ""
    submittedAt: "2023-11-14T22:13:20Z"
    startedAt: "2023-11-14T22:13:30Z"
    endedAt: null
    checkpointStep: 99
    report: null
    spec: null
    "#);
}

#[test]
fn progress_in_a_line() {
    let view = ProgressView::from(progress(120));
    insta::assert_snapshot!(crate::watching::line(&view), @"Running   epoch 4/12  step 120/400  K 24  tau 0.99312  lr 0.0421  loss 1.235  85.43 images/s  ETA 3m12s");
    let waiting = v1::Progress {
        state: v1::JobState::Queued as i32,
        reason: "waits for workers".into(),
        steps: 400,
        epochs: 12,
        ..Default::default()
    };
    insta::assert_snapshot!(crate::watching::line(&waiting.into()), @"Queued    epoch 0/12  step 0/400  waits for workers");
}

#[test]
fn workers_in_lines() {
    let worker = |name: &str, job: &str, lanes: Vec<u32>| v1::Worker {
        name: name.into(),
        device: "cpu".into(),
        address: "10.0.0.7".into(),
        state: if job.is_empty() { "idle".into() } else { "training".into() },
        job: job.into(),
        version: "0.1.0".into(),
        threads: 2,
        lanes,
    };
    let fleet = [worker("alpha", "demo", vec![0, 1, 2, 7]), worker("beta", "", vec![])].map(WorkerView::from);
    insta::assert_snapshot!(workers(&fleet, false), @r"
    NAME   STATE     JOB   LANES  DEVICE  THREADS
    alpha  training  demo  0-2,7  cpu           2
    beta   idle      -     -      cpu           2
    ");
    insta::assert_snapshot!(workers(&fleet, true), @r"
    NAME   STATE     JOB   LANES  DEVICE  THREADS  ADDRESS   VERSION
    alpha  training  demo  0-2,7  cpu           2  10.0.0.7  0.1.0
    beta   idle      -     -      cpu           2  10.0.0.7  0.1.0
    ");
    insta::assert_snapshot!(workers(&[], true), @"There are no workers; start `r2o-worker --coordinator URL` on each machine.");
}

#[test]
fn checkpoints_in_lines() {
    let whole = CheckpointView {
        step: 33,
        epoch: Some(1),
        generation: Some(2),
        tensors: Some(310),
        bytes: Some(140 << 20),
        created_at: None,
        damage: None,
        created_unix_ms: NOW - 60_000,
    };
    let damaged = CheckpointView::damaged(66, "its seal does not match".into());
    insta::assert_snapshot!(checkpoints("file:///runs/demo", &[whole, damaged], NOW), @r"
    STEP  EPOCH  GENERATION  TENSORS       SIZE    AGE  MANIFEST
      33      1           2      310  140.0 MiB  1m00s  ok
      66      -           -        -          -      -  its seal does not match
    ");
    insta::assert_snapshot!(checkpoints("file:///runs/demo", &[], NOW), @"There are no checkpoints under file:///runs/demo.");
}

#[test]
fn verification_names_every_bad_tensor() {
    let bad = crate::view::BadTensorView {
        tensor: "predictor.fc1.weight".into(),
        object: "objects/ab12".into(),
        damage: "truncated to 3 of 4 bytes".into(),
    };
    let found = [
        VerifyView { step: 33, ok: true, tensors: 310, bytes: 140 << 20, bad: vec![], damage: None },
        VerifyView { step: 66, ok: false, tensors: 310, bytes: 139 << 20, bad: vec![bad], damage: None },
        VerifyView {
            step: 99,
            ok: false,
            tensors: 0,
            bytes: 0,
            bad: vec![],
            damage: Some("manifest cut short".into()),
        },
    ];
    insta::assert_snapshot!(verified(&found), @r"
    STEP  TENSORS       READ  RESULT
      33      310  140.0 MiB  ok
      66      310  139.0 MiB  1 damaged
      99        0        0 B  manifest damaged
    step 66: predictor.fc1.weight: truncated to 3 of 4 bytes (objects/ab12)
    step 99: manifest cut short
    ");
}
