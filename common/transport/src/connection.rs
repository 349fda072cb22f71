//! One accepted connection, which ends when its peer does not show in time that it may be served.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Whether a connection's peer has been let in. A peer that is a stranger for too long loses its connection, so that idle or
/// slow connections of strangers cannot take the place of others.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<AtomicBool>);

impl Standing {
    /// The peer made a request that it was allowed to make.
    pub fn let_in(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_stranger(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
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
