//! A coordinator and its workers, as separate processes on loopback.

use std::{
    fs,
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

use crate::{Process, wait_until};

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
        Self::start_at("127.0.0.1:0", folder, name, state, more).await
    }

    /// [`Coordinator::start`] at a given address.
    pub async fn start_at(listen: &str, folder: &Path, name: &str, state: &str, more: &[&str]) -> Result<Self> {
        let mut process = Self::launch_at(listen, folder, name, state, more)?;
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
        Self::launch_at("127.0.0.1:0", folder, name, state, more)
    }

    fn launch_at(listen: &str, folder: &Path, name: &str, state: &str, more: &[&str]) -> Result<Process> {
        let file = address_file(folder, name);
        let _ = fs::remove_file(&file);
        let file = file.to_string_lossy().into_owned();
        let mut arguments = vec!["--listen", listen, "--address-file", &file, "--state", state];
        arguments.extend(more);
        Process::start("r2o-coordinator", name, folder, arguments, &[])
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
}

impl Worker {
    /// Starts a CPU worker of the coordinator at `url`.
    pub fn start(folder: &Path, name: &str, url: &str, options: &WorkerOptions) -> Result<Self> {
        let threads = options.threads.max(1).to_string();
        let mut arguments = vec!["run", "--coordinator", url, "--name", name, "--device", "cpu", "--threads", &threads];
        arguments.extend(["--advertise", "127.0.0.1"]);
        if options.audit {
            arguments.push("--audit");
        }
        arguments.extend(options.more.iter().map(String::as_str));
        Ok(Self { process: Process::start("r2o-worker", name, folder, arguments, &[])? })
    }
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
    options: WorkerOptions,
    coordinator_options: Vec<String>,
    restarts: u32,
}

impl Fleet {
    /// Starts a coordinator and `workers` workers named `worker-0`, `worker-1`, ...
    pub async fn start(workers: usize, options: WorkerOptions) -> Result<Self> {
        Self::start_with(workers, options, &[]).await
    }

    /// [`Fleet::start`] with further arguments for the coordinator.
    pub async fn start_with(workers: usize, options: WorkerOptions, coordinator: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("r2o-fleet-").tempdir()?;
        let state = folder.path().join("state");
        fs::create_dir_all(&state)?;
        let coordinator_options = coordinator.iter().map(|s| (*s).to_owned()).collect();
        let coordinator = Coordinator::start(folder.path(), "coordinator", &file_url(&state), coordinator).await?;
        let mut fleet = Self { workers: Vec::new(), coordinator, folder, options, coordinator_options, restarts: 0 };
        for index in 0..workers {
            fleet.add_worker(&format!("worker-{index}"))?;
        }
        Ok(fleet)
    }

    /// Starts the coordinator again, at its old address and on its old state, once its process has ended.
    pub async fn restart_coordinator(&mut self) -> Result<()> {
        let url = self.coordinator.url.clone();
        let listen = url.trim_start_matches("http://");
        let state = file_url(&self.state());
        self.restarts += 1;
        let name = format!("coordinator-{}", self.restarts);
        let options: Vec<&str> = self.coordinator_options.iter().map(String::as_str).collect();
        self.coordinator = Coordinator::start_at(listen, self.folder.path(), &name, &state, &options).await?;
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
        let worker = Worker::start(self.folder.path(), name, &self.coordinator.url, &self.options)?;
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

/// A folder as a `file://` URL.
fn file_url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}
