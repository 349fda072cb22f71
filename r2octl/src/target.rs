//! `JOB|URL`: where a run's checkpoints, history and gallery lie.

use r2o_proto::v1::GetJobRequest;
use r2o_storage::Store;

use crate::client::Coordinator;
use crate::error::CliError;
use crate::view::JobView;

/// The store of a run, given by its URL or path, or by the name of a job that the coordinator knows.
pub(crate) async fn resolve(run: &str, coordinator: &str) -> Result<Store, CliError> {
    if is_url(run) {
        return Ok(r2o_storage::open(run)?);
    }
    let coordinator = Coordinator::connect(coordinator)
        .await
        .map_err(|e| e.advice(format!("`{run}` was taken for a job's name; for a folder write ./{run}")))?;
    let answer = coordinator.jobs.clone().get(GetJobRequest { name: run.to_owned() }).await;
    let job = JobView::from(coordinator.take(answer, &format!("job `{run}`"))?);
    let url = job.spec.pointer("/spec/checkpoint/url").and_then(serde_json::Value::as_str);
    let url = url.ok_or_else(|| {
        CliError::failure(format!("the coordinator does not say where job `{run}` keeps its checkpoints"))
            .advice("give the checkpoint URL instead of the job's name")
    })?;
    Ok(r2o_storage::open(url)?)
}

/// Job names have neither slashes nor dots at their start.
fn is_url(run: &str) -> bool {
    run.contains('/') || run.starts_with('.')
}

/// Writes a result to a file or a storage URL; it appears whole or not at all.
pub(crate) async fn write(out: &str, bytes: Vec<u8>) -> Result<String, CliError> {
    let (parent, name) = match out.trim_end_matches('/').rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => (".", out),
    };
    let store = r2o_storage::open(parent)?;
    store.put(name, bytes).await?;
    let path = store.folder().map(|folder| folder.join(name).display().to_string());
    Ok(path.unwrap_or_else(|| store.url_of(name)))
}
