//! One span, and its form in OTLP.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as proto, Status, span::SpanKind};
use r2o_types::TraceContext;

/// Names of attributes. Those of OpenTelemetry's conventions where there is one, else in a namespace of our own.
pub mod attribute {
    /// The job's name.
    pub const JOB: &str = "r2o.job.name";
    /// The generation.
    pub const GENERATION: &str = "r2o.generation";
    /// The step, 0-based over the whole job; of a checkpoint: the steps that it holds.
    pub const STEP: &str = "r2o.step";
    /// The epoch, 0-based.
    pub const EPOCH: &str = "r2o.epoch";
    /// The worker's name.
    pub const WORKER: &str = "r2o.worker.name";
    /// Why a recovery was needed.
    pub const REASON: &str = "r2o.reason";
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Any number.
    Number(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// A piece of work that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    name: Cow<'static, str>,
    context: TraceContext,
    parent: Option<TraceContext>,
    start: SystemTime,
    end: SystemTime,
    attributes: Vec<(&'static str, Value)>,
    error: Option<String>,
}

impl Span {
    /// The first span of its trace, from `start` until now.
    #[must_use]
    pub fn root(name: impl Into<Cow<'static, str>>, context: TraceContext, start: SystemTime) -> Self {
        let end = SystemTime::now();
        Self { name: name.into(), context, parent: None, start, end, attributes: Vec::new(), error: None }
    }

    /// A span under another one, from `start` until now.
    #[must_use]
    pub fn under(
        parent: TraceContext,
        name: impl Into<Cow<'static, str>>,
        context: TraceContext,
        start: SystemTime,
    ) -> Self {
        Self { parent: Some(parent), ..Self::root(name, context, start) }
    }

    /// With an end that is some time after its start.
    #[must_use]
    pub fn lasting(self, seconds: f64) -> Self {
        let lasted = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self { end: self.start + lasted, ..self }
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// With the word that it failed, where it did.
    #[must_use]
    pub fn failed(self, error: Option<String>) -> Self {
        Self { error, ..self }
    }
}

impl From<Span> for proto::Span {
    fn from(span: Span) -> Self {
        let Span { name, context, parent, start, end, attributes, error } = span;
        let id = |context: TraceContext| context.span_id.to_be_bytes().to_vec();
        Self {
            trace_id: context.trace_id.to_be_bytes().to_vec(),
            span_id: id(context),
            parent_span_id: parent.map(id).unwrap_or_default(),
            // Sampled; W3C's word.
            flags: 1,
            name: name.into_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: unix_nanos(start),
            end_time_unix_nano: unix_nanos(end.max(start)),
            attributes: attributes.into_iter().map(|(name, value)| key_value(name, value)).collect(),
            status: error.map(|message| Status { message, code: StatusCode::Error.into() }),
            ..Self::default()
        }
    }
}

pub(super) fn key_value(name: impl Into<String>, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Whole(number) => any_value::Value::IntValue(number),
        Value::Number(number) => any_value::Value::DoubleValue(number),
    };
    KeyValue { key: name.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(super) fn unix_nanos(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_keeps_its_place_its_time_and_its_failure() {
        let root = TraceContext::root("a job");
        let start = UNIX_EPOCH + Duration::from_secs(100);
        let span = Span::under(root, "step", root.child("step 1"), start)
            .lasting(0.5)
            .with(attribute::STEP, 1)
            .failed(Some("broken".to_owned()));
        let sent = proto::Span::from(span);
        assert_eq!(sent.trace_id, root.trace_id.to_be_bytes());
        assert_eq!(sent.parent_span_id, root.span_id.to_be_bytes());
        assert_eq!(sent.end_time_unix_nano - sent.start_time_unix_nano, 500_000_000);
        assert_eq!(sent.attributes, [key_value("r2o.step", Value::Whole(1))]);
        assert_eq!(sent.status.map(|status| status.message).as_deref(), Some("broken"));
    }

    #[test]
    fn nothing_ends_before_it_begins() {
        let start = SystemTime::now() + Duration::from_secs(60);
        let sent = proto::Span::from(Span::root("step", TraceContext::root("a"), start));
        assert_eq!(sent.end_time_unix_nano, sent.start_time_unix_nano);
    }
}
