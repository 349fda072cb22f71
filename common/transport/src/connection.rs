//! One accepted connection, which ends when its peer does not show in time that it may be served.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// What one connection may ask for: far more than a large group at its rendezvous does.
const REQUESTS_A_SECOND: f64 = 2_000.0;
const REQUESTS_AT_ONCE: f64 = 20_000.0;

/// Whether a connection's peer has been let in. A peer that is a stranger for too long loses its connection, so that idle or
/// slow connections of strangers cannot take the place of others.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    is_in: AtomicBool,
    allowance: Mutex<Allowance>,
}

/// Requests that may be made at once, and when they were counted.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Default for Facts {
    fn default() -> Self {
        let allowance = Mutex::new(Allowance { left: REQUESTS_AT_ONCE, at: Instant::now() });
        Self { is_in: AtomicBool::new(false), allowance }
    }
}

impl Standing {
    /// The peer made a request that it was allowed to make.
    pub fn let_in(&self) {
        self.0.is_in.store(true, Ordering::Relaxed);
    }

    fn is_stranger(&self) -> bool {
        !self.0.is_in.load(Ordering::Relaxed)
    }

    /// Takes one request off what the connection may ask for: 2,000 a second, 20,000 at once.
    #[must_use]
    pub fn may_ask(&self) -> bool {
        self.may_ask_at(Instant::now())
    }

    fn may_ask_at(&self, now: Instant) -> bool {
        let mut allowance = self.0.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = now.saturating_duration_since(allowance.at).as_secs_f64() * REQUESTS_A_SECOND;
        allowance.left = (allowance.left + grown).min(REQUESTS_AT_ONCE);
        allowance.at = now;
        let may = allowance.left >= 1.0;
        if may {
            allowance.left -= 1.0;
        }
        may
    }
}

/// The other end of a connection; requests carry it among their extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it has been let in.
    pub standing: Standing,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    deadline: Pin<Box<Sleep>>,
    /// Its place among all connections.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(crate) fn new(stream: Stream, address: SocketAddr, strangers: Duration, place: OwnedSemaphorePermit) -> Self {
        let peer = Peer { address, standing: Standing::default() };
        Self { stream, peer, deadline: Box::pin(tokio::time::sleep(strangers)), _place: place }
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Stream::Tls($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A connection is always being read, so that the deadline's wake-up comes here, whatever the peer does not do.
        if self.peer.standing.is_stranger() && self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer did not show that it may be served",
            )));
        }
        on_stream!(self, stream => stream.poll_read(context, into))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_asks_for_so_much_at_once_and_so_much_a_second() {
        let (standing, now) = (Standing::default(), Instant::now());
        let asked = |at| (0..100_000).filter(|_| standing.may_ask_at(at)).count();
        assert_eq!(asked(now), 20_000);
        assert_eq!(asked(now + Duration::from_millis(500)), 1_000);
        assert_eq!(asked(now + Duration::from_secs(3_600)), 20_000);
    }
}
