//! Writes the journal, one record after another, in a task of its own: storage that fails holds up what follows from a
//! record, and nothing else.

use std::time::{Duration, Instant};

use r2o_coordinator_core::{Fold, Record};
use r2o_storage::Store;
use r2o_storage::journal::{self, AppendError, Journal};
use r2o_telemetry::{TaskHandle, TaskKind, chain};
use tokio::sync::mpsc;

use crate::actor::{Lost, Mailbox, Message};
use crate::clock::Clock;
use crate::metrics::{Metrics, Storage};

const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What a record is written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What this job is to do next waits for it.
    Gate(String),
    /// Nothing waits.
    Note,
    /// A person waits for a job to be accepted.
    Submission,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Scribe {
    orders: mpsc::UnboundedSender<(Record, Purpose)>,
    task: TaskHandle<()>,
}

impl Scribe {
    /// Starts writing. A snapshot is written, and the records before it are deleted, after `compact_after` records.
    pub(crate) fn start(
        journal: Journal,
        store: Store,
        fold: Fold,
        compact_after: u64,
        clock: Clock,
        mailbox: Mailbox,
        metrics: Metrics,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = Task { journal, store, fold, compact_after, clock, mailbox, metrics };
        Self { orders, task: r2o_telemetry::spawn("scribe", TaskKind::Session, task.run(inbox)) }
    }

    /// Writes a record after those before it. [`Message::Written`] follows, or [`Message::Lost`].
    pub(crate) fn write(&self, record: Record, purpose: Purpose) {
        let _stopped = self.orders.send((record, purpose));
    }

    /// Waits until all is written, but not for storage that fails.
    pub(crate) async fn finish(self, patience: Duration) {
        let Self { orders, mut task } = self;
        drop(orders);
        if tokio::time::timeout(patience, &mut task).await.is_err() {
            tracing::warn!("the journal's last records could not be written");
        }
    }
}

struct Task {
    journal: Journal,
    store: Store,
    fold: Fold,
    compact_after: u64,
    clock: Clock,
    mailbox: Mailbox,
    metrics: Metrics,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<(Record, Purpose)>) {
        let _guard = Guard(self.mailbox.clone());
        while let Some((record, purpose)) = inbox.recv().await {
            let Some(number) = self.append(record).await else { return };
            self.mailbox.send(Message::Written { number, purpose });
            if self.fold.since_snapshot >= self.compact_after && !self.compact().await {
                return;
            }
        }
    }

    /// Writes a record, however long the storage fails. `None`: another coordinator leads.
    async fn append(&mut self, record: Record) -> Option<u64> {
        let bytes = match serde_json::to_vec(&record) {
            Ok(bytes) => bytes,
            Err(error) => return self.lose(format!("a journal record cannot be written: {error}")),
        };
        let (mut pause, began) = (RETRY, Instant::now());
        loop {
            let number = self.journal.next();
            match self.journal.append(number, &bytes).await {
                Ok(()) => {
                    self.metrics.journal_append.observe(&[], began.elapsed().as_secs_f64());
                    self.fold.add(number, record);
                    return Some(number);
                }
                Err(error @ AppendError::LostLeadership { .. }) => return self.lose(error.to_string()),
                Err(error) => {
                    Storage::Journal.tried_again(&self.metrics);
                    let reason = chain(&error).to_string();
                    tracing::warn!("journal record {number} is not written, trying again: {reason}");
                    self.mailbox.send(Message::NotWritten { reason });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn lose<T>(&self, reason: String) -> Option<T> {
        self.mailbox.send(Message::Lost(Lost(reason)));
        None
    }

    /// Repeats what the journal says in one record, and deletes those before it.
    async fn compact(&mut self) -> bool {
        let snapshot = self.fold.snapshot(self.clock.now());
        let Some(number) = self.append(snapshot).await else { return false };
        tracing::info!("the journal begins with record {number} from now on");
        let store = self.store.clone();
        let trim = async move {
            if let Err(error) = journal::trim(&store, number).await {
                tracing::warn!("old journal records stay for now: {}", chain(&error));
            }
        };
        let _runs_on = r2o_telemetry::spawn("trim", TaskKind::Work, trim);
        true
    }
}

/// Whoever waits for the journal must not wait for a task that is gone.
struct Guard(Mailbox);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send(Message::Lost(Lost("the journal's task ended".to_owned())));
        }
    }
}
