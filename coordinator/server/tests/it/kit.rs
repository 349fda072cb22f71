//! A coordinator in this process, a packed set without pictures, and a worker that computes nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use r2o_coordinator::{Handle, Options, Service};
use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::fleet_client::FleetClient;
use r2o_proto::v1::jobs_client::JobsClient;
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::*;
use r2o_storage::checkpoint::write_object;
use r2o_storage::ledger::proof::{Epoch, Plan, prove};
use r2o_storage::shard::{ChunkEntry, FORMAT, INDEX, PackedPrior, SetIndex, ShardEntry, read_set};
use r2o_storage::{ledger, open, run};
use r2o_types::{ChunkRef, EpochPlan, TrainJob, sample_digest};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Samples of the set; with 2 lanes of 4 an epoch has 4 steps.
const SAMPLES: u32 = 35;
/// Every fake worker is a process of its own.
static PROCESSES: AtomicU64 = AtomicU64::new(0);
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A folder with a packed set and room for state and runs.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let chunk = ChunkEntry { offset: 0, bytes: 3, samples: SAMPLES, blake3: "00".repeat(32) };
        let shard = ShardEntry {
            file: "shard-000000.tar".to_owned(),
            bytes: 3,
            blake3: "00".repeat(32),
            index: "shard-000000.json".to_owned(),
            index_blake3: "00".repeat(32),
            chunks: vec![chunk],
        };
        let prior = PackedPrior { segments: 100, size: 224, definition: "slic".to_owned() };
        let set = SetIndex { format: FORMAT, prior, classes: Vec::new(), shards: vec![shard] };
        let path = folder.path().join("set");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(INDEX), serde_json::to_string(&set).unwrap()).unwrap();
        std::fs::write(path.join("shard-000000.tar"), "tar").unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A coordinator on this place's state.
    pub(crate) async fn start(&self) -> Handle {
        Service::start(self.options()).await.unwrap()
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(self.path("state").display().to_string());
        options.core.join_window_ms = 50;
        options.core.pause_ms = 10;
        options
    }

    /// A job of `epochs` epochs of 4 steps on this place's set.
    pub(crate) fn job(&self, name: &str, epochs: u64) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "r2o.dev/v1", "kind": "TrainJob", "metadata": {"name": name},
            "spec": {
                "epochs": epochs,
                "data": {"url": self.path("set")},
                "batch": {"lanes": 2, "samplesPerLane": 4},
                "optimizer": {"warmupEpochs": 0},
                "fleet": {"maxWorkers": 1},
                "checkpoint": {"url": self.path(name)},
            }
        })
    }
}

pub(crate) async fn jobs(handle: &Handle) -> JobsClient<Channel> {
    JobsClient::connect(handle.url()).await.unwrap()
}

