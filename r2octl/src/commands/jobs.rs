//! Commands that ask the coordinator one question.

use r2o_proto::v1::{
    CancelRequest, CheckpointRequest, EventsRequest, FleetRequest, GetJobRequest, Job, ListRequest, PauseRequest,
    RequeueRequest, ResumeRequest,
};
use serde::Serialize;

use super::now_unix_ms;
use crate::cli::{Cancel, Pause};
use crate::client::Coordinator;
use crate::error::CliError;
use crate::output::Output;
use crate::table;
use crate::view::{EventView, JobView, State, WhyView, WorkerView};

/// Events that `describe` shows.
const EVENTS_SHOWN: usize = 12;

pub(super) async fn list(url: &str, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.list(ListRequest {}).await;
    let jobs: Vec<JobView> = coordinator.take(answer, "list jobs")?.jobs.into_iter().map(JobView::from).collect();
    output.result(&jobs, |wide| table::jobs(&jobs, now_unix_ms(), wide))
}

async fn fetch(coordinator: &mut Coordinator, job: &str) -> Result<JobView, CliError> {
    let answer = coordinator.jobs.get(GetJobRequest { name: job.to_owned() }).await;
    coordinator.take(answer, &about(job)).map(JobView::from)
}

fn about(job: &str) -> String {
    format!("job `{job}`")
}

pub(super) async fn get(url: &str, job: &str, output: &mut Output) -> Result<(), CliError> {
    let job = fetch(&mut Coordinator::connect(url).await?, job).await?;
    output.result(&job, |wide| table::jobs(std::slice::from_ref(&job), now_unix_ms(), wide))
}

#[derive(Serialize)]
struct Why {
    job: String,
    state: State,
    #[serde(flatten)]
    why: WhyView,
}

/// What the job waits for or does, in a sentence, and what to do about it.
pub(super) async fn why(url: &str, job: &str, output: &mut Output) -> Result<(), CliError> {
    let JobView { name: job, state, why, .. } = fetch(&mut Coordinator::connect(url).await?, job).await?;
    let why = Why { job, state, why };
    output.result(&why, |_| {
        let hint = why.why.hint.as_ref().map(|hint| format!("\n  try: {hint}")).unwrap_or_default();
        format!("job `{}` {}{hint}", why.job, table::predicate(why.state, &why.why.sentence))
    })
}

#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    job: JobView,
    events: Vec<EventView>,
}

pub(super) async fn describe(url: &str, job: &str, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let view = fetch(&mut coordinator, job).await?;
    let answer = coordinator.jobs.events(EventsRequest { name: job.to_owned(), follow: false }).await;
    let mut stream = coordinator.take(answer, &about(job))?;
    let mut events = Vec::new();
    while let Some(event) =
        stream.message().await.map_err(|s| CliError::from_status(s, &about(job), &coordinator.url))?
    {
        events.push(EventView::from(event));
    }
    let described = Described { job: view, events };
    output.result(&described, |_| {
        let from = described.events.len().saturating_sub(EVENTS_SHOWN);
        table::describe(&described.job, &described.events[from..], now_unix_ms())
    })
}

pub(super) async fn cancel(url: &str, args: Cancel, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.cancel(CancelRequest { name: args.job.clone(), reason: args.reason }).await;
    let job = JobView::from(coordinator.take(answer, &about(&args.job))?);
    output.result(&job, |_| format!("job `{}` is {}", job.name, job.state.to_string().to_lowercase()))
}

pub(super) async fn pause(url: &str, args: Pause, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.pause(PauseRequest { name: args.job.clone(), reason: args.reason }).await;
    stands(coordinator.take(answer, &about(&args.job))?, output)
}

pub(super) async fn resume(url: &str, job: &str, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.resume(ResumeRequest { name: job.to_owned() }).await;
    stands(coordinator.take(answer, &about(job))?, output)
}

pub(super) async fn requeue(url: &str, job: &str, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.requeue(RequeueRequest { name: job.to_owned() }).await;
    stands(coordinator.take(answer, &about(job))?, output)
}

/// Where a job stands after it was told something.
fn stands(job: Job, output: &mut Output) -> Result<(), CliError> {
    let job = JobView::from(job);
    output.result(&job, |_| format!("job `{}` {}", job.name, job.reason))
}

#[derive(Serialize)]
struct Taken {
    job: String,
    step: u64,
    manifest: String,
}

pub(super) async fn checkpoint(url: &str, job: &str, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.checkpoint(CheckpointRequest { name: job.to_owned() }).await;
    let answer = coordinator.take(answer, &format!("checkpoint of job `{job}`"))?;
    let taken = Taken { job: job.to_owned(), step: answer.step, manifest: answer.manifest };
    output.result(&taken, |_| format!("checkpoint of job `{job}` after step {}: {}", taken.step, taken.manifest))
}

pub(super) async fn fleet(url: &str, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.fleet(FleetRequest {}).await;
    let workers = coordinator.take(answer, "list workers")?.workers;
    let workers: Vec<WorkerView> = workers.into_iter().map(WorkerView::from).collect();
    output.result(&workers, |wide| table::workers(&workers, wide))
}
