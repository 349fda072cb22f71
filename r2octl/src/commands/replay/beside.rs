//! What lies in a job's own storage beside the journal: its events, and the steps that it trained.

use r2o_coordinator_core::Record;
use r2o_storage::ledger::{self, LedgerError};
use r2o_storage::run::{self, EventRecord, RunError};
use r2o_storage::{Store, open};
use serde::Serialize;

use super::in_order;
use crate::error::CliError;
use crate::format::{count, duration, time};
use crate::output::Output;

/// Something that happened between two records.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Beside {
    /// An event of the job.
    Event { time: String, unix_ms: i64, reason: String, message: String, warning: bool },
    /// A range of the ledger, when its last step was committed. Those that were rolled back are there as well.
    Steps {
        time: String,
        unix_ms: i64,
        first_step: u64,
        last_step: u64,
        epoch: u64,
        generation: u64,
        lanes: usize,
        seconds: f64,
    },
}

impl Beside {
    pub(super) fn unix_ms(&self) -> i64 {
        match self {
            Self::Event { unix_ms, .. } | Self::Steps { unix_ms, .. } => *unix_ms,
        }
    }

    pub(super) fn print(&self, output: &mut Output) -> Result<(), CliError> {
        output.item(self, || self.line())
    }

    fn line(&self) -> String {
        match self {
            Self::Event { time, reason, message, warning, .. } => {
                let mark = if *warning { '!' } else { ' ' };
                format!("{:>8} {time} {mark} {reason:<20} {message}", "event")
            }
            Self::Steps { time, first_step, last_step, epoch, generation, lanes, seconds, .. } => {
                let n = count(last_step - first_step + 1, "step");
                let span = format!("{first_step}-{last_step} of epoch {epoch} by generation {generation}");
                let took = duration(*seconds);
                format!("{:>8} {time}   {n:<20} {span}, {}, in {took}", "ledger", count(*lanes as u64, "lane"))
            }
        }
    }
}

impl From<EventRecord> for Beside {
    fn from(e: EventRecord) -> Self {
        let EventRecord { unix_ms, reason, message, warning } = e;
        Self::Event { time: time(unix_ms), unix_ms, reason, message, warning }
    }
}

impl From<ledger::Range> for Beside {
    fn from(range: ledger::Range) -> Self {
        Self::Steps {
            time: time(range.last_unix_ms),
            unix_ms: range.last_unix_ms,
            first_step: range.step,
            last_step: range.end() - 1,
            epoch: range.epoch,
            generation: range.generation,
            lanes: range.lanes.len(),
            seconds: (range.last_unix_ms - range.first_unix_ms) as f64 / 1000.0,
        }
    }
}

/// All that the job's storage has, in the order of time. What cannot be read there is said and left out: the journal is what
/// is asked for.
pub(super) async fn of(job: &str, records: &[(u64, Record)], output: &Output) -> Result<Vec<Beside>, CliError> {
    let Some(url) = url(job, records) else { return Ok(Vec::new()) };
    let store = match open(&url) {
        Ok(store) => store,
        Err(e) => {
            output.note(&format!("without the events and steps of job `{job}`: {e}"));
            return Ok(Vec::new());
        }
    };
    let mut items: Vec<Beside> = events(&store, output).await.into_iter().map(Beside::from).collect();
    items.extend(ranges(&store, output).await.into_iter().map(Beside::from));
    Ok(in_order(items))
}

async fn events(store: &Store, output: &Output) -> Vec<EventRecord> {
    let read: Result<_, RunError> = run::read_events(store).await;
    read.unwrap_or_else(|e| {
        output.note(&format!("without events: {e}"));
        Vec::new()
    })
}

async fn ranges(store: &Store, output: &Output) -> Vec<ledger::Range> {
    let read: Result<_, LedgerError> = ledger::read_all(store).await;
    read.unwrap_or_else(|e| {
        output.note(&format!("without the ledger: {e}"));
        Vec::new()
    })
}

/// Where the job keeps what it made, as the newest record says.
fn url(job: &str, records: &[(u64, Record)]) -> Option<String> {
    records.iter().rev().find_map(|(_, record)| match record {
        Record::JobSubmitted { job: submitted, .. } if submitted.metadata.name == job => {
            submitted.spec.checkpoint.url.clone()
        }
        Record::Snapshot { jobs, .. } => jobs.get(job)?.job.spec.checkpoint.url.clone(),
        _ => None,
    })
}
