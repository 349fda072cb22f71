//! The shell around the worker's core: it moves events in and carries commands out.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use r2o_data::{CacheOptions, StreamOptions};
use r2o_engine::host::Device;
use r2o_proto::token::{TokenChannel, TokenFile};
use r2o_proto::v1::worker_message::Kind;
use r2o_proto::v1::{Draining, Goodbye, Hello, LogLine, Prepared, Ready};
use r2o_telemetry::otlp::{Resource, Spans, place};
use r2o_telemetry::{LogOptions, TaskHandle, TaskKind};
use r2o_transport::{Alpn, ClientTls, Incoming, Limits, ServerTls, ServerTlsFiles, receiver, web};
use r2o_worker_core::{Command, Core, Event, ExitReason};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cli::RunOptions;
use crate::gpu::Gpu;
use crate::leave::{Request, Requests};
use crate::metrics::{self, Metrics, Shown};
use crate::session::{self, Outbox};
use crate::trainer::{self, Task, Trainer};
use crate::{logs, wire};

const EXIT_REFUSED: u8 = 3;
const EXIT_FORCED: u8 = 4;
const EXIT_STUCK: i32 = 5;
/// Of probes and monitoring.
const WEB_CONNECTIONS: usize = 64;

/// Runs a worker until it is drained or refused.
pub(crate) fn run(options: RunOptions) -> ExitCode {
    let (tap, lines) = logs::forward();
    let name = options.name.clone().unwrap_or_else(default_name);
    let fields = vec![("worker", name.clone())];
    let log = LogOptions { format: options.log_format, filter: None, fields };
    let served = r2o_telemetry::init_with(&log, Some(tap))
        .context("cannot set up logging")
        .and_then(|()| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.context("cannot start the runtime")
        })
        .and_then(|runtime| runtime.block_on(serve(options, name, lines)));
    match served {
        Ok(ExitReason::Drained) => ExitCode::SUCCESS,
        Ok(ExitReason::Forced) => ExitCode::from(EXIT_FORCED),
        Ok(ExitReason::Refused(reason)) => {
            eprintln!("r2o-worker: the coordinator refused this worker: {reason}");
            ExitCode::from(EXIT_REFUSED)
        }
        Err(error) => {
            eprintln!("r2o-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that the loop below owns.
struct Agent {
    core: Core,
    channel: TokenChannel,
    token: TokenFile,
    hello: watch::Sender<Hello>,
    events: mpsc::UnboundedSender<Event>,
    outboxes: mpsc::UnboundedSender<Outbox>,
    outbox: Option<Outbox>,
    trainer: Trainer,
    /// Whose lines the log shows: the job of the newest assignment.
    job: String,
    abort_deadline: Duration,
    drain_deadline: Duration,
}

/// Serves, and sends what is traced and measured last.
async fn serve(options: RunOptions, name: String, lines: mpsc::Receiver<LogLine>) -> Result<ExitReason> {
    let device = trainer::device(options.device)?;
    let gpu = device.cuda_index().and_then(|_| Gpu::open()).map(Arc::new);
    let shown = Shown { metrics: Metrics::default(), tls: certificate(&options.tls)?, gpu };
    let mut otlp = receiver::send(&options.otlp, &Resource::of_process("r2o-worker", &name), shown.sent())?;
    let reason = work(options, name, device, lines, shown, otlp.spans()).await;
    otlp.finish().await;
    reason
}

async fn work(
    options: RunOptions,
    name: String,
    device: Device,
    mut lines: mpsc::Receiver<LogLine>,
    shown: Shown,
    spans: Spans,
) -> Result<ExitReason> {
    let threads = options.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let hello = Hello {
        worker: name.clone(),
        incarnation: uuid::Uuid::new_v4().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device.to_string(),
        address: options.advertise.clone(),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        held: None,
        protocol: r2o_proto::PROTOCOL,
    };
    let token = TokenFile::new(options.token_file.clone());
    let channel = token.clone().on(session::channel(&options.coordinator, options.tls.clone())?);
    let (events, mut event_queue) = mpsc::unbounded_channel();
    let (outboxes, mut outbox_queue) = mpsc::unbounded_channel();
    let cache = options.cache_dir.zip(options.cache_bytes).map(|(folder, bytes)| CacheOptions { folder, bytes });
    // Before any job: a job must not fail because of one worker's folder.
    cache.as_ref().map(CacheOptions::check).transpose()?;
    let stream = StreamOptions { memory_bytes: options.loader_memory, cache, ..StreamOptions::default() };
    let settings = trainer::Settings {
        device,
        threads,
        loader_threads: options.loader_threads.unwrap_or(threads),
        stream,
        collective_timeout: Duration::from_secs(options.collective_timeout),
        audit: options.audit,
        flip_bit_at: options.flip_bit_at,
        advertise: options.advertise,
        channel: channel.clone(),
        metrics: Arc::clone(&shown.metrics),
        spans,
        name: name.clone(),
        runtime: tokio::runtime::Handle::current(),
    };
    let mut agent = Agent {
        core: Core::new(),
        channel,
        token,
        hello: watch::Sender::new(hello),
        trainer: Trainer::start(settings, events.clone())?,
        events,
        outboxes,
        outbox: None,
        job: String::new(),
        abort_deadline: Duration::from_secs(options.abort_deadline),
        drain_deadline: Duration::from_secs(options.drain_deadline),
    };
    let (pages, stop) = (web::Pages::default(), CancellationToken::new());
    let _web = match options.http {
        Some(address) => Some(serve_web(address, shown.tls.clone(), pages.clone(), stop.clone()).await?),
        None => None,
    };
    let _stops_at_the_end = stop.drop_guard();
    let mut requests = Requests::listen(options.preemption_file)?;
    tracing::info!(worker = name, device = %device, threads, "worker started");
    agent.connect();
    pages.open(metrics::page(shown));
    loop {
        // An outbox comes before the Connected event that belongs to it, hence the fixed order.
        let event = tokio::select! {
            biased;
            Some(outbox) = outbox_queue.recv() => { agent.outbox = Some(outbox); continue; }
            Request { reason, left } = requests.next() => {
                agent.leave_in_time(&reason, left);
                Event::Drain { reason }
            }
            Some(event) = event_queue.recv() => event,
            Some(line) = lines.recv(), if agent.outbox.is_some() => {
                let job = agent.job.clone();
                agent.send(Kind::LogLine(LogLine { job, ..line }));
                continue;
            }
        };
        let commands = agent.core.handle(event);
        agent.hello.send_if_modified(|hello| {
            let held = agent.core.held().map(wire::held);
            let changed = hello.held != held;
            hello.held = held;
            changed
        });
        for command in commands {
            if let Some(reason) = agent.carry_out(command) {
                return Ok(reason);
            }
        }
    }
}

/// What it serves its own pages with, if it has a certificate.
fn certificate(tls: &ClientTls) -> Result<Option<ServerTls>> {
    let files = tls.cert.clone().zip(tls.key.clone()).map(|(cert, key)| ServerTlsFiles { cert, key, client_ca: None });
    Ok(files.map(|files| ServerTls::open(files, Alpn::Web)).transpose()?)
}

/// Probes and metrics, which say nothing that is secret: in TLS when this worker has a certificate.
async fn serve_web(
    address: SocketAddr,
    tls: Option<ServerTls>,
    pages: web::Pages,
    stop: CancellationToken,
) -> Result<TaskHandle<std::io::Result<()>>> {
    let cannot = || format!("cannot listen on {address}; choose another --http address");
    let listener = TcpListener::bind(address).await.with_context(cannot)?;
    let incoming = Incoming::new(listener, tls, Limits { connections: WEB_CONNECTIONS, ..Limits::of_process() })?;
    Ok(r2o_telemetry::spawn("web", TaskKind::Session, web::serve(incoming, pages, stop)))
}

impl Agent {
    fn connect(&mut self) {
        self.outbox = None;
        let (channel, token) = (self.channel.clone(), self.token.clone());
        session::open(channel, token, self.hello.subscribe(), self.events.clone(), self.outboxes.clone());
    }

    fn send(&self, kind: Kind) {
        if let Some(outbox) = &self.outbox {
            outbox.send(wire::message(kind));
        }
    }

    /// Carries one command out; a reason means that the process ends.
    fn carry_out(&mut self, command: Command) -> Option<ExitReason> {
        match command {
            Command::Form(assignment) => {
                let _place = place(assignment.trace).entered();
                tracing::info!(
                    job = assignment.job,
                    generation = assignment.generation,
                    rank = assignment.rank,
                    world = assignment.members.len(),
                    step = assignment.step,
                    "joining a generation"
                );
                assignment.job.clone_into(&mut self.job);
                if let Some(outbox) = &self.outbox {
                    self.trainer.submit(Task::Form { assignment: Arc::new(assignment), outbox: outbox.clone() });
                }
            }
            Command::Compute { generation, ticket } => self.trainer.submit(Task::Compute { generation, ticket }),
            Command::CopyOut { generation, step, trace } => {
                self.trainer.submit(Task::CopyOut { generation, step, trace });
            }
            Command::SendReady { job, generation, step } => self.send(Kind::Ready(Ready { job, generation, step })),
            Command::SendFailure { job, generation, step, failure } => {
                tracing::error!(job, generation, step, "{failure:?}");
                if let Some(outbox) = &self.outbox {
                    outbox.send(wire::failure(job, generation, step, failure));
                }
            }
            Command::Abort { generation } => {
                self.trainer.abort(generation);
                self.watch_abort(generation);
            }
            Command::Prepare { job, spec } => self.trainer.submit(Task::Prepare { job, spec }),
            Command::SendPrepared { job } => self.send(Kind::Prepared(Prepared { job })),
            Command::SendDraining { reason } => self.send(Kind::Draining(Draining { reason })),
            Command::Park { generation } => self.trainer.submit(Task::Park { generation }),
            Command::Discard { generation } => self.trainer.submit(Task::Discard { generation }),
            Command::Reconnect => self.connect(),
            Command::Exit(reason) => {
                self.send(Kind::Goodbye(Goodbye { reason: format!("{reason:?}") }));
                return Some(reason);
            }
        }
        None
    }
}

impl Agent {
    /// Asks a second time, and so leaves at once, when handing over takes longer than whoever asked will wait.
    fn leave_in_time(&self, reason: &str, left: Option<Duration>) {
        tracing::info!("{reason}: finishes what is granted, hands over and leaves");
        let (events, deadline) = (self.events.clone(), left.unwrap_or(self.drain_deadline));
        let _runs_on = r2o_telemetry::spawn("drain deadline", TaskKind::Work, async move {
            tokio::time::sleep(deadline).await;
            let _gone = events.send(Event::Drain { reason: "the drain deadline has passed".to_owned() });
        });
    }

    /// The backstop: a computing thread that abort does not wake holds its memory and its device, and only the end of the
    /// process frees them. Whatever supervises it starts it again.
    fn watch_abort(&self, generation: u64) {
        let Some(task) = self.trainer.at_work() else { return };
        let (trainer, deadline) = (self.trainer.clone(), self.abort_deadline);
        let _runs_on = r2o_telemetry::spawn("abort deadline", TaskKind::Work, async move {
            tokio::time::sleep(deadline).await;
            if trainer.at_work() == Some(task) {
                let seconds = deadline.as_secs();
                eprintln!("r2o-worker: generation {generation} was not left {seconds} s after its abort: exits");
                std::process::exit(EXIT_STUCK);
            }
        });
    }
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "worker".to_owned());
    format!("{}-{}", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::DeviceChoice;

    #[test]
    fn the_default_device_is_named_as_pytorch_names_it() {
        assert_eq!(trainer::device(DeviceChoice::Cpu).unwrap().to_string(), "cpu");
    }
}
