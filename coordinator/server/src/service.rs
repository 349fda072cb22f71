//! From options to a running coordinator.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use r2o_coordinator_core::{Core, Fold, Gate, UnknownRecord};
use r2o_proto::v1::fleet_server::FleetServer;
use r2o_proto::v1::jobs_server::JobsServer;
use r2o_proto::v1::rendezvous_server::RendezvousServer;
use r2o_storage::journal::{Journal, JournalError};
use r2o_storage::leader::{self, AcquireError, Holder, Lease};
use r2o_storage::{StorageError, Store};
use r2o_telemetry::{TaskHandle, TaskKind, chain, spawn};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
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
use crate::options::Options;
use crate::rendezvous::Rooms;
use crate::scribe::Scribe;
use crate::tokens::{Tokens, TokensError};

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
    #[error("cannot listen on {address}; choose another --listen address, or port 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
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
    address: SocketAddr,
    http: Option<SocketAddr>,
    mailbox: Mailbox,
    stop: CancellationToken,
    actor: TaskHandle<Result<(), Lost>>,
    server: TaskHandle<Result<(), tonic::transport::Error>>,
    lease: TaskHandle<Option<String>>,
}

impl Service {
    /// Takes the lead over the state, reads the journal, and serves.
    ///
    /// # Errors
    /// [`StartError`] says what to do; nothing is left behind.
    pub async fn start(options: Options) -> Result<Handle, StartError> {
        let tokens = Tokens::open(options.tokens.as_deref())?;
        let state = r2o_storage::open(&options.state)?;
        let clock = Clock::starting_at(options.clock);
        let ttl = i64::try_from(options.leader_lease.as_millis()).unwrap_or(i64::MAX);
        // Nobody must find an address where nothing is served yet: it listens once it may lead.
        let before = if options.standby { Some(stand_by(&state, clock).await?) } else { None };
        let listen_error = |source| StartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let url = format!("http://{address}");
        let lease = match before {
            Some(watch) => watch.take_over(Holder::this_process(&url), ttl, clock.unix_ms()).await?,
            None => leader::acquire(&state, Holder::this_process(&url), ttl, clock.unix_ms()).await?,
        };
        match serve(&options, listener, state, clock, lease, tokens).await {
            Ok(handle) => {
                tracing::info!("serves at {url}");
                Ok(handle)
            }
            Err((error, lease)) => {
                lead::give_back(lease).await;
                Err(error)
            }
        }
    }
}

async fn serve(
    options: &Options,
    listener: TcpListener,
    state: Store,
    clock: Clock,
    lease: Lease,
    tokens: Tokens,
) -> Result<Handle, (StartError, Lease)> {
    let (sender, inbox) = mpsc::unbounded_channel();
    let (mailbox, stop) = (Mailbox(sender), CancellationToken::new());
    let (board, rooms) = (Board::default(), Rooms::default());
    let lead = Lead::new(clock, lease.had_at(), options.leader_lease);
    let restored = restored(options, &state, clock, &lead, &board, &rooms, &mailbox).await;
    let (actor, address) = match restored.and_then(|actor| Ok((actor, write_address(options, &listener)?))) {
        Ok(ready) => ready,
        Err(error) => return Err((error, lease)),
    };
    let jobs = JobsService { mailbox: mailbox.clone(), board: board.clone(), state, stop: stop.clone() };
    let http = match options.http {
        Some(address) => match TcpListener::bind(address).await {
            Ok(listener) => Some(listener),
            Err(source) => return Err((StartError::Listen { address, source }, lease)),
        },
        None => None,
    };
    let http_address = http.as_ref().and_then(|listener| listener.local_addr().ok());
    if let (Some(listener), Some(address)) = (http, http_address) {
        let door = crate::page::Door { tokens: tokens.clone(), tls: false, loopback: address.ip().is_loopback() };
        let router = crate::page::router(jobs.clone(), door);
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let _runs = spawn("page", TaskKind::Service, std::future::IntoFuture::into_future(served));
        tracing::info!("the page is at http://{address}");
    }
    let fleet = FleetService { mailbox: mailbox.clone(), board, stop: stop.clone() };
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<JobsServer<JobsService>>().await;
    health.set_serving::<FleetServer<FleetService>>().await;
    let fleet_server = FleetServer::new(fleet).max_decoding_message_size(limits::FLEET_MESSAGE_BYTES);
    let rendezvous_server = RendezvousServer::new(rooms).max_decoding_message_size(limits::RENDEZVOUS_MESSAGE_BYTES);
    let jobs_server = JobsServer::new(jobs).max_decoding_message_size(limits::JOBS_MESSAGE_BYTES);
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_EVERY))
        .tcp_nodelay(true)
        .add_service(health_server)
        .add_service(Guarded::new(fleet_server, &tokens))
        .add_service(Guarded::new(rendezvous_server, &tokens))
        .add_service(Guarded::new(jobs_server, &tokens))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
    Ok(Handle {
        address,
        http: http_address,
        actor: spawn("actor", TaskKind::Service, actor.run(inbox)),
        server: spawn("server", TaskKind::Service, server),
        lease: spawn("lease", TaskKind::Service, lead.keep(lease, options.leader_lease, stop.clone())),
        mailbox,
        stop,
    })
}

async fn restored(
    options: &Options,
    state: &Store,
    clock: Clock,
    lead: &Lead,
    board: &Board,
    rooms: &Rooms,
    mailbox: &Mailbox,
) -> Result<Actor, StartError> {
    let (journal, records) = Journal::open(state).await?;
    let fold = Fold::of(&records)?;
    let (jobs, last_generation) = (fold.jobs(), fold.last_generation);
    let scribe =
        Scribe::start(journal, state.fenced(lead.fence()), fold, options.compact_after, clock, mailbox.clone());
    let mut actor = Actor {
        core: Core::new(options.core.clone(), last_generation),
        clock,
        lead: lead.clone(),
        scribe,
        gate: Gate::default(),
        submissions: VecDeque::new(),
        state: state.clone(),
        board: board.clone(),
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
fn write_address(options: &Options, listener: &TcpListener) -> Result<SocketAddr, StartError> {
    let address = listener.local_addr().map_err(|source| StartError::Listen { address: options.listen, source })?;
    if let Some(path) = &options.address_file {
        let half = path.with_extension("half");
        let written = std::fs::write(&half, format!("http://{address}\n")).and_then(|()| std::fs::rename(&half, path));
        written.map_err(|source| StartError::AddressFile { path: path.clone(), source })?;
    }
    Ok(address)
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
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the page is.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Its URL for clients and workers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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
