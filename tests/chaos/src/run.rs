//! A run under faults, and the oracle at its end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use r2o_e2e::{RUN, Run, demo_job, store, train};
use r2o_proto::v1::JobState;
use r2o_storage::checkpoint;
use r2o_test_kit::{Fleet, Signal, Worker, WorkerOptions, wait_until};
use r2o_types::TrainJob;
use tempfile::TempDir;

use crate::fault::{Fault, Kind};
use crate::watch::{Seen, Watch};

/// A fleet that has not recovered after so long never will.
const RECOVERY: Duration = Duration::from_secs(90);
const STEPS_PER_EPOCH: u64 = 4;
/// How long a stopped coordinator stays stopped: longer than a worker's lease.
const FROZEN: Duration = Duration::from_secs(3);
/// A pause of a slow worker: shorter than its lease.
const SLOW: Duration = Duration::from_millis(600);

/// How one fault went.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What happened.
    pub kind: Kind,
    /// From the fault until the coordinator opened the next generation.
    pub detected: Option<Duration>,
    /// From the fault to the next step that was computed and committed after it.
    pub recovered: Duration,
    /// From the last commit before to that one: how long the others were held.
    pub held: Duration,
    /// Committed steps that had to be done again.
    pub lost: u64,
}

/// A disturbed run.
pub struct Chaos {
    folder: TempDir,
    job: TrainJob,
    fleet: Fleet,
    watch: Watch,
    names: usize,
}

impl Chaos {
    /// Starts a job on three workers that lasts for some `steps`.
    ///
    /// # Errors
    /// When the fleet does not start.
    pub async fn start(name: &str, steps: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut job = demo_job(name, folder.path(), steps.div_ceil(STEPS_PER_EPOCH))?;
        job.spec.fleet.min_workers = 1;
        job.spec.fleet.max_workers = 4;
        let options = WorkerOptions { threads: 1, audit: true, more: Vec::new() };
        let fleet = Fleet::start(3, options).await?;
        fleet.submit(&job).await?;
        let watch = Watch::start(&fleet.coordinator.url, name)?;
        Ok(Self { folder, job, fleet, watch, names: 0 })
    }

    /// Waits for the fault's moment, lets it happen, and waits until the fleet has recovered. A fault that does not suit the
    /// number of workers becomes one that does.
    ///
    /// # Errors
    /// When the fleet does not recover in time.
    pub async fn suffer(&mut self, fault: &Fault) -> Result<Outcome> {
        let start = self.watch.last().map_or(0, |seen| seen.step);
        let workers = self.fleet.workers.len();
        // Who is not a member yet can neither be missed nor take over.
        let steps = |seen: &Seen| {
            seen.step >= start + fault.steps && seen.workers == workers && seen.state == JobState::Running
        };
        self.watch.until("some steps with all workers between two faults", RECOVERY, Instant::now(), steps).await?;
        wait_for(Duration::from_millis(fault.delay_ms)).await?;
        let kind = match fault.kind {
            kind if kind.suits(workers) => kind,
            Kind::AddWorker => Kind::KillWorker,
            _ => Kind::AddWorker,
        };
        let outcome = self.happen(kind, fault.target % workers.max(1)).await;
        outcome.map_err(|error| error.context(format!("{kind}\n{}", self.fleet.logs(12))))
    }