pub(crate) async fn submit(handle: &Handle, job: &serde_json::Value) -> Result<SubmitResponse, Status> {
    let request = SubmitRequest { spec: job.to_string(), dry_run: false };
    jobs(handle).await.submit(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn get(handle: &Handle, name: &str) -> Job {
    jobs(handle).await.get(GetJobRequest { name: name.to_owned() }).await.unwrap().into_inner()
}

/// Follows a job until `wanted` is true of it.
pub(crate) async fn until(handle: &Handle, name: &str, wanted: impl Fn(&Progress) -> bool) -> Progress {
    let request = WatchRequest { name: name.to_owned(), from_step: 0 };
    let mut stream = jobs(handle).await.watch(request).await.unwrap().into_inner();
    let mut last = Progress::default();
    let follow = async {
        while let Some(progress) = stream.message().await.unwrap() {
            last = progress;
            if wanted(&last) {
                return true;
            }
        }
        false
    };
    match tokio::time::timeout(SOON, follow).await {
        Ok(true) => last,
        Ok(false) => panic!("the job ended before: {last:?}"),
        Err(_) => panic!("{name} did not get there in time: {last:?}"),
    }
}

pub(crate) async fn events(handle: &Handle, name: &str) -> Vec<Event> {
    let request = EventsRequest { name: name.to_owned(), follow: false };
    let mut stream = jobs(handle).await.events(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        events.push(event);
    }
    events
}

/// Follows a job's events until one with this reason comes.
pub(crate) async fn event(handle: &Handle, name: &str, reason: &str) -> Event {
    let request = EventsRequest { name: name.to_owned(), follow: true };
    let mut stream = jobs(handle).await.events(request).await.unwrap().into_inner();
    let follow = async {
        while let Some(event) = stream.message().await.unwrap() {
            if event.reason == reason {
                return event;
            }
        }
        panic!("the job ended without {reason}");
    };
    tokio::time::timeout(SOON, follow).await.unwrap_or_else(|_| panic!("no {reason} in time"))
}

/// A worker that obeys without computing.
pub(crate) struct FakeWorker {
    pub(crate) outbox: mpsc::UnboundedSender<WorkerMessage>,
    pub(crate) inbox: Streaming<CoordinatorMessage>,
    pub(crate) rank: u32,
    pub(crate) lanes: Vec<u32>,
    pub(crate) spec: String,
    /// Every assignment that came.
    pub(crate) assignments: Vec<Assignment>,
}

impl FakeWorker {
    pub(crate) async fn join(handle: &Handle, name: &str) -> Self {
        Self::try_join(&handle.url(), name).await.expect("the coordinator serves")
    }

    /// Joins, unless the coordinator has gone.
    pub(crate) async fn try_join(url: &str, name: &str) -> Option<Self> {
        let (outbox, messages) = mpsc::unbounded_channel();
        let hello = Hello {
            worker: name.to_owned(),
            incarnation: PROCESSES.fetch_add(1, Ordering::Relaxed).to_string(),
            version: "0.1.0".to_owned(),
            device: "cpu".to_owned(),
            address: "127.0.0.1".to_owned(),
            threads: 1,
            held: None,
            protocol: r2o_proto::PROTOCOL,
        };
        outbox.send(WorkerMessage { kind: Some(Kind::Hello(hello)) }).unwrap();
        let mut client = FleetClient::connect(url.to_owned()).await.ok()?;
        let inbox = client.session(UnboundedReceiverStream::new(messages)).await.ok()?.into_inner();
        Some(Self { outbox, inbox, rank: 0, lanes: Vec::new(), spec: String::new(), assignments: Vec::new() })
    }

    pub(crate) fn say(&self, kind: Kind) {
        let _gone = self.outbox.send(WorkerMessage { kind: Some(kind) });
    }

    /// Obeys one order; what it was, or `None` when the stream has ended.
    pub(crate) async fn obey(&mut self) -> Option<To> {
        let order = tokio::time::timeout(SOON, self.inbox.message()).await.expect("an order in time").ok()??.kind?;
        match &order {
            To::Assignment(a) => {
                self.rank = a.rank;
                self.lanes.clone_from(&a.members[a.rank as usize].lanes);
                self.spec.clone_from(&a.spec);
                self.assignments.push(a.clone());
                self.say(Kind::Ready(Ready { job: a.job.clone(), generation: a.generation, step: a.step }));
            }
            To::Ticket(t) => self.report(t),
            To::TakeCheckpoint(c) => self.upload(c).await,
            To::Prepare(p) => self.say(Kind::Prepared(Prepared { job: p.job.clone() })),
            To::Welcome(_) | To::Release(_) | To::Refused(_) => {}
        }
        Some(order)
    }

    fn report(&self, t: &Ticket) {
        let plan = plan(&self.spec, t.epoch);
        let lane = |lane: &u32| LaneReport {
            lane: *lane,
            loss: 1.0 / (t.step + 1) as f64,
            first_position: plan.first_position(t.step_in_epoch, *lane),
            sample_digest: sample_digest(&plan.samples(t.step_in_epoch, *lane)),
            ..LaneReport::default()
        };
        self.say(Kind::StepReport(StepReport {
            job: t.job.clone(),
            generation: t.generation,
            step: t.step,
            lanes: self.lanes.iter().map(lane).collect(),
            gradient_norm: 0.5,
            timings: vec![Timing { phase: "forward".to_owned(), seconds: 0.25 }],
            signals: [("effective_rank", 40.0), ("made_up", 1.0)]
                .map(|(name, value)| Signal { name: name.to_owned(), value })
                .to_vec(),
            ..StepReport::default()
        }));
    }

    /// Uploads one tensor that depends on the step, as the real worker does.
    async fn upload(&self, c: &TakeCheckpoint) {
        let job = TrainJob::parse(&self.spec).unwrap();
        let store = open(&job.spec.checkpoint.url.unwrap()).unwrap();
        let written = write_object(&store, format!("{:08}", c.step)).await;
        let (tensors, error) = match written {
            Ok(object) => {
                let name = format!("t{}", self.rank);
                let tensor =
                    TensorObject { name, dtype: "U8".to_owned(), shape: vec![8], blake3: object.to_string(), bytes: 8 };
                (vec![tensor], String::new())
            }
            Err(error) => (Vec::new(), error.to_string()),
        };
        let (job, generation, step) = (c.job.clone(), c.generation, c.step);
        self.say(Kind::CheckpointPart(CheckpointPart { job, generation, step, tensors, error }));
    }

    /// Obeys in the background for ever.
    pub(crate) fn work(mut self) {
        let _runs = r2o_telemetry::spawn("fake worker", r2o_telemetry::TaskKind::Work, async move {
            while self.obey().await.is_some() {}
        });
    }

    /// Obeys until `wanted` is true of an order, which is not obeyed any more than that.
    pub(crate) async fn work_until(&mut self, wanted: impl Fn(&To) -> bool) {
        while !wanted(&self.obey().await.expect("the stream goes on")) {}
    }
}

/// The epochs of a run as its ledger proves them, up to `steps` steps.
pub(crate) async fn proven(place: &Place, name: &str, steps: u64) -> Vec<Epoch> {
    let store = open(&text(&place.path(name))).unwrap();
    let set = read_set(&open(&text(&place.path("set"))).unwrap()).await.unwrap();
    let job = TrainJob::parse(&run::read_job(&store).await.unwrap().unwrap().to_string()).unwrap();
    let kept = ledger::kept(ledger::read_all(&store).await.unwrap());
    prove(&Plan::of(&job, set.chunks()), &kept, steps).unwrap().epochs
}

/// The order of an epoch of a job on a [`Place`]'s set.
fn plan(spec: &str, epoch: u64) -> EpochPlan {
    let job = TrainJob::parse(spec).unwrap().spec;
    let chunks = [ChunkRef { shard: 0, first: 0, samples: SAMPLES }];
    let (batch, window) = (job.batch, job.data.shuffle_window_chunks);
    EpochPlan::new(&chunks, job.seed, epoch, batch.lanes, batch.samples_per_lane, window).unwrap()
}

pub(crate) fn is_ticket(order: &To, step: u64) -> bool {
    matches!(order, To::Ticket(t) if t.step == step)
}

pub(crate) fn names(message: &str, things: &[&str]) {
    for thing in things {
        assert!(message.contains(thing), "`{thing}` is not named in: {message}");
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
