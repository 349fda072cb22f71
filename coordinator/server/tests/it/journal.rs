//! What people decide is remembered; a journal that cannot be written holds up what follows from it, and nothing else.

use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::*;
use r2o_storage::{checkpoint, journal, open};
use tonic::Code;

use super::kit::*;

async fn pause(place: &r2o_coordinator::Handle, name: &str, reason: &str) -> Job {
    let request = PauseRequest { name: name.to_owned(), reason: reason.to_owned() };
    jobs(place).await.pause(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_stays_paused_over_a_restart_and_goes_on_when_resumed() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 50_000)).await.unwrap();
    FakeWorker::join(&handle, "w").await.work();
    until(&handle, "a", |p| p.step >= 6).await;
    pause(&handle, "a", "the weekend").await;
    let paused = until(&handle, "a", |p| p.state() == JobState::Paused).await;
    names(&paused.reason, &["the weekend", "r2octl resume"]);
    let saved = get(&handle, "a").await;
    assert_eq!(saved.checkpoint_step, paused.step, "nothing is lost by it");
    handle.shutdown().await;

    let handle = place.start().await;
    FakeWorker::join(&handle, "w").await.work();
    until(&handle, "a", |p| p.state() == JobState::Paused).await;
    jobs(&handle).await.resume(ResumeRequest { name: "a".into() }).await.unwrap();
    until(&handle, "a", |p| p.state() == JobState::Running && p.step > paused.step).await;
    let status = jobs(&handle).await.resume(ResumeRequest { name: "a".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    names(status.message(), &["job a is not paused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requeueing_gives_the_workers_to_the_next_and_submits_again_what_had_failed() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 50_000)).await.unwrap();
    FakeWorker::join(&handle, "w").await.work();
    until(&handle, "a", |p| p.step >= 4).await;
    submit(&handle, &place.job("b", 50_000)).await.unwrap();
    jobs(&handle).await.requeue(RequeueRequest { name: "a".into() }).await.unwrap();
    until(&handle, "b", |p| p.step >= 1).await;
    let waits = get(&handle, "a").await;
    assert_eq!(waits.state(), JobState::Queued);
    jobs(&handle).await.cancel(CancelRequest { name: "b".into(), reason: String::new() }).await.unwrap();
    until(&handle, "a", |p| p.step > waits.checkpoint_step).await;
    let again = jobs(&handle).await.requeue(RequeueRequest { name: "b".into() }).await.unwrap().into_inner();
    assert_eq!(again.state(), JobState::Queued);
    let unknown = jobs(&handle).await.requeue(RequeueRequest { name: "c".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_while_its_checkpoint_is_committed_leaves_none_that_is_not_whole() {
    let place = Place::new();
    let handle = place.start().await;
    FakeWorker::join(&handle, "w").await.work();
    for number in 0..30 {
        let name = format!("j{number}");
        submit(&handle, &place.job(&name, 50_000)).await.unwrap();
        // One is taken after every fourth step.
        until(&handle, &name, |p| p.step >= 3 + number % 3).await;
        jobs(&handle).await.cancel(CancelRequest { name: name.clone(), reason: String::new() }).await.unwrap();
        until(&handle, &name, |p| p.state() == JobState::Cancelled).await;
    }
    handle.shutdown().await;
    for number in 0..30 {
        let store = open(place.path(&format!("j{number}")).to_str().unwrap()).unwrap();
        for info in checkpoint::list(&store).await.unwrap() {
            let verified = checkpoint::verify(&store, info.step).await.unwrap();
            assert!(verified.bad.is_empty(), "j{number}, step {}: {:?}", info.step, verified.bad);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_written_holds_up_generations_but_no_steps() {
    let place = Place::new();
    let handle = place.start().await;
    let mut job = place.job("a", 100_000);
    job["spec"]["checkpoint"]["every"]["epochs"] = 100_000.into();
    submit(&handle, &job).await.unwrap();
    FakeWorker::join(&handle, "w").await.work();
    until(&handle, "a", |p| p.step >= 4).await;

    // A file where the folder should be.
    let (folder, aside) = (place.path("state/journal"), place.path("state/aside"));
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "").unwrap();
    let refused = submit(&handle, &place.job("b", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    names(refused.message(), &["job b is not accepted yet", "tried again", "journal"]);
    let step = get(&handle, "a").await.progress.unwrap().step;
    until(&handle, "a", |p| p.step > step + 20).await;
    let said = jobs(&handle).await;
    let _asked = r2o_telemetry::spawn("pause", r2o_telemetry::TaskKind::Work, async move {
        let mut said = said;
        said.pause(PauseRequest { name: "a".into(), reason: "storage".into() }).await
    });
    let held_up = until(&handle, "a", |p| p.reason.contains("waits for the coordinator's journal")).await;
    names(&held_up.reason, &["journal"]);
    let why = get(&handle, "a").await.why.unwrap();
    assert_eq!((why.word.as_str(), why.sentence), ("JournalNotWritten", held_up.reason.clone()));
    names(&why.hint, &["--state"]);
    assert_eq!(event(&handle, "a", "JournalNotWritten").await.message, held_up.reason);

    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    until(&handle, "a", |p| p.state() == JobState::Paused).await;
    event(&handle, "a", "JournalWritten").await;
    // The other one sent no heartbeats meanwhile.
    FakeWorker::join(&handle, "v").await.work();
    until(&handle, "b", |p| p.state() == JobState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_journal_says_the_same() {
    let place = Place::new();
    let mut options = place.options();
    options.compact_after = 5;
    let handle = r2o_coordinator::Service::start(options.clone()).await.unwrap();
    FakeWorker::join(&handle, "w").await.work();
    for name in ["a", "b", "c"] {
        submit(&handle, &place.job(name, 2)).await.unwrap();
        until(&handle, name, |p| p.state() == JobState::Succeeded).await;
    }
    submit(&handle, &place.job("d", 50_000)).await.unwrap();
    until(&handle, "d", |p| p.step >= 5).await;
    let generation = get(&handle, "d").await.generation;
    handle.shutdown().await;

    let store = open(&text(&place.path("state"))).unwrap();
    let (_, records) = journal::Journal::open(&store).await.unwrap();
    assert!(records[0].0 > 0 && records.len() < 12, "{:?}", records.iter().map(|r| r.0).collect::<Vec<_>>());
    let handle = r2o_coordinator::Service::start(options).await.unwrap();
    for name in ["a", "b", "c"] {
        let job = get(&handle, name).await;
        assert_eq!((job.state(), job.checkpoint_step), (JobState::Succeeded, 8));
    }
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| matches!(o, To::Assignment(_))).await;
    assert!(worker.assignments[0].generation > generation, "generations are never used twice");
}
