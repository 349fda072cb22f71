//! A worker's part of a trace: a span of its own under the coordinator's, and its parts under that.

use std::time::{Duration, SystemTime};

use r2o_proto::v1::Timing;
use r2o_telemetry::otlp::{Span, Spans, attribute};
use r2o_types::TraceContext;
use r2o_worker_core::Failure;

/// A part of a step that lies in another one, at its beginning: an update waits for a copy of the state that it changes.
const WITHIN: (&str, &str) = ("checkpoint_hold", "update");

/// Work that is going on; where it is not traced, nothing is kept.
#[derive(Debug)]
pub(super) struct Traced {
    spans: Spans,
    place: Option<Place>,
    name: &'static str,
    start: SystemTime,
    /// Where the next part begins.
    reached: SystemTime,
}

#[derive(Debug)]
struct Place {
    /// The coordinator's span.
    parent: TraceContext,
    this: TraceContext,
    worker: String,
}

impl Traced {
    /// Begins a span under `parent`.
    pub(super) fn begin(spans: &Spans, worker: &str, parent: Option<TraceContext>, name: &'static str) -> Self {
        let place = parent.filter(|_| spans.are_exported()).map(|parent| Place {
            parent,
            this: parent.child(&format!("{worker} {name}")),
            worker: worker.to_owned(),
        });
        let start = SystemTime::now();
        Self { spans: spans.clone(), place, name, start, reached: start }
    }

    /// Does a part of the work.
    pub(super) fn part<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let start = SystemTime::now();
        let done = work();
        if let Some(Place { this, .. }) = &self.place {
            self.spans.record(|| Span::under(*this, name, this.child(name), start));
        }
        done
    }

    /// A part that took so many seconds, after the one before it.
    pub(super) fn measured(&mut self, name: &str, seconds: f64) {
        let Some(Place { this, .. }) = &self.place else { return };
        let start = self.reached;
        self.reached += Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let name = name.to_owned();
        self.spans.record(|| Span::under(*this, name.clone(), this.child(&name), start).lasting(seconds));
    }

    /// The parts of a step, in their order.
    pub(super) fn parts(&mut self, timings: &[Timing]) {
        let Some(this) = self.place.as_ref().map(|place| place.this) else { return };
        let mut outer = None;
        for Timing { phase, seconds } in timings {
            match outer {
                Some((outer, start)) if phase == WITHIN.0 => {
                    self.spans.record(|| Span::under(outer, WITHIN.0, this.child(WITHIN.0), start).lasting(*seconds))
                }
                _ => {
                    if phase == WITHIN.1 {
                        outer = Some((this.child(phase), self.reached));
                    }
                    self.measured(phase, *seconds);
                }
            }
        }
    }

    /// The work is done, or has failed.
    pub(super) fn end(self, failure: Option<&Failure>) {
        let reason = failure.map(|failure| match failure {
            Failure::Collective(reason) | Failure::Job(reason) => reason.clone(),
        });
        self.end_with(reason);
    }

    /// The work is done, or has failed with this reason.
    pub(super) fn end_with(self, reason: Option<String>) {
        if let Some(Place { parent, this, worker }) = self.place {
            let (name, start) = (self.name, self.start);
            let whole = || Span::under(parent, name, this, start).with(attribute::WORKER, worker.as_str());
            self.spans.record(|| whole().failed(reason));
        }
    }
}
