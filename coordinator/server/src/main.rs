//! `r2o-coordinator`: the clock, the membership and the truth of a fleet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use r2o_coordinator::{Ended, Options, Service};
use r2o_telemetry::otlp::OtlpOptions;
use r2o_telemetry::{LogFormat, LogOptions, build_info};
use r2o_transport::{ServerTlsFiles, web};

/// Coordinates training jobs: queues them, forms generations of workers, grants steps, commits checkpoints.
#[derive(Debug, Parser)]
#[command(name = "r2o-coordinator", version)]
struct Cli {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "R2O_LISTEN", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// Address of the status page, /metrics, /livez and /readyz, or off [default: the port after --listen's].
    #[arg(long, env = "R2O_HTTP", value_name = "ADDRESS", hide_default_value = true)]
    http: Option<WebAddress>,
    /// Certificate to serve with, in PEM, with those between it and its authority; read again when it changes.
    #[arg(long, env = "R2O_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, env = "R2O_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authorities of clients, in PEM: workers and r2octl must show a certificate of theirs.
    #[arg(long, env = "R2O_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Folder or object-store URL of the journal and, by default, of the jobs' results.
    #[arg(long, env = "R2O_STATE")]
    state: String,
    /// File that gets the URL at which the coordinator serves, once it does.
    #[arg(long)]
    address_file: Option<PathBuf>,
    /// Seconds after which a silent worker is lost.
    #[arg(long, default_value_t = 2.0)]
    worker_lease: f64,
    /// Seconds that a job with enough workers waits for more.
    #[arg(long, default_value_t = 2.0)]
    join_window: f64,
    /// Seconds without a committed step after which a generation has stalled.
    #[arg(long, default_value_t = 300.0)]
    stall_timeout: f64,
    /// Steps after which workers compare hashes of their states; 0 for never.
    #[arg(long, default_value_t = 100)]
    parity_steps: u64,
    /// Seconds that a coordinator's lead over the state lasts when it is not renewed.
    #[arg(long, default_value_t = 15.0)]
    leader_lease: f64,
    /// Wait while another coordinator leads, and take over when it is gone.
    #[arg(long)]
    standby: bool,
    /// File of the tokens that are served, each line a role (worker, reader, submitter, admin) and a token; it is read
    /// again when it changes.
    #[arg(long, env = "R2O_TOKENS", value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Where traces and metrics go.
    #[command(flatten)]
    otlp: OtlpOptions,
    /// Share of step windows that are traced, from 0 to 1; recoveries and checkpoints always are.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "SHARE", default_value_t = 1.0)]
    trace_ratio: f64,
    /// Look of log lines: text or json.
    #[arg(long, env = "R2O_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Filter of log lines, like `info,r2o_coordinator=debug`.
    #[arg(long)]
    log: Option<String>,
}

/// Where the web server listens, if it does.
#[derive(Debug, Clone, Copy)]
struct WebAddress(Option<SocketAddr>);

impl FromStr for WebAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            text => text
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| "write an IP address and a port, like 0.0.0.0:7071, or off".to_owned()),
        }
    }
}

impl Cli {
    fn options(&self) -> Result<Options> {
        let seconds = |name: &str, value: f64| match Duration::try_from_secs_f64(value) {
            Ok(span) if !span.is_zero() => Ok(span),
            _ => bail!("--{name} {value}: must be a number of seconds above 0"),
        };
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let mut options = Options::new(&self.state);
        options.listen = self.listen;
        options.web = self.http.map_or_else(|| Some(web::beside(self.listen)), |WebAddress(address)| address);
        options.tls = self.tls_cert.clone().zip(self.tls_key.clone()).map(|(cert, key)| ServerTlsFiles {
            cert,
            key,
            client_ca: self.tls_client_ca.clone(),
        });
        options.address_file.clone_from(&self.address_file);
        options.core.lease_ms = ms(seconds("worker-lease", self.worker_lease)?);
        options.core.stall_ms = ms(seconds("stall-timeout", self.stall_timeout)?);
        options.core.parity_steps = self.parity_steps;
        options.core.join_window_ms = (self.join_window.max(0.0) * 1000.0) as u64;
        options.leader_lease = seconds("leader-lease", self.leader_lease)?;
        options.standby = self.standby;
        options.tokens.clone_from(&self.tokens);
        options.otlp = self.otlp.clone();
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            bail!("--trace-ratio {}: must be from 0 to 1", self.trace_ratio);
        }
        options.trace_ratio = self.trace_ratio;
        Ok(options)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = LogOptions { format: cli.log_format, filter: cli.log.clone(), fields: Vec::new() };
    if let Err(error) = r2o_telemetry::init(&log) {
        eprintln!("r2o-coordinator: {error}");
        return ExitCode::from(2);
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("r2o-coordinator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let options = cli.options()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        tracing::info!("r2o-coordinator {} on state {}", build_info(), options.state);
        if options.tls.is_none() && options.tokens.is_some() && !options.listen.ip().is_loopback() {
            tracing::warn!("tokens cross the network unencrypted: give --tls-cert and --tls-key");
        }
        if options.tokens.is_none() && !options.listen.ip().is_loopback() {
            tracing::warn!(
                "listens on {} and serves everybody who reaches it: give --tokens FILE, or listen on 127.0.0.1",
                options.listen
            );
        }
        let started = tokio::select! {
            started = Service::start(options) => started,
            signal = signalled() => {
                tracing::info!("{}: stopping", signal?);
                return Ok(());
            }
        };
        let mut handle = started?;
        let ended = tokio::select! {
            ended = handle.ended() => ended,
            signal = signalled() => {
                tracing::info!("{}: stopping", signal?);
                Ended::Asked
            }
        };
        handle.shutdown().await;
        match ended {
            Ended::Asked => Ok(()),
            Ended::LostLeadership(reason) | Ended::Failed(reason) => bail!(reason),
        }
    })
}

/// Waits for SIGTERM or ctrl-c.
async fn signalled() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
