//! The service of people and their programs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use r2o_coordinator_core::{Event as CoreEvent, JobState, Refusal};
use r2o_proto::v1::jobs_server::Jobs;
use r2o_proto::v1::{
    CancelRequest, CheckpointRequest, CheckpointResponse, Event, EventsRequest, FleetRequest, FleetResponse,
    GetJobRequest, Job, JobLog, ListRequest, ListResponse, LogsRequest, PauseRequest, Progress, RequeueRequest,
    ResumeRequest, SubmitRequest, SubmitResponse, WatchRequest,
};
use r2o_storage::Store;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::actor::{Mailbox, Message, Submitted};
use crate::admit::{self, Admitted};
use crate::board::{Board, Entry};
use crate::wire;

/// How long a cancellation waits for the job to have written its history.
const CANCEL_WAIT: Duration = Duration::from_secs(20);

/// How long a pause, a resumption or a requeueing may take to be recorded.
const RECORD_WAIT: Duration = Duration::from_secs(20);

/// Serves people.
#[derive(Debug, Clone)]
pub(crate) struct JobsService {
    pub(crate) mailbox: Mailbox,
    pub(crate) board: Board,
    pub(crate) state: Store,
    pub(crate) stop: CancellationToken,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stopping() -> Status {
    Status::unavailable("the coordinator is stopping")
}

impl JobsService {
    fn entry(&self, name: &str) -> Result<Arc<Entry>, Status> {
        self.board.get(name).ok_or_else(|| Status::not_found(format!("there is no job {name}")))
    }

    /// Submits a job that passed the checks.
    async fn submit_admitted(&self, admitted: Admitted) -> Result<Submitted, Status> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Message::Submit { admitted: Box::new(admitted), reply });
        answer.await.map_err(|_| stopping())?
    }

    /// Asks the core for something, and waits until the job's event log says that it is recorded.
    async fn ask(&self, entry: &Entry, event: CoreEvent, recorded: &str) -> Result<Response<Job>, Status> {
        let from = entry.events.tail(0);
        self.mailbox.event(event);
        let mut events = std::pin::pin!(entry.events.stream(from, true));
        let seen = async { while events.next().await.is_some_and(|event| event.reason != recorded) {} };
        match tokio::time::timeout(RECORD_WAIT, seen).await {
            Ok(()) => Ok(Response::new(entry.job())),
            Err(_) => Err(Status::unavailable(format!("not recorded yet: {}", entry.job().reason))),
        }
    }

    /// The job, unless it has ended.
    fn open_entry(&self, name: &str) -> Result<Arc<Entry>, Status> {
        let entry = self.entry(name)?;
        let view = entry.view();
        if view.state.has_ended() {
            return Err(Status::failed_precondition(format!("job {name} has ended: {}", view.reason)));
        }
        Ok(entry)
    }

    fn stream<T: Send + 'static>(&self, items: impl Stream<Item = T> + Send + 'static) -> Response<Streamed<T>> {
        let until = self.stop.clone().cancelled_owned();
        Response::new(Box::pin(items.map(Ok).take_until(until)))
    }
}

