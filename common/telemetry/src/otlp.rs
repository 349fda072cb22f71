//! Traces and metrics for a receiver of OTLP over gRPC.
//!
//! ```text
//! Spans::record ──► bounded queue ──► task `spans`   ──► receiver   (full, or not taken: counted and dropped)
//! Registry      ─────────────────────► task `metrics` ──►
//! ```
//!
//! Nothing here waits for the receiver but these two tasks: one that is slow or dead costs spans, never a step.

mod export;
mod metrics;
mod options;
mod place;
mod span;

pub use export::{Look, Metrics, Otlp, Spans};
pub use options::{BadHeaders, Headers, OtlpOptions, Resource};
pub use place::{place, step_place};
pub use span::{Span, Value, attribute};
