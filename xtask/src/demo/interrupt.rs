//! Ctrl-C, SIGTERM and SIGHUP as something to wait for.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Tells whether the user asked to stop.
pub(super) struct Interrupt(Receiver<()>);

impl Interrupt {
    /// Takes over the process's signals; at most once in a process.
    pub(super) fn listen() -> Result<Self> {
        let (sender, receiver) = channel();
        ctrlc::set_handler(move || {
            // The receiver is gone when the process is about to end anyway.
            let _ = sender.send(());
        })
        .context("cannot listen to signals")?;
        Ok(Self(receiver))
    }

    /// An interrupt that a test sends.
    #[cfg(test)]
    pub(super) fn by_hand() -> (std::sync::mpsc::Sender<()>, Self) {
        let (sender, receiver) = channel();
        (sender, Self(receiver))
    }

    /// Waits, and fails at once when the user asks to stop.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        match self.0.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => bail!("interrupted"),
        }
    }
}
