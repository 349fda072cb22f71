//! The coordinator over real sockets, with workers that only pretend to train.

// Helpers outside of #[test] functions are tests, too.
#![allow(clippy::unwrap_used)]

#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/journal.rs"]
mod journal;
#[path = "it/kit.rs"]
mod kit;
#[path = "it/life.rs"]
mod life;
#[path = "it/metrics.rs"]
mod metrics;
#[path = "it/page.rs"]
mod page;
#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/rendezvous.rs"]
mod rendezvous;
#[path = "it/restart.rs"]
mod restart;
#[path = "it/strangers.rs"]
mod strangers;
#[path = "it/tls.rs"]
mod tls;
#[path = "it/tokens.rs"]
mod tokens;
#[path = "it/two.rs"]
mod two;
