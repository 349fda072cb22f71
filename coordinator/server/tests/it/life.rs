//! Lives of jobs over the wire.

use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::*;
use r2o_storage::{checkpoint, history, ledger, open, run};

use super::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_trains_to_its_end_and_leaves_everything_behind() {
    let place = Place::new();
    let handle = place.start().await;
    let submitted = submit(&handle, &place.job("a", 2)).await.unwrap();
    assert!(submitted.created);
    assert_eq!(submitted.job.unwrap().steps, 8);
    FakeWorker::join(&handle, "w").await.work();

    let last = until(&handle, "a", |p| p.state() == JobState::Succeeded).await;
    assert_eq!((last.step, last.epoch, last.epochs), (8, 2, 2));
    assert!((last.loss - 1.0 / 8.0).abs() < 1e-12, "{last:?}");

    // All of it is there the moment that the job has succeeded.
    let store = open(&text(&place.path("a"))).unwrap();
    let steps = history::read_all(&store).await.unwrap();
    assert_eq!(steps.iter().map(|s| s.step).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!((steps[0].images, steps[0].timings["forward"]), (8, 0.25));
    assert!(steps[0].lanes.is_empty(), "lanes are in the history only where workers audit");
    let ledger = ledger::read_all(&store).await.unwrap();
    assert_eq!(ledger.iter().map(|r| (r.step, r.steps, r.epoch)).collect::<Vec<_>>(), [(0, 4, 0), (4, 4, 1)]);
    let proven = proven(&place, "a", 8).await;
    assert_eq!(proven.iter().map(|e| (e.samples, e.left_out)).collect::<Vec<_>>(), [(32, 3), (32, 3)]);
    let manifests = checkpoint::list(&store).await.unwrap();
    assert_eq!(manifests.iter().map(|m| m.step).collect::<Vec<_>>(), [4, 8]);
    assert!(checkpoint::verify(&store, 8).await.unwrap().bad.is_empty());
    assert!(run::read_events(&store).await.unwrap().iter().any(|e| e.reason == "Succeeded"));
    assert!(store.get(run::REPORT).await.unwrap().starts_with(b"<!DOCTYPE html>"));
    let job = get(&handle, "a").await;
    assert!(job.report.ends_with("/a/report.html"), "{}", job.report);
    assert_eq!(job.checkpoint_step, 8);
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_lanes_and_a_lost_one_is_done_without() {
    let place = Place::new();
    let handle = place.start().await;
    let mut job = place.job("a", 50);
    job["spec"]["fleet"] = serde_json::json!({"minWorkers": 1, "maxWorkers": 2});
    submit(&handle, &job).await.unwrap();
    let (mut first, mut second) = (FakeWorker::join(&handle, "w1").await, FakeWorker::join(&handle, "w2").await);
    first.work_until(|o| matches!(o, To::Assignment(_))).await;
    second.work_until(|o| matches!(o, To::Assignment(_))).await;
    assert_eq!(first.assignments[0].members.len(), 2);
    assert_eq!((&first.lanes[..], &second.lanes[..]), (&[0][..], &[1][..]));
    let workers = jobs(&handle).await.fleet(FleetRequest {}).await.unwrap().into_inner().workers;
    assert_eq!(workers.iter().map(|w| w.job.as_str()).collect::<Vec<_>>(), ["a", "a"]);

    drop(second);
    first.work_until(|o| matches!(o, To::Assignment(a) if a.generation == 2)).await;
    assert_eq!(first.lanes, [0, 1]);
    first.work();
    until(&handle, "a", |p| p.step >= 12).await;
    assert!(events(&handle, "a").await.iter().any(|e| e.reason == "WorkerLost" && e.warning));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_on_request_is_answered_when_it_is_committed() {
    let place = Place::new();
    let handle = place.start().await;
    let mut job = place.job("a", 1000);
    job["spec"]["checkpoint"]["every"]["epochs"] = 1000.into();
    submit(&handle, &job).await.unwrap();
    FakeWorker::join(&handle, "w").await.work();
    until(&handle, "a", |p| p.step > 0).await;
    let taken = jobs(&handle).await.checkpoint(CheckpointRequest { name: "a".into() }).await.unwrap().into_inner();
    let store = open(&text(&place.path("a"))).unwrap();
    assert!(checkpoint::verify(&store, taken.step).await.unwrap().bad.is_empty());
    names(&taken.manifest, &["/a/manifests/", &taken.step.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_stopped_for_good_and_goes_on_when_submitted_again() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 3)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| is_ticket(o, 6)).await;
    event(&handle, "a", "CheckpointCommitted").await;
    let request = CancelRequest { name: "a".into(), reason: "half-way".into() };
    let cancelled = jobs(&handle).await.cancel(request).await.unwrap().into_inner();
    assert_eq!((cancelled.state(), cancelled.reason.as_str()), (JobState::Cancelled, "cancelled: half-way"));
    let step = cancelled.checkpoint_step;
    assert!(step >= 4, "{step}");

    let again = submit(&handle, &place.job("a", 3)).await.unwrap();
    assert!(again.created);
    worker.work_until(|o| matches!(o, To::Assignment(a) if a.step > 0)).await;
    let assignment = worker.assignments.last().unwrap();
    assert_eq!(assignment.step, step);
    assert_eq!(assignment.manifest, format!("manifests/{step:012}.json"));
    worker.work();
    until(&handle, "a", |p| p.state() == JobState::Succeeded).await;
    let unchanged = submit(&handle, &place.job("a", 3)).await.unwrap();
    assert!(!unchanged.created, "a job that has succeeded is there already");
    let more = submit(&handle, &place.job("a", 4)).await.unwrap();
    assert!(more.created, "with more epochs it goes on");
    until(&handle, "a", |p| p.state() == JobState::Succeeded && p.step == 16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_notices_of_workers_can_be_read() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 1000)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| matches!(o, To::Assignment(_))).await;
    let line = LogLine { level: "INFO".into(), message: "hello".into(), unix_ms: 5, ..LogLine::default() };
    worker.say(Kind::LogLine(line));
    let notice = Notice { job: "a".into(), reason: "GalleryFailed".into(), message: "no png".into() };
    worker.say(Kind::Notice(notice));
    let request = LogsRequest { name: "a".into(), follow: true, tail: 0 };
    let mut logs = jobs(&handle).await.logs(request).await.unwrap().into_inner();
    let first = logs.message().await.unwrap().unwrap();
    assert_eq!((first.worker.as_str(), first.message.as_str()), ("w", "hello"));
    let event = event(&handle, "a", "GalleryFailed").await;
    assert!(event.warning);
    names(&event.message, &["worker w", "no png"]);
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_at_fault_fails_with_the_workers_words_when_it_did_so_three_times() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 10)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    for generation in 1..=3 {
        worker.work_until(|o| matches!(o, To::Ticket(t) if t.generation == generation)).await;
        let reason = "shard-000000.tar, sample 7 is truncated".to_owned();
        worker.say(Kind::JobFailed(JobFailed { job: "a".into(), generation, step: 2, reason }));
    }
    let last = until(&handle, "a", |p| p.state() == JobState::Failed).await;
    names(&last.reason, &["step 2", "worker w", "shard-000000.tar, sample 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_costs_checkpoints_but_not_the_run() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 3)).await.unwrap();
    // A file where the folder of objects should be: nothing can be written there.
    std::fs::create_dir_all(place.path("a")).unwrap();
    std::fs::write(place.path("a").join("objects"), "").unwrap();
    FakeWorker::join(&handle, "w").await.work();
    until(&handle, "a", |p| p.step == 12).await;
    until(&handle, "a", |p| p.reason.contains("cannot be written")).await;
    let failed = event(&handle, "a", "CheckpointFailed").await;
    assert!(failed.warning);
    names(&failed.message, &["/a/objects", "worker w"]);
    std::fs::remove_file(place.path("a").join("objects")).unwrap();
    until(&handle, "a", |p| p.state() == JobState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_be_written_waits_and_is_whole_in_the_end() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 3)).await.unwrap();
    std::fs::create_dir_all(place.path("a")).unwrap();
    std::fs::write(place.path("a").join("ledger"), "").unwrap();
    FakeWorker::join(&handle, "w").await.work();
    let failed = event(&handle, "a", "HistoryNotWritten").await;
    names(&failed.message, &["/a/ledger"]);
    event(&handle, "a", "CheckpointFailed").await;
    let why = event(&handle, "a", "CheckpointsFail").await;
    assert_eq!(why.message, until(&handle, "a", |p| p.reason == why.message).await.reason);
    let store = open(&text(&place.path("a"))).unwrap();
    assert!(checkpoint::list(&store).await.unwrap().is_empty(), "no checkpoint goes further than the ledger");
    std::fs::remove_file(place.path("a").join("ledger")).unwrap();
    until(&handle, "a", |p| p.state() == JobState::Succeeded).await;
    assert_eq!(proven(&place, "a", 12).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_process_of_a_worker_wins_and_the_older_is_refused() {
    let place = Place::new();
    let handle = place.start().await;
    let mut old = FakeWorker::join(&handle, "w").await;
    let _new = FakeWorker::join(&handle, "w").await;
    old.work_until(|o| matches!(o, To::Refused(r) if r.reason.contains("worker w"))).await;
    assert!(old.obey().await.is_none(), "its stream ends");
}