    async fn happen(&mut self, kind: Kind, target: usize) -> Result<Outcome> {
        let before = self.watch.last().context("the job is known")?;
        let at = Instant::now();
        let mut repair = Repair::Nothing;
        match kind {
            Kind::KillWorker => drop(self.take(target)?.process.kill()?),
            Kind::StopWorker => {
                self.fleet.workers[target].process.signal(Signal::STOP)?;
                repair = Repair::Continue(target);
            }
            Kind::SlowWorker => {
                for _ in 0..3 {
                    self.fleet.workers[target].process.signal(Signal::STOP)?;
                    wait_for(SLOW).await?;
                    self.fleet.workers[target].process.signal(Signal::CONT)?;
                    wait_for(SLOW / 4).await?;
                }
            }
            Kind::DrainWorker => {
                self.fleet.workers[target].process.signal(Signal::TERM)?;
                let mut worker = self.take(target)?;
                let exit = worker.process.wait_end(RECOVERY).await?;
                ensure!(exit.code() == Some(0), "a drained worker exits with {exit}:\n{}", worker.process.log_tail(20));
            }
            Kind::AddWorker => self.add()?,
            Kind::KillCoordinator => {
                self.fleet.coordinator.process.kill()?;
                self.fleet.restart_coordinator().await?;
            }
            Kind::StopCoordinator => {
                self.fleet.coordinator.process.signal(Signal::STOP)?;
                wait_for(FROZEN).await?;
                self.fleet.coordinator.process.signal(Signal::CONT)?;
            }
            Kind::KillFleet => self.replace_all()?,
            Kind::DamageAndKillFleet => {
                self.damage_newest_checkpoint().await?;
                self.replace_all()?;
            }
            Kind::StorageAway => {
                let (home, away) = self.checkpoints()?;
                std::fs::rename(&home, &away)?;
                std::fs::write(&home, "not a folder")?;
                repair = Repair::BringBack { home, away };
            }
        }
        let outcome = self.recovery(kind, before, at).await;
        match repair {
            Repair::Nothing => {}
            Repair::Continue(target) => self.fleet.workers[target].process.signal(Signal::CONT)?,
            Repair::BringBack { home, away } => {
                std::fs::remove_file(&home)?;
                std::fs::rename(&away, &home)?;
            }
        }
        let outcome = outcome?;
        if self.fleet.workers.len() < 2 {
            self.add()?;
        }
        for worker in &mut self.fleet.workers {
            worker.process.must_run()?;
        }
        Ok(outcome)
    }

    /// Waits for a step that was computed after the fault.
    async fn recovery(&self, kind: Kind, before: Seen, at: Instant) -> Result<Outcome> {
        let at_work = if kind.loses_steps() {
            // One after another goes, and those that are left form generations of a moment.
            let idle = |seen: &Seen| seen.state == JobState::Queued;
            self.watch.until("all workers are gone", RECOVERY, at, idle).await?.at
        } else {
            at
        };
        let opened = if kind.ends_generation() {
            let next = |seen: &Seen| seen.generation > before.generation && seen.state != JobState::Queued;
            Some(self.watch.until("the next generation", RECOVERY, at_work, next).await?)
        } else {
            None
        };
        // What members of the new generation already held is committed when it begins to train.
        let generation = opened.map_or(before.generation, |seen| seen.generation);
        let trains = |seen: &Seen| seen.generation >= generation && seen.state == JobState::Running;
        let since = opened.map_or(at, |seen| seen.at);
        let began = match opened {
            Some(_) => self.watch.until("training again", RECOVERY, since, trains).await?,
            None => before,
        };
        let further = |seen: &Seen| seen.generation >= generation && seen.step > began.step;
        let step = self.watch.until("a step after the fault", RECOVERY, since, further).await?;
        let all = self.watch.all();
        let commits = all.windows(2).filter(|pair| pair[1].step != pair[0].step && pair[1].at < step.at);
        let last = commits.map(|pair| pair[1].at).rfind(|when| *when <= since).unwrap_or(at);
        let highest = all.iter().filter(|seen| seen.at <= since).map(|seen| seen.step).max().unwrap_or(0);
        let lost = if opened.is_some() { highest.saturating_sub(began.step) } else { 0 };
        ensure!(kind.loses_steps() || lost == 0, "{lost} committed steps were lost");
        Ok(Outcome {
            kind,
            detected: opened.map(|seen| seen.at.duration_since(at)),
            recovered: step.at.duration_since(at),
            held: step.at.duration_since(last),
            lost,
        })
    }

