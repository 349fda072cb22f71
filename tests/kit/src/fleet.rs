//! A coordinator and its workers, as separate processes on loopback.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use r2o_proto::v1::{
    GetJobRequest, Job, JobState, SubmitRequest, fleet_client::FleetClient, jobs_client::JobsClient,
    rendezvous_client::RendezvousClient,
};
use r2o_types::TrainJob;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{Host, Network, Process, binary, free_port, wait_until};

/// How long a program may take to come up on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Largest answer that a test accepts, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    /// Its process.
    pub process: Process,
    /// Its address as a URL, `http://127.0.0.1:PORT`.
    pub url: String,
}

impl Coordinator {
    /// Starts a coordinator on a free port, with its state under `state` (any object-store URL), and waits until it
    /// listens. `name` names its log and address file in `folder`.
    pub async fn start(folder: &Path, name: &str, state: &str, more: &[&str]) -> Result<Self> {
        Self::start_at("127.0.0.1:0", folder, name, state, more, &[]).await
    }

    /// [`Coordinator::start`] at a given address, with more environment.
    pub async fn start_at(
        listen: &str,
        folder: &Path,
        name: &str,
        state: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut process = Self::launch_at(listen, folder, name, state, more, environment)?;
        let file = address_file(folder, name);
        let listening = std::cell::RefCell::new(&mut process);
        let address = wait_until(&format!("{name} listens"), START, || async {
            if let Some(address) = fs::read_to_string(&file).ok().filter(|text| !text.trim().is_empty()) {
                return Ok(Some(address.trim().to_owned()));
            }
            listening.borrow_mut().must_run()?;
            Ok(None)
        })
        .await?;
        let url = if address.starts_with("http") { address } else { format!("http://{address}") };
        Ok(Self { process, url })
    }

    /// Starts a coordinator without waiting: for tests of coordinators that refuse to start.
    pub fn launch(folder: &Path, name: &str, state: &str, more: &[&str]) -> Result<Process> {
        Self::launch_at("127.0.0.1:0", folder, name, state, more, &[])
    }

    fn launch_at(
        listen: &str,
        folder: &Path,
        name: &str,
        state: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        let file = address_file(folder, name);
        let _ = fs::remove_file(&file);
        let file = file.to_string_lossy().into_owned();
        let mut arguments = vec!["--listen", listen, "--address-file", &file, "--state", state];
        arguments.extend(more);
        Process::start("r2o-coordinator", name, folder, arguments, environment)
    }

    /// A connection to it.
    pub async fn channel(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(self.url.clone())?;
        endpoint.connect().await.with_context(|| format!("cannot reach {}", self.url))
    }

    /// A client for people's requests.
    pub async fn jobs(&self) -> Result<JobsClient<Channel>> {
        Ok(JobsClient::new(self.channel().await?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A client that speaks as a worker.
    pub async fn fleet(&self) -> Result<FleetClient<Channel>> {
        Ok(FleetClient::new(self.channel().await?))
    }

    /// A client of the rendezvous store.
    pub async fn rendezvous(&self) -> Result<RendezvousClient<Channel>> {
        Ok(RendezvousClient::new(self.channel().await?))
    }
}

fn address_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.address"))
}

/// What a worker is started with.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// CPU threads; 0: one.
    pub threads: u32,
    /// Compute digests of pixels and masks.
    pub audit: bool,
    /// Further arguments.
    pub more: Vec<String>,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Its process.
    pub process: Process,
    /// Where it runs; none: on loopback.
    pub host: Option<Host>,
}

impl Worker {
    /// Starts a CPU worker of the coordinator at `url`, on this machine's loopback.
    pub fn start(folder: &Path, name: &str, url: &str, options: &WorkerOptions) -> Result<Self> {
        Self::start_on(None, folder, name, url, options, &[])
    }

    /// [`Worker::start`] on a host of a network, with more environment.
    pub fn start_on(
        host: Option<&Host>,
        folder: &Path,
        name: &str,
        url: &str,
        options: &WorkerOptions,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let program = binary("r2o-worker")?;
        let (program, mut arguments) = match host {
            Some(host) => host.command(&program),
            None => (program.as_path(), Vec::new()),
        };
        let address = host.map_or(Ipv4Addr::LOCALHOST, |host| host.address).to_string();
        let threads = options.threads.max(1).to_string();
        let run = ["run", "--coordinator", url, "--name", name, "--device", "cpu", "--threads", &threads];
        arguments.extend(run.iter().chain(&["--advertise", &address]).map(|word| (*word).to_owned()));
        if options.audit {
            arguments.push("--audit".to_owned());
        }
        arguments.extend(options.more.iter().cloned());
        let process = Process::start_path(program, name, folder, arguments, environment)?;
        Ok(Self { process, host: host.cloned() })
    }
}

/// What a fleet is started with.
#[derive(Debug, Default)]
pub struct FleetOptions {
    /// Of every worker.
    pub worker: WorkerOptions,
    /// Further arguments of the coordinator.
    pub coordinator: Vec<String>,
    /// The coordinator's state, any object-store URL; none: a folder of the fleet's own.
    pub state: Option<String>,
    /// More environment of all programs.
    pub environment: Vec<(String, String)>,
    /// Every worker is on a host of its own in this network, and the coordinator is at its gateway; none: all are on
    /// loopback.
    pub network: Option<Network>,
}

/// A coordinator with workers, in a temporary folder that goes with it.
#[derive(Debug)]
pub struct Fleet {
    // Fields drop in order: processes end before their folder goes.
    /// The workers, in the order in which they were started.
    pub workers: Vec<Worker>,
    /// The coordinator.
    pub coordinator: Coordinator,
    folder: TempDir,
    /// What it was started with; the network goes after the processes.
    pub options: FleetOptions,
    restarts: u32,
}

impl Fleet {
    /// Starts a coordinator and `workers` workers named `worker-0`, `worker-1`, ...
    pub async fn start(workers: usize, worker: WorkerOptions) -> Result<Self> {
        Self::start_with(workers, FleetOptions { worker, ..FleetOptions::default() }).await
    }

