//! A coordinator that was stopped or killed costs nothing but time.

use r2o_coordinator::{Ended, Service};
use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::*;
use r2o_storage::{history, open};

use super::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_resumes_from_its_checkpoint_under_a_new_generation() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("done", 1)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| matches!(o, To::Release(_))).await;
    let done = until(&handle, "done", |p| p.state() == JobState::Succeeded).await;
    submit(&handle, &place.job("a", 3)).await.unwrap();
    worker.work_until(|o| is_ticket(o, 6)).await;
    event(&handle, "a", "CheckpointCommitted").await;
    until(&handle, "a", |p| p.step >= 6).await;
    handle.shutdown().await;

    let handle = place.start().await;
    let again = get(&handle, "done").await;
    assert_eq!(again.state(), JobState::Succeeded);
    let seen = |p: &Progress| (p.step, p.k, p.tau, p.learning_rate, p.loss, p.gradient_norm, p.valid_regions);
    assert_eq!(seen(&again.progress.unwrap()), seen(&done), "what it came to is still shown");
    assert!(done.k > 0);
    assert_eq!(get(&handle, "a").await.state(), JobState::Queued);
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| matches!(o, To::Assignment(_))).await;
    assert_eq!((worker.assignments[0].generation, worker.assignments[0].step), (3, 4));
    worker.work();
    until(&handle, "a", |p| p.state() == JobState::Succeeded).await;
    let steps = history::read_all(&open(&text(&place.path("a"))).unwrap()).await.unwrap();
    assert_eq!(steps.iter().map(|s| s.step).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    assert_eq!((steps[3].generation, steps[4].generation), (2, 3), "the steps after the checkpoint were done again");
    let generations: Vec<_> = proven(&place, "a", 12).await.into_iter().map(|e| e.generations).collect();
    assert_eq!(generations, [vec![2], vec![3], vec![3]], "each counts once all the same");
    assert!(events(&handle, "a").await.iter().any(|e| e.reason == "Submitted"), "earlier events are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_on_a_new_state_goes_on_with_a_run_and_counts_generations_on() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 3)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| is_ticket(o, 6)).await;
    event(&handle, "a", "CheckpointCommitted").await;
    until(&handle, "a", |p| p.step >= 6).await;
    handle.shutdown().await;

    let mut options = place.options();
    options.state = text(&place.path("other-state"));
    let handle = Service::start(options).await.unwrap();
    submit(&handle, &place.job("a", 3)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| matches!(o, To::Assignment(_))).await;
    assert_eq!((worker.assignments[0].generation, worker.assignments[0].step), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_lost_a_journal_put_stops() {
    let place = Place::new();
    let mut handle = place.start().await;
    // Another one wrote the next record.
    let journal = place.path("state/journal");
    std::fs::create_dir_all(&journal).unwrap();
    std::fs::write(journal.join("000000000000.rec"), "r2o-journal-1 other 00\n{}").unwrap();
    let client = jobs(&handle).await;
    let spec = place.job("a", 1).to_string();
    let submitted = r2o_telemetry::spawn("submit", r2o_telemetry::TaskKind::Work, async move {
        let mut client = client;
        client.submit(SubmitRequest { spec, dry_run: false }).await
    });
    let ended = handle.ended().await;
    let Ended::LostLeadership(reason) = ended else { panic!("{ended:?}") };
    names(&reason, &["another coordinator", "journal"]);
    handle.shutdown().await;
    assert!(submitted.await.unwrap().is_err(), "nobody is told that the job was accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_refused_by_name() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 1)).await.unwrap();
    handle.shutdown().await;
    let record = place.path("state/journal/000000000000.rec");
    let mut bytes = std::fs::read(&record).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&record, bytes).unwrap();
    let error = Service::start(place.options()).await.expect_err("it started").to_string();
    names(&error, &["000000000000.rec", "damaged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_file_has_the_url() {
    let place = Place::new();
    let mut options = place.options();
    options.address_file = Some(place.path("address"));
    let handle = Service::start(options).await.unwrap();
    assert_eq!(std::fs::read_to_string(place.path("address")).unwrap().trim(), handle.url());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_storage_cannot_be_opened_any_more_fails_and_does_not_start_over() {
    let place = Place::new();
    let handle = place.start().await;
    let mut job = place.job("a", 1);
    handle.shutdown().await;
    // As an earlier version with another kind of storage would have recorded it.
    job["spec"]["checkpoint"]["url"] = "tape://robot/a".into();
    let job = r2o_types::TrainJob::parse(&job.to_string()).unwrap();
    let record =
        serde_json::json!({"kind": "jobSubmitted", "job": job, "stepsPerEpoch": 4, "lastGeneration": 0, "unixMs": 1});
    let store = open(&text(&place.path("state"))).unwrap();
    let (mut journal, records) = r2o_storage::journal::Journal::open(&store).await.unwrap();
    assert!(records.is_empty());
    journal.append(0, record.to_string().as_bytes()).await.unwrap();

    let handle = place.start().await;
    let _worker = FakeWorker::join(&handle, "w").await;
    let last = until(&handle, "a", |p| p.state() == JobState::Failed).await;
    names(&last.reason, &["tape://robot/a"]);
}
