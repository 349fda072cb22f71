//! Accepts connections within limits, and shakes hands with each apart from the others.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use r2o_telemetry::{TaskHandle, TaskKind, spawn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream as AsyncStream;

use crate::connection::{Connection, Stream};
use crate::server::ServerTls;

/// Connections that wait to be taken by their server.
const BACKLOG: usize = 256;
/// Files that a process needs besides its connections.
const OTHER_FILES: u64 = 512;
/// How often at most it is said that connections are refused.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// After an error of the listener itself, as when no more files may be opened.
const BREATHER: Duration = Duration::from_millis(100);

/// How many connections there may be, and how long a stranger may keep one.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; further ones are closed at once.
    pub connections: usize,
    /// A peer that by then has not been let in ([`crate::Standing::let_in`]) loses its connection. The TLS handshake counts.
    pub strangers: Duration,
}

impl Limits {
    /// As many connections as the process may open files, after its limit was raised as far as it goes.
    #[must_use]
    pub fn of_process() -> Self {
        let limit = getrlimit(Resource::Nofile);
        if limit.current < limit.maximum || limit.maximum.is_none() {
            let _stays_as_it_was = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        }
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX));
        let connections = usize::try_from(files.saturating_sub(OTHER_FILES).max(64)).unwrap_or(usize::MAX);
        Self { connections: connections.min(Semaphore::MAX_PERMITS), strangers: Duration::from_secs(20) }
    }
}

/// The accepted connections of one listener: a stream of them for gRPC, a listener for the web.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    address: SocketAddr,
    /// Ends with this value.
    _accepting: TaskHandle<()>,
}

impl Incoming {
    /// Begins to accept.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn new(listener: TcpListener, tls: Option<ServerTls>, limits: Limits) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(BACKLOG);
        let places = Arc::new(Semaphore::new(limits.connections));
        let door = Door { tls, limits, sender, places, full: Seldom::default(), unfit: Arc::default() };
        let _accepting = spawn("listener", TaskKind::Session, door.keep(listener));
        Ok(Self { connections, address, _accepting })
    }
}

impl AsyncStream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.connections.recv().await {
            Some(connection) => {
                let address = connection.peer().address;
                (connection, address)
            }
            // The listener's task has ended, and with it the program.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Lets a line be logged now and then: whoever knocks often must not fill the log.
#[derive(Debug, Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn now(&self) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = said.is_none_or(|at| at.elapsed() > SAY_EVERY);
        if now {
            *said = Some(Instant::now());
        }
        now
    }
}

struct Door {
    tls: Option<ServerTls>,
    limits: Limits,
    sender: mpsc::Sender<Connection>,
    places: Arc<Semaphore>,
    full: Seldom,
    unfit: Arc<Seldom>,
}

impl Door {
    async fn keep(self, listener: TcpListener) {
        while !self.sender.is_closed() {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                if self.full.now() {
                    let limit = self.limits.connections;
                    tracing::warn!(%address, "refuses connections: {limit} are open, which is the limit of open files");
                }
                continue;
            };
            // Tickets are small and must not wait for others.
            let _slower_without = stream.set_nodelay(true);
            self.welcome(stream, address, place).await;
        }
    }

    async fn welcome(&self, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        let (sender, strangers) = (self.sender.clone(), self.limits.strangers);
        let Some(tls) = &self.tls else {
            let connection = Connection::new(Stream::Plain(stream), address, strangers, place);
            let _server_is_gone = sender.send(connection).await;
            return;
        };
        let (acceptor, unfit) = (TlsAcceptor::from(tls.config()), Arc::clone(&self.unfit));
        let _runs_on = spawn("handshake", TaskKind::Work, async move {
            let reason = match tokio::time::timeout(strangers, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let connection = Connection::new(Stream::Tls(Box::new(stream)), address, strangers, place);
                    let _server_is_gone = sender.send(connection).await;
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not finish its handshake in time".to_owned(),
            };
            if unfit.now() {
                let seconds = SAY_EVERY.as_secs();
                tracing::warn!(%address, "refused a connection without fitting TLS: {reason} (said once in {seconds} s)");
            }
        });
    }
}
