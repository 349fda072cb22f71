//! A tracing layer that hands log lines to a function.

use std::{
    fmt::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// One log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// `ERROR`, `WARN`, `INFO`, ...
    pub level: &'static str,
    /// The module that spoke.
    pub target: String,
    /// The message, then ` key=value` for each field.
    pub message: String,
}

/// A layer that calls a function for each event at or above a level. The function must not block nor log.
pub struct Tap<F> {
    least: Level,
    sink: F,
}

impl<F: Fn(LogRecord) + Send + Sync + 'static> Tap<F> {
    /// Taps events at `least` (such as [`Level::INFO`]) or more severe.
    pub fn new(least: Level, sink: F) -> Self {
        Self { least, sink }
    }
}

impl<S: Subscriber, F: Fn(LogRecord) + Send + Sync + 'static> Layer<S> for Tap<F> {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > self.least {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (self.sink)(LogRecord {
            unix_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            level: metadata.level().as_str(),
            target: metadata.target().to_owned(),
            message: text.message + &text.fields,
        });
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format_args!("{value:?}"));
    }
}

impl Text {
    fn push(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_at_the_level_and_above_are_handed_on_with_their_fields() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let tap = Tap::new(Level::INFO, move |record| sink.lock().unwrap().push(record));
        let subscriber = tracing_subscriber::registry().with(tap);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(step = 7, job = "demo", "step committed");
            tracing::debug!("not this");
            tracing::error!("broken");
        });
        let records = seen.lock().unwrap();
        assert_eq!(records.iter().map(|r| r.level).collect::<Vec<_>>(), ["INFO", "ERROR"]);
        assert_eq!(records[0].message, "step committed step=7 job=demo");
        assert!(records[0].unix_ms > 0);
    }
}
