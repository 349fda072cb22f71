//! The coordinator's shell: moves bytes around the pure core.
//!
//! ```text
//! fleet (one stream per worker) ─┐                         ┌─► scribe (the journal, before anything that follows)
//! api (people)  ── admit ────────┼─► actor ─► core ─► ─────┼─► streams, rendezvous
//! storage tasks ─────────────────┘   (one task)            └─► storage tasks: manifests, history, report
//!                                        │
//!                                     board (what anybody may read)
//! ```
//!
//! [`Service::start`] takes [`Options`] and gives a [`Handle`]. The actor is the only one that touches the core and the
//! journal; requests that only read never wait for it.

mod actor;
mod admit;
mod api;
mod board;
mod checkpoints;
mod clock;
mod dataset;
mod feed;
mod fleet;
mod guard;
mod lead;
mod limits;
mod metrics;
mod options;
mod page;
mod recorder;
mod rendezvous;
mod scribe;
mod service;
mod tokens;
mod traces;
mod web;
mod wire;

pub use options::Options;
pub use r2o_transport::{Limits, ServerTlsFiles};
pub use service::{Ended, Handle, Service, StartError};
pub use tokens::TokensError;
