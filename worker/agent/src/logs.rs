//! Forwards this process's log lines to the coordinator, so that `r2octl logs` shows every worker's.

use r2o_proto::v1::LogLine;
use r2o_telemetry::{LogRecord, Tap};
use tokio::sync::mpsc;
use tracing::Level;

/// Lines kept while the coordinator cannot be reached; later ones are dropped, they stay in the worker's own output.
const BACKLOG: usize = 1024;

/// The tap and the queue that it fills. The job of a line is for the receiver to fill in.
pub(crate) fn forward() -> (Tap<impl Fn(LogRecord) + Send + Sync + 'static>, mpsc::Receiver<LogLine>) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let tap = Tap::new(Level::INFO, move |record: LogRecord| {
        // Only our own crates: a chatty transport must not fill the stream that it runs on.
        if record.target.starts_with("r2o") {
            let _dropped_when_full = sender.try_send(LogLine {
                job: String::new(),
                level: record.level.to_owned(),
                target: record.target,
                message: record.message,
                unix_ms: record.unix_ms,
            });
        }
    });
    (tap, receiver)
}