#[tonic::async_trait]
impl Jobs for JobsService {
    type WatchStream = Streamed<Progress>;
    type EventsStream = Streamed<Event>;
    type LogsStream = Streamed<JobLog>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let SubmitRequest { spec, dry_run } = request.into_inner();
        let (job, store) = admit::parse(&spec, &self.state)?;
        let admitted = admit::admit(job, store).await?;
        if dry_run {
            let name = admitted.job.metadata.name.clone();
            let steps = admitted.steps_per_epoch * admitted.job.spec.epochs;
            let job = Job {
                name,
                spec: admitted.job.to_json(),
                steps,
                steps_per_epoch: admitted.steps_per_epoch,
                reason: "valid; not submitted".to_owned(),
                ..Job::default()
            };
            return Ok(Response::new(SubmitResponse { job: Some(job), created: false }));
        }
        let submitted = self.submit_admitted(admitted).await?;
        Ok(Response::new(SubmitResponse { job: Some(submitted.entry.job()), created: submitted.created }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let mut jobs: Vec<Job> = self.board.entries().iter().map(|e| e.job()).collect();
        jobs.sort_by_key(|j| j.submitted_unix_ms);
        Ok(Response::new(ListResponse { jobs }))
    }

    async fn get(&self, request: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        Ok(Response::new(self.entry(&request.into_inner().name)?.job()))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { name, from_step } = request.into_inner();
        let entry = self.entry(&name)?;
        // One at once: the newest, unless the caller wants what came after a step that it knows.
        let newest = entry.progress.tail(1);
        let from = if from_step == 0 { newest } else { entry.progress.find(|p| p.step >= from_step).min(newest) };
        Ok(self.stream(entry.progress.stream(from, true)))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let EventsRequest { name, follow } = request.into_inner();
        Ok(self.stream(self.entry(&name)?.events.stream(0, follow).map(wire::job_event)))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let LogsRequest { name, follow, tail } = request.into_inner();
        let logs = &self.entry(&name)?.logs;
        let from = if tail == 0 { 0 } else { logs.tail(tail as usize) };
        Ok(self.stream(logs.stream(from, follow)))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<Job>, Status> {
        let CancelRequest { name, reason } = request.into_inner();
        let entry = self.entry(&name)?;
        let from = entry.progress.tail(1);
        self.mailbox.event(CoreEvent::CancelRequested { job: name, reason });
        // The feed ends with the job.
        let ended = entry.progress.stream(from, true).for_each(|_| async {});
        let _slow = tokio::time::timeout(CANCEL_WAIT, ended).await;
        Ok(Response::new(entry.job()))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<Job>, Status> {
        let PauseRequest { name, reason } = request.into_inner();
        let entry = self.open_entry(&name)?;
        if entry.view().paused {
            return Ok(Response::new(entry.job()));
        }
        self.ask(&entry, CoreEvent::PauseRequested { job: name, reason }, "Paused").await
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<Job>, Status> {
        let name = request.into_inner().name;
        let entry = self.open_entry(&name)?;
        if !entry.view().paused {
            return Err(Status::failed_precondition(format!("job {name} is not paused: it {}", entry.view().reason)));
        }
        self.ask(&entry, CoreEvent::ResumeRequested { job: name }, "Resumed").await
    }

    async fn requeue(&self, request: Request<RequeueRequest>) -> Result<Response<Job>, Status> {
        let name = request.into_inner().name;
        let entry = self.entry(&name)?;
        let view = entry.view();
        if view.state == JobState::Succeeded {
            let message = format!("job {name} has all its steps; raise spec.epochs and submit it to train on");
            return Err(Status::failed_precondition(message));
        }
        if view.state.has_ended() {
            let (job, store) = admit::parse(&view.spec, &self.state)?;
            let submitted = self.submit_admitted(admit::admit(job, store).await?).await?;
            return Ok(Response::new(submitted.entry.job()));
        }
        self.ask(&entry, CoreEvent::RequeueRequested { job: name }, "Requeued").await
    }

    async fn checkpoint(&self, request: Request<CheckpointRequest>) -> Result<Response<CheckpointResponse>, Status> {
        let job = request.into_inner().name;
        let entry = self.entry(&job)?;
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Message::Checkpoint { job, reply });
        let step = answer.await.map_err(|_| stopping())?.map_err(|refusal| match refusal {
            Refusal::NoSuchJob => Status::not_found(refusal.to_string()),
            Refusal::NotTraining { .. } | Refusal::Ended => Status::failed_precondition(refusal.to_string()),
            Refusal::NotWritten { .. } => Status::internal(refusal.to_string()),
        })?;
        let manifest = entry.store.url_of(&wire::manifest_key(step));
        Ok(Response::new(CheckpointResponse { step, manifest }))
    }

    async fn fleet(&self, _: Request<FleetRequest>) -> Result<Response<FleetResponse>, Status> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Message::Workers { reply });
        let workers = answer.await.map_err(|_| stopping())?;
        Ok(Response::new(FleetResponse { workers: workers.iter().map(wire::worker).collect() }))
    }
}
