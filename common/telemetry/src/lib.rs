//! Logging set-up, traces, the one place where tasks are spawned, every metric, and what the running program is.
//!
//! - [`init`] installs the process's subscriber: text for people, JSON for machines, filtered by `R2O_LOG` or `RUST_LOG`.
//! - [`spawn`] is the only door to `tokio::spawn`: a task has a name and a [`TaskKind`], and a panic is never lost.
//! - [`Tap`] hands log lines on, so that a worker's lines can be read through the coordinator.
//! - [`metrics`] declares every metric once, and shows them as text.
//! - [`otlp`] sends spans and metrics to a receiver of OpenTelemetry's protocol.
//! - [`chain`] prints an error with its causes: a type's own `Display` never repeats its source.

mod build;
mod chain;
mod json;
mod log;
pub mod metrics;
pub mod otlp;
mod tap;
mod task;

pub use build::{BuildInfo, build_info};
pub use chain::{Chain, chain};
pub use log::{InitError, LogFormat, LogOptions, init, init_with};
pub use tap::{LogRecord, Tap};
pub use task::{OnDrop, OnPanic, TaskEnd, TaskHandle, TaskKind, spawn, spawn_blocking, spawn_thread};
