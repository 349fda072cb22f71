//! `ledger verify` and `ledger show`: what was trained on, from what lies in storage.

mod view;

use r2o_storage::checkpoint::{self, CheckpointError, Manifest};
use r2o_storage::history;
use r2o_storage::ledger::proof::{Flaw, FlawKind, Plan, first_differing, prove};
use r2o_storage::ledger::{self, Kept, LedgerError};
use r2o_storage::shard::{SetError, read_set};
use r2o_storage::{Store, run};
use r2o_types::TrainJob;

use crate::cli::Ledger;
use crate::error::{CliError, Exit, exit_of_storage};
use crate::format::count;
use crate::output::Output;
use crate::target::resolve;

use view::{RangeView, VerifiedView};

pub(super) async fn run(url: &str, command: Ledger, output: &mut Output) -> Result<(), CliError> {
    match command {
        Ledger::Verify { run } => verify(&resolve(&run, url).await?, output).await,
        Ledger::Show { run } => show(&resolve(&run, url).await?, output).await,
    }
}

async fn show(store: &Store, output: &mut Output) -> Result<(), CliError> {
    let kept = ledger::kept(ledger::read_all(store).await.map_err(|e| unreadable(e, Exit::Refused))?);
    let ranges: Vec<RangeView> = kept.iter().map(RangeView::from).collect();
    output.result(&ranges, |_| match ranges.is_empty() {
        true => format!("There is no ledger under {}.", store.url()),
        false => view::ranges(&ranges),
    })
}

async fn verify(store: &Store, output: &mut Output) -> Result<(), CliError> {
    let newest = newest(store, output).await?;
    let job = job(store, newest.as_ref()).await?;
    let plan = Plan::of(&job, chunks(&job.spec.data.url).await?);
    let steps = newest.as_ref().map_or(0, |manifest| manifest.step);
    let ranges = ledger::read_all(store).await.map_err(|e| unreadable(e, Exit::NotProven))?;
    if ranges.is_empty() && steps == 0 {
        return Err(CliError::new(Exit::NotFound, format!("nothing was trained under {} yet", store.url()))
            .advice("the ledger is written some seconds after the first step"));
    }
    let read = ranges.len();
    let kept = ledger::kept(ranges);
    let (plan, kept, proven) = in_parallel(plan, kept, steps).await?;
    let proven = match proven {
        Ok(proven) => Ok(proven),
        Err(flaw) => Err(exact(store, &plan, flaw).await),
    };
    let name = job.metadata.name;
    let verified = VerifiedView::new(&name, &plan, &proven, steps, read - kept.len());
    output.result(&verified, |_| verified.table())?;
    match proven {
        Ok(_) => Ok(()),
        Err(flaw) => Err(not_proven(store, &flaw)),
    }
}

/// Hashing millions of samples takes seconds on all cores: not on the runtime's threads.
async fn in_parallel(
    plan: Plan,
    kept: Vec<Kept>,
    steps: u64,
) -> Result<(Plan, Vec<Kept>, Result<ledger::proof::Proven, Flaw>), CliError> {
    let work = move || {
        let proven = prove(&plan, &kept, steps);
        (plan, kept, proven)
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| CliError::failure("cannot compare the ledger").because(e))
}

/// The newest checkpoint whose manifest can be read; those that cannot are said so.
async fn newest(store: &Store, output: &Output) -> Result<Option<Manifest>, CliError> {
    for info in checkpoint::list(store).await?.into_iter().rev() {
        match checkpoint::load_manifest(store, info.step).await {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(CheckpointError::Storage(e)) => return Err(e.into()),
            Err(damage) => output.note(&format!("passed over: {damage}")),
        }
    }
    Ok(None)
}

/// The job as it ran last; its spec is also in every manifest.
async fn job(store: &Store, newest: Option<&Manifest>) -> Result<TrainJob, CliError> {
    let written = match run::read_job(store).await {
        Ok(job) => job,
        Err(run::RunError::Storage(e)) => return Err(e.into()),
        Err(e) => return Err(CliError::refused(e.to_string())),
    };
    let spec = written.or_else(|| newest.map(|manifest| manifest.spec.clone())).ok_or_else(|| {
        CliError::new(Exit::NotFound, format!("{} holds no run: neither {} nor manifests", store.url(), run::JOB))
            .advice("give the job's checkpoint URL")
    })?;
    TrainJob::parse(&spec.to_string())
        .map_err(|e| CliError::refused(format!("{} is not a job of this version", store.url_of(run::JOB))).because(e))
}

async fn chunks(url: &str) -> Result<Vec<r2o_types::ChunkRef>, CliError> {
    let set = read_set(&r2o_storage::open(url)?).await.map_err(|e| {
        let exit = match &e {
            SetError::Storage(e) => exit_of_storage(e),
            SetError::Missing { .. } => Exit::NotFound,
            _ => Exit::Refused,
        };
        CliError::new(exit, e.to_string()).advice("the plan of an epoch follows from the chunks of its data set")
    })?;
    Ok(set.chunks())
}

/// One digest covers a whole range. Where workers audited, the history says which step and lane it is.
async fn exact(store: &Store, plan: &Plan, flaw: Flaw) -> Flaw {
    let FlawKind::OtherSamplesInRange { step, end, .. } = flaw.kind else { return flaw };
    let records = history::read_all(store).await.unwrap_or_default();
    first_differing(plan, &records, step..end).unwrap_or(flaw)
}

fn unreadable(e: LedgerError, damaged: Exit) -> CliError {
    match e {
        LedgerError::Storage(e) => e.into(),
        e => CliError::new(damaged, e.to_string()),
    }
}

fn not_proven(store: &Store, flaw: &Flaw) -> CliError {
    let text = format!("the ledger under {} does not show exactly once: {flaw}", store.url());
    CliError::new(Exit::NotProven, text).advice(match flaw.kind {
        FlawKind::Missing { .. } => {
            "look for `ReportsLost` or `HistoryNotWritten` in the run's events, and for objects that were removed under \
             ledger/; earlier versions wrote no ledger"
        }
        FlawKind::OtherSamples { .. } | FlawKind::OtherSamplesInRange { .. } => {
            "see whether the data set was packed again: its chunks and the order of samples must be those of the run"
        }
        _ => "`r2octl ledger show` lists the ranges; compare job.json and the data set with those of the run",
    })
}

/// `1-3,7` for 1, 2, 3, 7.
fn generations(numbers: &[u64]) -> String {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => parts.push((n, n)),
        }
    }
    let parts: Vec<_> = parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    parts.join(",")
}

/// `3 steps`, for sentences.
fn steps(n: u64) -> String {
    count(n, "step")
}
