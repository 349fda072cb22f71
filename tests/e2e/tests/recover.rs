//! Promises 1 to 4 with real processes: workers and the coordinator come and go, and the run ends with the bits of an
//! undisturbed run of one worker, without a step lost or computed twice.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use r2o_e2e::{RUN, Run, demo_job, prove_ledger, store, train};
use r2o_test_kit::{Fleet, Signal, WorkerOptions};
use r2o_types::TrainJob;
use tempfile::TempDir;

/// Of a run that is disturbed.
struct Disturbed {
    folder: TempDir,
    job: TrainJob,
    fleet: Fleet,
}

impl Disturbed {
    async fn start(name: &str, epochs: u64, workers: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut job = demo_job(name, folder.path(), epochs)?;
        (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (1, 3);
        let options = WorkerOptions { threads: 1, audit: true, more: Vec::new() };
        let fleet = Fleet::start(workers, options).await?;
        fleet.submit(&job).await?;
        Ok(Self { folder, job, fleet })
    }

    async fn step(&mut self, step: u64) -> Result<()> {
        let name = self.job.metadata.name.clone();
        self.fleet.wait_step(&name, step, RUN).await?;
        Ok(())
    }

    /// Waits for the end and holds it beside an undisturbed run of one worker.
    async fn ends_as_if_nothing_had_been(mut self) -> Result<Run> {
        let name = self.job.metadata.name.clone();
        self.fleet.wait_success(&name, RUN).await?;
        let run = Run::read(&self.job).await?;
        prove_ledger(&self.job, &store(&self.job)?).await?;
        print_events(&self.job).await?;
        drop(self.fleet);
        let mut alone = demo_job("undisturbed", self.folder.path(), self.job.spec.epochs)?;
        alone.spec.fleet.max_workers = 1;
        let alone = train(&alone, 1).await?;
        let steps = |run: &Run| run.steps.iter().map(|r| r.step).collect::<Vec<_>>();
        assert_eq!(steps(&run), steps(&alone), "steps are missing or twice in the history");
        assert_eq!(run.ledger(), alone.ledger(), "another order of samples");
        assert_eq!(run.pixels(), alone.pixels(), "other augmented pixels");
        assert_eq!(run.losses(), alone.losses(), "other losses");
        for (tensor, digest) in &alone.state {
            assert_eq!(run.state.get(tensor), Some(digest), "`{tensor}` of the final state differs");
        }
        Ok(run)
    }
}

/// What happened when, for people.
async fn print_events(job: &TrainJob) -> Result<()> {
    let events = r2o_storage::run::read_events(&store(job)?).await?;
    let start = events.first().map_or(0, |e| e.unix_ms);
    for event in events {
        println!("{:>6} ms  {:<20} {}", event.unix_ms - start, event.reason, event.message);
    }
    Ok(())
}

fn generations(run: &Run) -> BTreeSet<u64> {
    run.steps.iter().map(|r| r.generation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_costs_the_step_in_flight() -> Result<()> {
    let mut run = Disturbed::start("killed", 3, 3).await?;
    run.step(3).await?;
    run.fleet.workers.remove(0).process.kill()?;
    run.step(6).await?;
    run.fleet.workers.remove(0).process.kill()?;
    let run = run.ends_as_if_nothing_had_been().await?;
    ensure!(generations(&run).len() == 3, "generations {:?}", generations(&run));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_join_and_drain_between_two_steps() -> Result<()> {
    let mut run = Disturbed::start("elastic", 6, 1).await?;
    run.step(2).await?;
    run.fleet.add_worker("late")?;
    let name = run.job.metadata.name.clone();
    let joined = run.fleet.wait_job(&name, "the late one takes part", RUN, |job| Ok(job.generation == 2)).await?;
    let step = joined.progress.map_or(0, |p| p.step);
    run.step(step + 3).await?;
    run.fleet.workers[0].process.signal(Signal::TERM)?;
    let exit = run.fleet.workers[0].process.wait_end(RUN).await?;
    ensure!(exit.code() == Some(0), "the drained worker exits with {exit}");
    run.fleet.workers.remove(0);
    let run = run.ends_as_if_nothing_had_been().await?;
    ensure!(generations(&run).len() == 3, "generations {:?}", generations(&run));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_costs_nothing() -> Result<()> {
    let mut run = Disturbed::start("headless", 3, 2).await?;
    run.step(5).await?;
    run.fleet.coordinator.process.kill()?;
    run.fleet.restart_coordinator().await?;
    run.step(8).await?;
    for worker in &mut run.fleet.workers {
        worker.process.must_run()?;
    }
    run.ends_as_if_nothing_had_been().await?;
    Ok(())
}
