//! The place of log lines: which job, generation and step they are about, and where they stand in a trace.

use r2o_types::TraceContext;
use tracing::{Span, field, info_span};

/// A place in a trace, for log lines that say the rest themselves.
#[must_use]
pub fn place(trace: Option<TraceContext>) -> Span {
    let Some(TraceContext { trace_id, span_id }) = trace else { return Span::none() };
    info_span!("at", trace_id = %format_args!("{trace_id:032x}"), span_id = %format_args!("{span_id:016x}"))
}

/// A step, or what lies after so many steps, of a job.
#[must_use]
pub fn step_place(job: &str, generation: u64, step: u64, trace: Option<TraceContext>) -> Span {
    let span = info_span!("at", job, generation, step, trace_id = field::Empty, span_id = field::Empty);
    if let Some(TraceContext { trace_id, span_id }) = trace {
        span.record("trace_id", field::display(format_args!("{trace_id:032x}")));
        span.record("span_id", field::display(format_args!("{span_id:016x}")));
    }
    span
}
