//! A stopped run goes on as if it had never stopped: bit-identical on the same number of workers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use r2o_e2e::{RUN, Run, demo_job, train};
use r2o_proto::v1::{CancelRequest, Job, JobState};
use r2o_test_kit::{Fleet, WorkerOptions};

const EPOCHS: u64 = 3;

/// Runs the job, stops it half-way, after a checkpoint, and finishes it on a new coordinator and new workers.
async fn stopped_and_resumed(name: &str, folder: &std::path::Path, workers: u32) -> Result<Run> {
    let mut job = demo_job(name, folder, EPOCHS)?;
    job.spec.fleet.min_workers = workers;
    job.spec.fleet.max_workers = workers;
    let options = WorkerOptions { threads: 1, audit: true, more: Vec::new() };

    let mut first = Fleet::start(workers as usize, options.clone()).await?;
    first.submit(&job).await?;
    let saved = |job: &Job| Ok(job.checkpoint_step >= 4 && job.progress.as_ref().is_some_and(|p| p.step >= 5));
    let step = first.wait_job(name, "an epoch is saved and the next begun", RUN, saved).await?.checkpoint_step;
    ensure!(step < 12, "the run ended before it was stopped");
    let request = CancelRequest { name: name.to_owned(), reason: "half-way".to_owned() };
    first.coordinator.jobs().await?.cancel(request).await?;
    let stopped = |job: &Job| Ok(job.state() == JobState::Cancelled);
    first.wait_job(name, "the job is cancelled", Duration::from_secs(60), stopped).await?;
    drop(first);

    let mut second = Fleet::start(workers as usize, options).await?;
    second.submit(&job).await?;
    second.wait_success(name, RUN).await?;
    let run = Run::read(&job).await?;
    ensure!(run.checkpoint_step == 12, "the run ended at step {}", run.checkpoint_step);
    let resumed = run.steps.iter().find(|r| r.step == step).context("the resumed step is in the history")?;
    ensure!(resumed.generation > 0, "the resumed step has a generation");
    Ok(run)
}

async fn assert_bit_identical(workers: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let undisturbed = train(&demo_job("undisturbed", folder.path(), EPOCHS)?, workers).await?;
    let resumed = stopped_and_resumed("resumed", folder.path(), workers).await?;
    assert_eq!(resumed.ledger(), undisturbed.ledger());
    assert_eq!(resumed.losses(), undisturbed.losses());
    let differing: Vec<_> = undisturbed
        .state
        .iter()
        .filter(|(name, hash)| resumed.state.get(*name) != Some(hash))
        .map(|(n, _)| n)
        .collect();
    assert!(differing.is_empty(), "tensors that differ after resuming: {differing:?}");
    assert_eq!(resumed.state.len(), undisturbed.state.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_resumes_bit_identically() -> Result<()> {
    assert_bit_identical(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_resume_bit_identically() -> Result<()> {
    assert_bit_identical(2).await
}
