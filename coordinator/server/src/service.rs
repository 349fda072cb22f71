//! From options to a running coordinator.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use r2o_coordinator_core::{Core, Fold, Gate, UnknownRecord};
use r2o_proto::v1::fleet_server::FleetServer;
use r2o_proto::v1::jobs_server::JobsServer;
use r2o_proto::v1::rendezvous_server::RendezvousServer;
use r2o_storage::journal::{Journal, JournalError};
use r2o_storage::leader::{self, AcquireError, Holder, Lease};
use r2o_storage::{StorageError, Store};
use r2o_telemetry::otlp::{Metrics as Sent, Otlp, Resource};
use r2o_telemetry::{TaskHandle, TaskKind, chain, spawn};
use r2o_transport::receiver::{self, ReceiverError};
use r2o_transport::{Alpn, Incoming, ServerTls, ServerTlsFiles, TlsError, web};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::actor::{Actor, Lost, Mailbox, Message};
use crate::api::JobsService;
use crate::board::Board;
use crate::clock::Clock;
use crate::fleet::FleetService;
use crate::guard::Guarded;
use crate::lead::{self, Lead};
use crate::limits;
use crate::metrics::{Metrics, Shown};
use crate::options::Options;
use crate::page::{self, Door};
use crate::rendezvous::Rooms;
use crate::scribe::Scribe;
use crate::tokens::{Tokens, TokensError};
use crate::traces::Traces;
use crate::web::guarded;