    /// [`Fleet::start`] with everything else that may be said.
    pub async fn start_with(workers: usize, options: FleetOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("r2o-fleet-").tempdir()?;
        fs::create_dir_all(folder.path().join("state"))?;
        let address = options.network.as_ref().map_or(Ipv4Addr::LOCALHOST, Network::gateway);
        let coordinator =
            launch(&format!("{address}:{}", free_port()?), folder.path(), "coordinator", &options).await?;
        let mut fleet = Self { workers: Vec::new(), coordinator, folder, options, restarts: 0 };
        for index in 0..workers {
            fleet.add_worker(&format!("worker-{index}"))?;
        }
        Ok(fleet)
    }

    /// Starts the coordinator again, at its old address and on its old state, once its process has ended.
    pub async fn restart_coordinator(&mut self) -> Result<()> {
        let listen = self.coordinator.url.trim_start_matches("http://").to_owned();
        self.restarts += 1;
        let name = format!("coordinator-{}", self.restarts);
        self.coordinator = launch(&listen, self.folder.path(), &name, &self.options).await?;
        Ok(())
    }

    /// The temporary folder, with `state/` and the logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the coordinator's state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts one more worker.
    pub fn add_worker(&mut self, name: &str) -> Result<()> {
        let host = self.options.network.as_mut().map(Network::add).transpose()?;
        let (folder, url, options) = (self.folder.path(), &self.coordinator.url, &self.options);
        let environment = borrowed(&options.environment);
        let worker = Worker::start_on(host.as_ref(), folder, name, url, &options.worker, &environment)?;
        self.workers.push(worker);
        Ok(())
    }

    /// Submits a job and gives back what the coordinator made of it.
    pub async fn submit(&self, job: &TrainJob) -> Result<Job> {
        let spec = serde_json::to_string(job)?;
        let answer = self.coordinator.jobs().await?.submit(SubmitRequest { spec, dry_run: false }).await?;
        answer.into_inner().job.context("the coordinator answered without a job")
    }

    /// The job as the coordinator sees it.
    pub async fn job(&self, name: &str) -> Result<Job> {
        let request = GetJobRequest { name: name.to_owned() };
        Ok(self.coordinator.jobs().await?.get(request).await?.into_inner())
    }

    /// Waits until the job has `step` committed steps or more.
    ///
    /// Errors: the job ends before that, a process dies, or the deadline passes.
    pub async fn wait_step(&mut self, name: &str, step: u64, deadline: Duration) -> Result<Job> {
        self.wait_job(name, &format!("{name} reaches step {step}"), deadline, |job| {
            Ok(job.progress.as_ref().is_some_and(|progress| progress.step >= step))
        })
        .await
    }

    /// Waits until the job ends, and fails when it did not succeed.
    pub async fn wait_success(&mut self, name: &str, deadline: Duration) -> Result<Job> {
        self.wait_job(name, &format!("{name} succeeds"), deadline, |job| Ok(job.state() == JobState::Succeeded)).await
    }

    /// Waits until `holds` is true of the job. A job that failed or was cancelled ends the wait, unless `holds` is true
    /// of it.
    pub async fn wait_job(
        &mut self,
        name: &str,
        what: &str,
        deadline: Duration,
        holds: impl Fn(&Job) -> Result<bool>,
    ) -> Result<Job> {
        let waited = wait_until(what, deadline, || async {
            let job = self.job(name).await?;
            if holds(&job)? {
                return Ok(Some(job));
            }
            match job.state() {
                JobState::Failed | JobState::Cancelled | JobState::Succeeded => {
                    bail!("{name} is {}: {}", job.state().as_str_name(), job.reason)
                }
                JobState::Unspecified
                | JobState::Queued
                | JobState::Starting
                | JobState::Running
                | JobState::Paused => Ok(None),
            }
        })
        .await;
        waited.map_err(|error| error.context(self.logs(15)))
    }

    /// The last lines of every process, for an error.
    pub fn logs(&self, lines: usize) -> String {
        let processes = self.workers.iter().map(|worker| &worker.process).chain([&self.coordinator.process]);
        processes.map(|process| format!("--- {}\n{}\n", process.name(), process.log_tail(lines))).collect()
    }
}

async fn launch(listen: &str, folder: &Path, name: &str, options: &FleetOptions) -> Result<Coordinator> {
    let state = options.state.clone().unwrap_or_else(|| file_url(&folder.join("state")));
    let mut more: Vec<&str> = options.coordinator.iter().map(String::as_str).collect();
    // Beside `listen` there may be another fleet.
    if !more.contains(&"--http") && !options.environment.iter().any(|(name, _)| name == "R2O_HTTP") {
        more.extend(["--http", "127.0.0.1:0"]);
    }
    Coordinator::start_at(listen, folder, name, &state, &more, &borrowed(&options.environment)).await
}

fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A folder as a `file://` URL.
fn file_url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}
