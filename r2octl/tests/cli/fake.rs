//! A coordinator with one job, as a script tells.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use r2o_proto::v1::jobs_server::{Jobs, JobsServer};
use r2o_proto::v1::*;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the coordinator has and does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// The states that the job goes through while it is watched, each with its committed steps.
    pub(crate) states: Vec<(JobState, u64)>,
    /// So many streams break after their first message.
    pub(crate) breaks: usize,
}

impl Script {
    pub(crate) fn running() -> Self {
        Self { states: vec![(JobState::Running, 20)], breaks: 0 }
    }

    pub(crate) fn ending(state: JobState) -> Self {
        let running = [0, 1, 33, 34].map(|step| (JobState::Running, step));
        Self { states: [(JobState::Queued, 0)].into_iter().chain(running).chain([(state, 66)]).collect(), breaks: 0 }
    }
}

/// The running coordinator; it stops when dropped.
pub(crate) struct Fake {
    pub(crate) url: String,
    service: Service,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    pub(crate) fn start(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let names = if script.states.is_empty() { vec![] } else { vec!["demo".to_owned()] };
        let service = Service { script, names: Arc::new(Mutex::new(names)), watches: Arc::default() };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(JobsServer::new(service.clone()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { url, service, _runtime: runtime }
    }

    /// How many streams of progress were asked for.
    pub(crate) fn watches(&self) -> usize {
        self.service.watches.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone)]
struct Service {
    script: Script,
    names: Arc<Mutex<Vec<String>>>,
    watches: Arc<AtomicUsize>,
}

impl Service {
    fn job(&self, name: &str) -> Result<Job, Status> {
        if !self.names.lock().unwrap().iter().any(|n| n == name) {
            return Err(Status::not_found(format!("there is no job `{name}`")));
        }
        let (state, step) = self.script.states.last().copied().unwrap_or((JobState::Queued, 0));
        Ok(Job {
            name: name.into(),
            state: state as i32,
            spec: r#"{"metadata": {"name": "demo"}}"#.into(),
            generation: 1,
            steps: 66,
            steps_per_epoch: 33,
            workers: vec!["alpha".into()],
            progress: Some(progress(state, step)),
            submitted_unix_ms: 0,
            why: Some(why(state)),
            ..Job::default()
        })
    }
}

fn why(state: JobState) -> Reason {
    let (word, sentence, hint) = match state {
        JobState::Queued => (
            "NoWorkers",
            "waits for workers: none is connected and the job needs at least 2",
            "start `r2o-worker run --coordinator URL` on each machine",
        ),
        JobState::Failed => ("Failed", "loss is NaN at step 66, lane 3", "mend the cause"),
        JobState::Cancelled => ("Cancelled", "cancelled: enough", ""),
        JobState::Succeeded => ("Succeeded", "all epochs are done and saved", ""),
        _ => ("Training", "trains on 1 worker", ""),
    };
    Reason { word: word.into(), sentence: sentence.into(), hint: hint.into() }
}

fn progress(state: JobState, step: u64) -> Progress {
    Progress {
        job: "demo".into(),
        state: state as i32,
        step,
        steps: 66,
        epoch: if step == 0 { 0 } else { (step - 1) / 33 + 1 },
        epochs: 2,
        k: 24,
        tau: 0.99,
        learning_rate: 0.05,
        loss: 1.5,
        images_per_second: 80.0,
        eta_seconds: 61.0,
        reason: if state == JobState::Failed { "loss is NaN at step 66, lane 3".into() } else { String::new() },
        ..Progress::default()
    }
}

fn stream<T: Send + 'static>(items: Vec<T>) -> Items<T> {
    Box::pin(tokio_stream::iter(items).map(Ok))
}

#[tonic::async_trait]
impl Jobs for Service {
    type WatchStream = Items<Progress>;
    type EventsStream = Items<Event>;
    type LogsStream = Items<JobLog>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Answer<SubmitResponse> {
        let request = request.into_inner();
        let name = if request.spec.contains("name: other") { "other" } else { "demo" }.to_owned();
        let created = {
            let mut names = self.names.lock().unwrap();
            let new = !names.contains(&name);
            if new && !request.dry_run {
                names.push(name.clone());
            }
            new
        };
        Ok(Response::new(SubmitResponse { job: Some(Job { name, ..Job::default() }), created }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Answer<ListResponse> {
        let names = self.names.lock().unwrap().clone();
        let jobs = names.iter().map(|name| self.job(name)).collect::<Result<_, _>>()?;
        Ok(Response::new(ListResponse { jobs }))
    }

    async fn get(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        self.job(&request.into_inner().name).map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        self.job(&request.into_inner().name)?;
        let items = self.script.states.iter().map(|(state, step)| progress(*state, *step)).collect::<Vec<_>>();
        if self.watches.fetch_add(1, Ordering::SeqCst) < self.script.breaks {
            let broken = Err(Status::unavailable("the coordinator stops"));
            return Ok(Response::new(Box::pin(tokio_stream::iter([Ok(items[0].clone()), broken]))));
        }
        Ok(Response::new(stream(items)))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        self.job(&request.into_inner().name)?;
        let event = |reason: &str, message: &str, warning| Event {
            unix_ms: 1_700_000_000_000,
            reason: reason.into(),
            message: message.into(),
            warning,
        };
        Ok(Response::new(stream(vec![
            event("GenerationOpened", "generation 1 with 1 worker", false),
            event("WorkerLost", "beta missed its lease", true),
        ])))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        self.job(&request.get_ref().name)?;
        let log = JobLog {
            unix_ms: 1_700_000_000_000,
            worker: "alpha".into(),
            level: "INFO".into(),
            target: "r2o_engine".into(),
            message: "two threads".into(),
        };
        Ok(Response::new(stream(vec![log])))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Answer<Job> {
        let job = self.job(&request.into_inner().name)?;
        Ok(Response::new(Job { state: JobState::Cancelled as i32, ..job }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Answer<Job> {
        let request = request.into_inner();
        let job = self.job(&request.name)?;
        let reason = format!("is paused until `r2octl resume`: {}", request.reason);
        Ok(Response::new(Job { state: JobState::Paused as i32, reason, ..job }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Answer<Job> {
        let job = self.job(&request.into_inner().name)?;
        Err(Status::failed_precondition(format!("job {} is not paused: it trains on 2 workers", job.name)))
    }

    async fn requeue(&self, request: Request<RequeueRequest>) -> Answer<Job> {
        let job = self.job(&request.into_inner().name)?;
        let reason = "waits for workers: the free ones are kept for job b, which is ahead".to_owned();
        Ok(Response::new(Job { state: JobState::Queued as i32, reason, ..job }))
    }

    async fn checkpoint(&self, request: Request<CheckpointRequest>) -> Answer<CheckpointResponse> {
        self.job(&request.into_inner().name)?;
        Ok(Response::new(CheckpointResponse { step: 120, manifest: "manifests/000000000120.json".into() }))
    }

    async fn fleet(&self, _: Request<FleetRequest>) -> Answer<FleetResponse> {
        let worker = Worker {
            name: "alpha".into(),
            device: "cpu".into(),
            address: "127.0.0.1".into(),
            state: "training".into(),
            job: "demo".into(),
            version: "0.1.0".into(),
            threads: 2,
            lanes: vec![0, 1, 2],
        };
        Ok(Response::new(FleetResponse { workers: vec![worker] }))
    }
}