    /// Waits for the end, and holds the run beside an undisturbed one of one worker.
    ///
    /// # Errors
    /// When the run fails, or differs in any way.
    pub async fn finish(mut self) -> Result<()> {
        let name = self.job.metadata.name.clone();
        self.fleet.wait_success(&name, RUN).await?;
        let run = Run::read(&self.job).await?;
        drop(self.fleet);
        let mut alone = demo_job("undisturbed", self.folder.path(), self.job.spec.epochs)?;
        alone.spec.fleet.max_workers = 1;
        let alone = train(&alone, 1).await?;
        let steps: Vec<u64> = run.steps.iter().map(|record| record.step).collect();
        let events = r2o_storage::run::read_events(&store(&self.job)?).await?;
        let events: Vec<String> = events.iter().map(|e| format!("{} {}: {}", e.unix_ms, e.reason, e.message)).collect();
        let expected: Vec<u64> = (0..self.job.spec.epochs * STEPS_PER_EPOCH).collect();
        ensure!(steps == expected, "the history has steps {steps:?}\n{}", events.join("\n"));
        ensure!(run.ledger() == alone.ledger(), "another order of samples");
        ensure!(run.pixels() == alone.pixels(), "other augmented pixels");
        ensure!(run.losses() == alone.losses(), "other losses");
        if let Some((tensor, _)) = alone.state.iter().find(|(tensor, hash)| run.state.get(*tensor) != Some(hash)) {
            bail!("`{tensor}` of the final state is not that of an undisturbed run");
        }
        Ok(())
    }

    fn take(&mut self, target: usize) -> Result<Worker> {
        ensure!(target < self.fleet.workers.len(), "there is no worker {target}");
        Ok(self.fleet.workers.remove(target))
    }

    fn add(&mut self) -> Result<()> {
        self.names += 1;
        self.fleet.add_worker(&format!("more-{}", self.names))
    }

    fn replace_all(&mut self) -> Result<()> {
        for worker in &self.fleet.workers {
            worker.process.signal(Signal::KILL)?;
        }
        self.fleet.workers.clear();
        self.add()?;
        self.add()
    }

    fn checkpoints(&self) -> Result<(PathBuf, PathBuf)> {
        let url = self.job.spec.checkpoint.url.as_deref().context("the job has a checkpoint URL")?;
        let home = Path::new(url);
        Ok((home.to_owned(), home.with_extension("away")))
    }

    /// Flips a bit of an object that no other checkpoint uses.
    async fn damage_newest_checkpoint(&self) -> Result<()> {
        let there = |seen: &Seen| seen.checkpoint > 0;
        self.watch.until("a first checkpoint", RECOVERY, Instant::now() - RECOVERY, there).await?;
        let store = store(&self.job)?;
        let mut steps: Vec<u64> = checkpoint::list(&store).await?.into_iter().map(|manifest| manifest.step).collect();
        steps.sort_unstable();
        let Some(newest) = steps.pop() else { return Ok(()) };
        if steps.is_empty() {
            // Without an earlier one the job must fail, which is another test's matter.
            return Ok(());
        }
        let mut others = BTreeSet::new();
        for step in steps {
            others.extend(checkpoint::load_manifest(&store, step).await?.tensors.into_iter().map(|t| t.blake3));
        }
        let manifest = checkpoint::load_manifest(&store, newest).await?;
        let Some(own) = manifest.tensors.iter().find(|t| !others.contains(&t.blake3)) else { return Ok(()) };
        let path = self.checkpoints()?.0.join("objects").join(&own.blake3);
        let mut bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        Ok(std::fs::write(&path, bytes)?)
    }
}

/// What is undone once the fleet has recovered.
enum Repair {
    Nothing,
    Continue(usize),
    BringBack { home: PathBuf, away: PathBuf },
}

/// Lets some time of the fault itself pass.
async fn wait_for(span: Duration) -> Result<()> {
    let start = Instant::now();
    wait_until("the clock goes on", span + RECOVERY, || async { Ok((start.elapsed() >= span).then_some(())) }).await
}
