//! What is refused names the thing.

use r2o_coordinator::Service;
use r2o_proto::v1::*;
use tonic::Code;

use super::kit::*;

async fn refused(handle: &r2o_coordinator::Handle, job: &serde_json::Value, code: Code, things: &[&str]) {
    let status = submit(handle, job).await.expect_err("the job was accepted");
    assert_eq!(status.code(), code, "{status:?}");
    names(status.message(), things);
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_jobs() {
    let place = Place::new();
    let handle = place.start().await;
    let invalid = Code::InvalidArgument;

    let mut misspelt = place.job("a", 1);
    misspelt["spec"]["batch"]["lnaes"] = 3.into();
    refused(&handle, &misspelt, invalid, &["spec.batch", "lnaes"]).await;

    let mut size = place.job("a", 1);
    size["spec"]["data"]["imageSize"] = 100.into();
    refused(&handle, &size, invalid, &["spec.data.imageSize", "100"]).await;

    let mut missing = place.job("a", 1);
    missing["spec"]["data"]["url"] = "/no/such/set".into();
    refused(&handle, &missing, invalid, &["spec.data.url", "/no/such/set"]).await;

    let mut unreachable = place.job("a", 1);
    unreachable["spec"]["data"]["url"] = "http://127.0.0.1:9/set".into();
    refused(&handle, &unreachable, invalid, &["spec.data.url", "http://127.0.0.1:9/set"]).await;

    let mut large = place.job("a", 1);
    large["spec"]["batch"]["samplesPerLane"] = 64.into();
    refused(&handle, &large, invalid, &["spec.batch", "128 samples", "has 35"]).await;

    // sysfs takes no new files from anybody, root included.
    let mut read_only = place.job("a", 1);
    read_only["spec"]["checkpoint"]["url"] = "/sys/r2o".into();
    refused(&handle, &read_only, invalid, &["spec.checkpoint.url", "/sys/r2o"]).await;

    std::fs::write(place.path("set/shard-000000.tar"), "t").unwrap();
    refused(&handle, &place.job("a", 1), invalid, &["shard-000000.tar", "1 bytes"]).await;
    let unknown = jobs(&handle).await.get(GetJobRequest { name: "nobody".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    names(unknown.message(), &["nobody"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_folder_belong_to_one_job() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 1)).await.unwrap();
    assert!(!submit(&handle, &place.job("a", 1)).await.unwrap().created, "the same spec is there already");
    let mut other = place.job("a", 1);
    other["spec"]["seed"] = 5.into();
    refused(&handle, &other, Code::AlreadyExists, &["job a", "spec.seed"]).await;
    let mut same_folder = place.job("b", 1);
    same_folder["spec"]["checkpoint"]["url"] = text(&place.path("a")).into();
    refused(&handle, &same_folder, Code::FailedPrecondition, &["spec.checkpoint.url", "job a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_run_is_not_continued_by_mistake() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 1)).await.unwrap();
    FakeWorker::join(&handle, "w").await.work();
    until(&handle, "a", |p| p.state() == JobState::Succeeded).await;

    let precondition = Code::FailedPrecondition;
    let mut other = place.job("a", 2);
    other["spec"]["optimizer"]["momentum"] = 0.5.into();
    refused(&handle, &other, precondition, &["spec.optimizer.momentum", "0.5", "0.9"]).await;
    let mut renamed = place.job("b", 1);
    renamed["spec"]["checkpoint"]["url"] = text(&place.path("a")).into();
    refused(&handle, &renamed, precondition, &["spec.checkpoint.url", "job a"]).await;

    for object in std::fs::read_dir(place.path("a/objects")).unwrap() {
        std::fs::write(object.unwrap().path(), "changed!").unwrap();
    }
    refused(&handle, &place.job("a", 2), precondition, &["spec.checkpoint.url", "none of the", "/a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    let place = Place::new();
    let handle = place.start().await;
    let request = SubmitRequest { spec: place.job("a", 2).to_string(), dry_run: true };
    let answer = jobs(&handle).await.submit(request).await.unwrap().into_inner();
    assert!(!answer.created);
    assert_eq!(answer.job.unwrap().steps, 8);
    assert!(jobs(&handle).await.list(ListRequest {}).await.unwrap().into_inner().jobs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_workers_says_so() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 1)).await.unwrap();
    let job = get(&handle, "a").await;
    assert_eq!(job.state(), JobState::Queued);
    names(&job.reason, &["waits for workers", "none is connected"]);
    let why = job.why.unwrap();
    assert_eq!((why.word.as_str(), why.sentence), ("NoWorkers", job.reason.clone()));
    names(&why.hint, &["r2o-worker run"]);
    let said = event(&handle, "a", "NoWorkers").await;
    assert_eq!(said.message, job.reason, "its events say the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_coordinator_on_the_same_state_names_the_first() {
    let place = Place::new();
    let handle = place.start().await;
    let error = Service::start(place.options()).await.expect_err("two coordinators lead").to_string();
    names(&error, &["another coordinator", &handle.url(), "state"]);
    handle.shutdown().await;
    place.start().await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_must_begin_with_hello() {
    let place = Place::new();
    let handle = place.start().await;
    let mut client = fleet_client::FleetClient::connect(handle.url()).await.unwrap();
    let first = WorkerMessage { kind: Some(worker_message::Kind::Heartbeat(Heartbeat::default())) };
    let status = client.session(futures::stream::iter([first])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    names(status.message(), &["Hello"]);
}