const PING_EVERY: Duration = Duration::from_secs(10);
/// How often a coordinator that stands by looks at the lease.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long open requests may take to end after the streams were told to.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be had.
    #[error("cannot listen on {address}; choose another {option} address, or port 0 for a free one")]
    Listen {
        /// The option that gave it.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate cannot be served with.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Traces and metrics cannot be sent.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The state's storage cannot be used.
    #[error(transparent)]
    State(#[from] StorageError),
    /// Another coordinator leads, or the lease cannot be had.
    #[error(transparent)]
    Leader(#[from] AcquireError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal says something that this version does not know.
    #[error(transparent)]
    Record(#[from] UnknownRecord),
    /// Another coordinator wrote to the journal while this one started.
    #[error("{0}")]
    Lost(String),
    /// The address file cannot be written.
    #[error("cannot write the address file {}", path.display())]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Why a coordinator ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// Another one leads.
    LostLeadership(String),
    /// The server failed.
    Failed(String),
}

/// A coordinator.
#[derive(Debug)]
pub struct Service;

/// A running coordinator. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Handle {
    url: String,
    web: Option<String>,
    mailbox: Mailbox,
    stop: CancellationToken,
    actor: TaskHandle<Result<(), Lost>>,
    server: TaskHandle<Result<(), tonic::transport::Error>>,
    /// Ends with the rest; without it training goes on.
    _web_server: Option<TaskHandle<()>>,
    lease: TaskHandle<Option<String>>,
    otlp: Otlp,
}

impl Service {
    /// Takes the lead over the state, reads the journal, and serves.
    ///
    /// # Errors
    /// [`StartError`] says what to do; nothing is left behind.
    pub async fn start(options: Options) -> Result<Handle, StartError> {
        let tokens = Tokens::open(options.tokens.as_deref())?;
        let doors = Doors::open(&options).await?;
        let state = r2o_storage::open(&options.state)?;
        let clock = Clock::starting_at(options.clock);
        let ttl = i64::try_from(options.leader_lease.as_millis()).unwrap_or(i64::MAX);
        // Nobody must find an address where nothing is served yet: it listens once it may lead.
        let before = if options.standby { Some(stand_by(&state, clock).await?) } else { None };
        let listener = listen("--listen", options.listen).await?;
        let address = listener.local_addr().map_err(|e| cannot_listen("--listen", options.listen, e))?;
        let url = doors.url(address);
        let lease = match before {
            Some(watch) => watch.take_over(Holder::this_process(&url), ttl, clock.unix_ms()).await?,
            None => leader::acquire(&state, Holder::this_process(&url), ttl, clock.unix_ms()).await?,
        };
        match serve(&options, doors, (listener, url), state, clock, lease, tokens).await {
            Ok(handle) => {
                let web = handle.web_url().map(|web| format!(", its page is at {web}")).unwrap_or_default();
                tracing::info!("serves at {}{web}", handle.url());
                Ok(handle)
            }
            Err((error, lease)) => {
                lead::give_back(lease).await;
                Err(error)
            }
        }
    }
}

/// What stands open before anything is served.
struct Doors {
    tls: Option<ServerTls>,
    stop: CancellationToken,
    pages: web::Pages,
    web: Option<(String, TaskHandle<()>)>,
    metrics: Metrics,
}

impl Doors {
    /// Reads the certificate, and begins to answer probes.
    async fn open(options: &Options) -> Result<Self, StartError> {
        let open = |alpn, client_ca| {
            let files = options.tls.clone().map(|files| ServerTlsFiles { client_ca, ..files });
            files.map(|files| ServerTls::open(files, alpn)).transpose()
        };
        let tls = open(Alpn::Grpc, options.tls.as_ref().and_then(|files| files.client_ca.clone()))?;
        let mut doors = Self {
            tls,
            stop: CancellationToken::new(),
            pages: web::Pages::default(),
            web: None,
            metrics: Metrics::default(),
        };
        if let Some(address) = options.web {
            let listener = listen("--http", address).await?;
            let failed = |error| cannot_listen("--http", address, error);
            let url = doors.url(listener.local_addr().map_err(failed)?);
            // Probes and monitoring have no certificates.
            let incoming = Incoming::new(listener, open(Alpn::Web, None)?, options.connections).map_err(failed)?;
            let (pages, stop) = (doors.pages.clone(), doors.stop.clone());
            let server = spawn("web", TaskKind::Session, async move {
                if let Err(error) = web::serve(incoming, pages, stop).await {
                    tracing::error!("the web server failed, training goes on: {error}");
                }
            });
            doors.web = Some((url, server));
        }
        Ok(doors)
    }

    fn url(&self, address: SocketAddr) -> String {
        format!("http{}://{address}", if self.tls.is_some() { "s" } else { "" })
    }
}

async fn listen(option: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| cannot_listen(option, address, source))
}

fn cannot_listen(option: &'static str, address: SocketAddr, source: std::io::Error) -> StartError {
    StartError::Listen { option, address, source }
}

async fn serve(
    options: &Options,
    doors: Doors,
    (listener, url): (TcpListener, String),
    state: Store,
    clock: Clock,
    lease: Lease,
    tokens: Tokens,
) -> Result<Handle, (StartError, Lease)> {
    let (sender, inbox) = mpsc::unbounded_channel();
    let (mailbox, stop) = (Mailbox(sender), doors.stop);
    let (board, rooms) = (Board::default(), Rooms::default());
    let lead = Lead::new(clock, lease.had_at(), options.leader_lease);
    let incoming = Incoming::new(listener, doors.tls.clone(), options.connections);
    let incoming = incoming.map_err(|error| cannot_listen("--listen", options.listen, error));
    let restored = restored(options, &state, clock, &lead, (&board, &rooms), &mailbox, &doors.metrics).await;
    let shown =
        Shown { metrics: doors.metrics.clone(), board: board.clone(), mailbox: mailbox.clone(), tls: doors.tls };
    let otlp = send(options, &url, &shown);
    let ready = restored.and_then(|actor| Ok((actor, incoming?, otlp?, write_address(options, &url)?)));
    let (mut actor, incoming, otlp, ()) = match ready {
        Ok(ready) => ready,
        Err(error) => return Err((error, lease)),
    };
    actor.traces = Traces::new(otlp.spans(), options.trace_ratio);
    let jobs = JobsService { mailbox: mailbox.clone(), board: board.clone(), state, stop: stop.clone() };
    let loopback = options.web.is_some_and(|address| address.ip().is_loopback());
    let door = Door { tokens: tokens.clone(), tls: options.tls.is_some(), loopback };
    doors.pages.open(guarded(shown.page(), &tokens).merge(page::router(jobs.clone(), door)));
    let leave = (tokens.clone(), options.token_grace);
    let fleet = FleetService { mailbox: mailbox.clone(), board, leave, stop: stop.clone() };
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<JobsServer<JobsService>>().await;
    health.set_serving::<FleetServer<FleetService>>().await;
    let fleet_server = FleetServer::new(fleet).max_decoding_message_size(limits::FLEET_MESSAGE_BYTES);
    let rendezvous_server = RendezvousServer::new(rooms).max_decoding_message_size(limits::RENDEZVOUS_MESSAGE_BYTES);
    let jobs_server = JobsServer::new(jobs).max_decoding_message_size(limits::JOBS_MESSAGE_BYTES);
    let server = Server::builder()
        .max_concurrent_streams(Some(limits::STREAMS))
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_EVERY))
        .add_service(health_server)
        .add_service(Guarded::new(fleet_server, &tokens))
        .add_service(Guarded::new(rendezvous_server, &tokens))
        .add_service(Guarded::new(jobs_server, &tokens))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let (web, _web_server) = doors.web.unzip();
    Ok(Handle {
        url,
        web,
        actor: spawn("actor", TaskKind::Service, actor.run(inbox)),
        server: spawn("server", TaskKind::Service, server),
        _web_server,
        lease: spawn("lease", TaskKind::Service, lead.keep(lease, options.leader_lease, stop.clone(), doors.metrics)),
        mailbox,
        stop,
        otlp,
    })
}

