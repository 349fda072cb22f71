//! Sockets of the programs: who may connect, for how long without having shown a token, and in which encryption.
//!
//! - [`Incoming`] accepts connections for gRPC and for the web alike, with or without TLS, within [`Limits`].
//! - [`ServerTls`] and [`ClientTls`] read certificates and keys from files, again whenever these change.
//! - [`channel`] connects to a coordinator, with or without TLS.
//! - [`receiver`] sends traces and metrics to where operators look at them.
//! - [`web`] serves pages, metrics and probes over HTTP.

mod client;
mod connection;
mod incoming;
mod pem;
pub mod receiver;
mod server;
pub mod web;

pub use client::{ClientTls, channel, connect};
pub use connection::{Connection, Peer, Standing};
pub use incoming::{Incoming, Limits};
pub use pem::TlsError;
pub use server::{Alpn, ServerTls, ServerTlsFiles};
