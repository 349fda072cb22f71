//! What a coordinator is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use r2o_coordinator_core::Config;
use r2o_telemetry::otlp::OtlpOptions;
use r2o_transport::{Limits, ServerTlsFiles};

/// What a coordinator is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the web server listens; `None`: there is none.
    pub web: Option<SocketAddr>,
    /// The certificate of both servers, and whether workers and people must show one too; `None`: no encryption.
    pub tls: Option<ServerTlsFiles>,
    /// Connections of each server, and how long a stranger may keep one.
    pub connections: Limits,
    /// Where the journal, the leader's lease and, by default, the jobs' results lie: any object-store URL or a folder.
    pub state: String,
    /// A file that gets the URL at which this coordinator serves, once it does.
    pub address_file: Option<PathBuf>,
    /// The core's spans of time.
    pub core: Config,
    /// How long the leader's lease holds without being renewed.
    pub leader_lease: Duration,
    /// How often history and events are written while a job runs.
    pub flush: Duration,
    /// Whether to wait while another coordinator leads, and take over when it is gone, rather than to fail.
    pub standby: bool,
    /// The file of tokens that are served; `None`: everybody is.
    pub tokens: Option<PathBuf>,
    /// How long a worker whose token was taken back may take to show another.
    pub token_grace: Duration,
    /// Where this coordinator's clock begins: the system's, except in tests of clocks that are wrong.
    pub clock: SystemTime,
    /// Where traces and metrics go, if anywhere.
    pub otlp: OtlpOptions,
    /// Share of step windows that are traced, from 0 to 1.
    pub trace_ratio: f64,
    /// Journal records after which one repeats them all, and they are deleted.
    pub compact_after: u64,
}

impl Options {
    /// The usual values, on a free loopback port.
    #[must_use]
    pub fn new(state: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            web: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            tls: None,
            connections: Limits::of_process(),
            state: state.into(),
            address_file: None,
            core: Config::default(),
            leader_lease: Duration::from_secs(15),
            flush: Duration::from_secs(5),
            standby: false,
            tokens: None,
            token_grace: Duration::from_secs(10),
            clock: SystemTime::now(),
            otlp: OtlpOptions::default(),
            trace_ratio: 1.0,
            compact_after: 1_000,
        }
    }
}