/// Begins to send traces and metrics, if that is asked for.
fn send(options: &Options, url: &str, shown: &Shown) -> Result<Otlp, ReceiverError> {
    let looked = shown.clone();
    let metrics = Sent {
        registry: Arc::clone(shown.metrics.registry()),
        look: Box::new(move || {
            let shown = looked.clone();
            Box::pin(async move { _ = shown.look().await })
        }),
        lost: shown.metrics.spans_lost.clone(),
    };
    receiver::send(&options.otlp, &Resource::of_process("r2o-coordinator", url), metrics)
}

async fn restored(
    options: &Options,
    state: &Store,
    clock: Clock,
    lead: &Lead,
    (board, rooms): (&Board, &Rooms),
    mailbox: &Mailbox,
    metrics: &Metrics,
) -> Result<Actor, StartError> {
    let (journal, records) = Journal::open(state).await?;
    let fold = Fold::of(&records)?;
    let (jobs, last_generation) = (fold.jobs(), fold.last_generation);
    let fenced = state.fenced(lead.fence());
    let scribe = Scribe::start(journal, fenced, fold, options.compact_after, clock, mailbox.clone(), metrics.clone());
    let mut actor = Actor {
        core: Core::new(options.core.clone(), last_generation),
        clock,
        lead: lead.clone(),
        scribe,
        gate: Gate::default(),
        submissions: VecDeque::new(),
        state: state.clone(),
        board: board.clone(),
        metrics: metrics.clone(),
        traces: Traces::default(),
        rooms: rooms.clone(),
        mailbox: mailbox.clone(),
        flush: options.flush,
        lines: HashMap::new(),
        recorders: HashMap::new(),
        requests: HashMap::new(),
        last_number: 0,
        unchecked: 0,
    };
    actor.restore(jobs).await.map_err(|lost| StartError::Lost(lost.0))?;
    Ok(actor)
}

/// Whole or not at all: whoever waits for the file reads a whole address.
fn write_address(options: &Options, url: &str) -> Result<(), StartError> {
    let Some(path) = &options.address_file else { return Ok(()) };
    let half = path.with_extension("half");
    let written = std::fs::write(&half, format!("{url}\n")).and_then(|()| std::fs::rename(&half, path));
    written.map_err(|source| StartError::AddressFile { path: path.clone(), source })
}

/// Waits until nobody leads any more.
async fn stand_by(state: &Store, clock: Clock) -> Result<leader::Watch, StartError> {
    let mut watch = leader::Watch::new(state.clone());
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = None;
    loop {
        look.tick().await;
        match watch.leader(clock.unix_ms()).await {
            Ok(None) => return Ok(watch),
            Ok(Some(holder)) => {
                let holder = holder.to_string();
                if said.as_ref() != Some(&holder) {
                    tracing::info!("stands by while another coordinator leads ({holder})");
                }
                said = Some(holder);
            }
            Err(AcquireError::Storage(error)) => tracing::warn!("cannot see who leads: {}", chain(&error)),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Handle {
    /// Its URL for clients and workers.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The URL of its page, where it has one.
    #[must_use]
    pub fn web_url(&self) -> Option<String> {
        self.web.clone()
    }

    /// Waits until it ends by itself: because another leads, or the server fails.
    pub async fn ended(&mut self) -> Ended {
        tokio::select! {
            end = &mut self.actor => match end {
                Ok(Err(Lost(reason))) => Ended::LostLeadership(reason),
                Ok(Ok(())) => Ended::Asked,
                Err(end) => Ended::Failed(end.to_string()),
            },
            end = &mut self.lease => match end {
                Ok(Some(reason)) => Ended::LostLeadership(reason),
                Ok(None) => Ended::Asked,
                Err(end) => Ended::Failed(end.to_string()),
            },
            end = &mut self.server => match end {
                Ok(Err(error)) => Ended::Failed(chain(&error).to_string()),
                Ok(Ok(())) => Ended::Asked,
                Err(end) => Ended::Failed(end.to_string()),
            },
        }
    }

    /// Writes history and events, ends all streams, gives the lease back.
    pub async fn shutdown(mut self) {
        self.mailbox.send(Message::Stop);
        if !self.actor.is_finished() {
            let _ended = (&mut self.actor).await;
        }
        self.stop.cancel();
        if !self.lease.is_finished() {
            let _ended = (&mut self.lease).await;
        }
        if !self.server.is_finished() && tokio::time::timeout(DRAIN, &mut self.server).await.is_err() {
            tracing::warn!("some connections did not end in time");
            self.server.cancel();
        }
        self.otlp.finish().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
        self.actor.cancel();
        self.server.cancel();
        self.lease.cancel();
    }
}
