//! `/metrics` over HTTP: what a run leaves there, and who may see it.

use r2o_coordinator::Handle;
use r2o_proto::v1::JobState;
use r2o_proto::v1::coordinator_message::Kind as To;
use reqwest::StatusCode;

use super::kit::*;

async fn metrics(handle: &Handle, token: Option<&str>) -> (StatusCode, String) {
    let request = reqwest::Client::new().get(format!("{}/metrics", handle.web_url().unwrap()));
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The value of a series; none: it is not there.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// What is shown once it is as wanted.
async fn soon(handle: &Handle, wanted: impl Fn(&str) -> bool) -> String {
    let look = async {
        loop {
            let (status, text) = metrics(handle, None).await;
            assert_eq!(status, StatusCode::OK);
            if wanted(&text) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, look).await.expect("the metrics do not get there in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_a_lost_worker_is_counted() {
    let place = Place::new();
    let handle = place.start().await;
    let mut job = place.job("a", 50);
    job["spec"]["fleet"] = serde_json::json!({"minWorkers": 1, "maxWorkers": 2});
    submit(&handle, &job).await.unwrap();
    let (mut first, mut second) = (FakeWorker::join(&handle, "w1").await, FakeWorker::join(&handle, "w2").await);
    first.work_until(|o| matches!(o, To::Assignment(_))).await;
    second.work_until(|o| matches!(o, To::Assignment(_))).await;
    drop(second);
    first.work_until(|o| matches!(o, To::Assignment(a) if a.generation == 2)).await;
    first.work();
    until(&handle, "a", |p| p.step >= 12).await;
    // The checkpoint after the first epoch is committed on the side.
    let text = soon(&handle, |text| value(text, "r2o_checkpoint_commit_seconds_count{job=\"a\"}") >= Some(1.0)).await;
    let at = |series: &str| value(&text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
    assert!(at("r2o_steps_total{job=\"a\"}") >= 12.0);
    assert_eq!(at("r2o_images_total{job=\"a\"}"), 8.0 * at("r2o_steps_total{job=\"a\"}"));
    assert_eq!(at("r2o_job_gradient_norm{job=\"a\"}"), 0.5);
    assert_eq!(at("r2o_job_embedding_effective_rank{job=\"a\"}"), 40.0);
    assert_eq!(value(&text, "r2o_job_similarity{job=\"a\"}"), None, "nobody said so: {text}");
    assert!(!text.contains("made_up"), "{text}");
    assert_eq!(at("r2o_generations_opened_total{job=\"a\",reason=\"first\"}"), 1.0);
    assert_eq!(at("r2o_generations_opened_total{job=\"a\",reason=\"worker_lost\"}"), 1.0);
    assert_eq!(at("r2o_recovery_seconds_count{job=\"a\",reason=\"worker_lost\"}"), 1.0);
    assert_eq!(at("r2o_recovery_seconds_count{job=\"a\",reason=\"failed\"}"), 0.0);
    assert!(at("r2o_checkpoint_commit_seconds_count{job=\"a\"}") >= 1.0);
    assert_eq!(at("r2o_checkpoint_size_bytes{job=\"a\"}"), 8.0);
    assert!(at("r2o_journal_append_seconds_count") >= 3.0);
    // A word that a worker makes up is no series of its own.
    assert!(at("r2o_step_phase_seconds_count{job=\"a\",phase=\"other\"}") >= 12.0);
    assert!(!text.contains("phase=\"forward\""), "{text}");
    until(&handle, "a", |p| p.state() == JobState::Succeeded).await;
    let text = soon(&handle, |text| value(text, "r2o_jobs{state=\"succeeded\"}") == Some(1.0)).await;
    assert_eq!(value(&text, "r2o_steps_total{job=\"a\"}"), Some(200.0), "{text}");
    assert_eq!(value(&text, "r2o_job_loss{job=\"a\"}"), None, "a job that has ended has no loss: {text}");
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_readers() {
    const READER: &str = "a-reader-token-of-enough-length-0123456789";
    const WORKER: &str = "a-worker-token-of-enough-length-0123456789";
    let place = Place::new();
    let file = place.path("tokens");
    std::fs::write(&file, format!("reader {READER}\nworker {WORKER}\n")).unwrap();
    let mut options = place.options();
    options.tokens = Some(file);
    let handle = r2o_coordinator::Service::start(options).await.unwrap();
    assert_eq!(metrics(&handle, None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(metrics(&handle, Some(WORKER)).await.0, StatusCode::UNAUTHORIZED);
    let (status, text) = metrics(&handle, Some(READER)).await;
    assert_eq!((status, value(&text, "r2o_jobs{state=\"running\"}")), (StatusCode::OK, Some(0.0)));
    handle.shutdown().await;
}
