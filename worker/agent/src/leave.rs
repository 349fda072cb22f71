//! Who may ask this worker to leave: signals, and the machine's notice that it will be taken away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};

/// How often the notice's file is looked for: clouds give half a minute or more.
const LOOK: Duration = Duration::from_millis(500);

/// A request to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// By what.
    pub(crate) reason: String,
    /// The time that is left; none: as long as a drain may take.
    pub(crate) left: Option<Duration>,
}

/// All that may ask.
pub(crate) struct Requests {
    terminate: Signal,
    interrupt: Signal,
    notice: Option<PathBuf>,
    look: Interval,
    /// How often a signal came.
    signals: u32,
    asked: bool,
}

impl Requests {
    /// Listens to SIGTERM, SIGINT and, if there is to be one, the notice's file.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen(notice: Option<PathBuf>) -> Result<Self> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            notice,
            look,
            signals: 0,
            asked: false,
        })
    }

    /// The next request that counts: the first of whatever kind, then the second signal. A notice is usually followed by a
    /// signal, which asks for nothing new.
    pub(crate) async fn next(&mut self) -> Request {
        loop {
            let notice = self.notice.as_deref().filter(|_| !self.asked);
            let (request, is_signal) = tokio::select! {
                _ = self.terminate.recv() => (Request { reason: "SIGTERM".to_owned(), left: None }, true),
                _ = self.interrupt.recv() => (Request { reason: "SIGINT".to_owned(), left: None }, true),
                _ = self.look.tick(), if notice.is_some() => match notice.and_then(noticed) {
                    Some(request) => (request, false),
                    None => continue,
                },
            };
            self.signals += u32::from(is_signal);
            if !std::mem::replace(&mut self.asked, true) || self.signals > 1 {
                return request;
            }
        }
    }
}

/// What a notice says, once it is there. Its text is the number of seconds that are left, or anything else.
fn noticed(file: &Path) -> Option<Request> {
    let text = std::fs::read_to_string(file).ok()?;
    let left = text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let span = left.map_or_else(String::new, |left| format!(" of {} s", left.as_secs_f64()));
    Some(Request { reason: format!("a preemption notice{span} in {}", file.display()), left })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notice_counts_once_and_says_how_much_time_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notice");
        let mut requests = Requests::listen(Some(file.clone())).unwrap();
        std::fs::write(&file, "12.5\n").unwrap();
        let request = requests.next().await;
        assert_eq!(request.left, Some(Duration::from_millis(12_500)));
        assert!(request.reason.starts_with("a preemption notice of 12.5 s in "), "{}", request.reason);
        assert_eq!(noticed(&file), Some(request));
        std::fs::write(&file, "soon").unwrap();
        assert_eq!(noticed(&file).unwrap().left, None);
        // The signal that follows a notice asks for nothing new, another one does.
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        assert!(tokio::time::timeout(2 * LOOK, requests.next()).await.is_err(), "the first signal counts");
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        assert_eq!(requests.next().await.reason, "SIGTERM");
    }
}
