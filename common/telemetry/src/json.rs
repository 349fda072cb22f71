//! Log lines as JSON: one flat object, so that `job`, `generation`, `step`, `worker`, `trace_id` and `span_id` are found at the
//! same place in every line, whichever span they come from.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event with the fields of all spans around it; inner ones win.
pub(crate) struct JsonLines {
    /// In every line.
    fields: Map<String, Value>,
}

impl JsonLines {
    pub(crate) fn new(fields: &[(&'static str, String)]) -> Self {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into()));
        Self { fields: fields.collect() }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = self.fields.clone();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let Some(Ok(Value::Object(fields))) = fields.map(|fields| serde_json::from_str(fields)) else { continue };
            // What has a name and nothing else, such as a task, is called by what it is.
            let named = |key: String| if key == "name" { span.name().to_owned() } else { key };
            line.extend(fields.into_iter().map(|(key, value)| (named(key), value)));
        }
        event.record(&mut Fields(&mut line));
        let mut now = String::new();
        SystemTime.format_time(&mut Writer::new(&mut now))?;
        let metadata = event.metadata();
        line.insert("timestamp".to_owned(), now.into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("target".to_owned(), metadata.target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_flat_and_has_the_fields_of_all_spans() {
        let written = Written::default();
        let writer = written.clone();
        let format = JsonLines::new(&[("worker", "worker-0".to_owned())]);
        let lines = tracing_subscriber::fmt::layer().json().event_format(format).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let _task = tracing::info_span!("task", name = "trainer").entered();
            let _step = tracing::info_span!("step", job = "demo", step = 7_u64, trace_id = "abc").entered();
            tracing::info!(loss = 0.5, step = 8_u64, "the \"line\"\nof\tmany");
            tracing::warn!("another");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let first = &lines[0];
        for (name, value) in [("worker", "worker-0"), ("task", "trainer"), ("job", "demo"), ("trace_id", "abc")] {
            assert_eq!(first[name], value, "{text}");
        }
        assert_eq!((first["step"].as_u64(), first["loss"].as_f64()), (Some(8), Some(0.5)));
        assert_eq!((&first["message"], &first["level"]), (&"the \"line\"\nof\tmany".into(), &"INFO".into()));
        assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
        assert_eq!(lines[1]["step"], 7);
    }
}
