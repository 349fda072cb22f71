//! Does what a fault says, and undoes what must be undone for the run to end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use r2o_storage::checkpoint;
use r2o_test_kit::{Host, Signal, Worker};

use crate::fault::Kind;
use crate::run::{Chaos, RECOVERY, wait_for};
use crate::watch::Seen;

/// How long a stopped coordinator stays stopped: longer than a worker's lease.
const FROZEN: Duration = Duration::from_secs(3);
/// A pause of a slow worker: shorter than its lease.
const SLOW: Duration = Duration::from_millis(600);

/// What is undone once the fleet has recovered.
pub(crate) enum Repair {
    Nothing,
    Continue(usize),
    BringBack { home: PathBuf, away: PathBuf },
    EmptyDisk,
    RestartStorage,
    Connect(Host),
}

impl Chaos {
    pub(crate) async fn damage(&mut self, kind: Kind, target: usize, before: Seen) -> Result<Repair> {
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
                let worker = self.take(target)?;
                drain(vec![worker]).await?;
            }
            Kind::DrainFleet => {
                let workers = std::mem::take(&mut self.fleet.workers);
                drain(workers).await?;
                self.add()?;
                self.add()?;
            }
            Kind::AddWorker => self.add()?,
            Kind::KillCoordinator => {
                self.fleet.coordinator.process.kill()?;
                self.fleet.restart_coordinator().await?;
            }
            Kind::StopCoordinatorInOrder => {
                self.fleet.coordinator.process.signal(Signal::TERM)?;
                let exit = self.fleet.coordinator.process.wait_end(RECOVERY).await?;
                ensure!(exit.code() == Some(0), "a coordinator that was asked to stop exits with {exit}");
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
                let home = PathBuf::from(self.ground.checkpoints(&self.job.metadata.name));
                let away = Path::new(&home).with_extension("away");
                // Before the first checkpoint there may be no folder yet.
                std::fs::create_dir_all(&home)?;
                std::fs::rename(&home, &away)?;
                std::fs::write(&home, "not a folder")?;
                repair = Repair::BringBack { home, away };
            }
            Kind::FullDisk => {
                self.ground.disk.as_ref().context("there is no disk")?.fill(true)?;
                repair = Repair::EmptyDisk;
            }
            Kind::KillStorage => {
                self.ground.server.as_mut().context("there is no server")?.kill()?;
                repair = Repair::RestartStorage;
            }
            Kind::CutWorker => {
                let host = self.host(target)?;
                self.network()?.cut(&host, true)?;
                repair = Repair::Connect(host);
            }
            Kind::CutPair => {
                let (one, other) = (self.host(target)?, self.host((target + 1) % self.fleet.workers.len())?);
                self.network()?.cut_pair(&one, &other, true)?;
                let noticed = |seen: &Seen| seen.generation > before.generation;
                let waited = self.watch.until("the cut is noticed", RECOVERY, Instant::now(), noticed).await;
                // As long as they cannot reach each other there is no generation with both.
                self.network()?.cut_pair(&one, &other, false)?;
                waited?;
            }
        }
        Ok(repair)
    }

    pub(crate) fn mend(&mut self, repair: Repair) -> Result<()> {
        match repair {
            Repair::Nothing => Ok(()),
            Repair::Continue(target) => self.fleet.workers[target].process.signal(Signal::CONT),
            Repair::BringBack { home, away } => {
                std::fs::remove_file(&home)?;
                Ok(std::fs::rename(&away, &home)?)
            }
            Repair::EmptyDisk => self.ground.disk.as_ref().context("there is no disk")?.fill(false),
            Repair::RestartStorage => self.ground.server.as_mut().context("there is no server")?.restart(),
            Repair::Connect(host) => self.network()?.cut(&host, false),
        }
    }

    fn take(&mut self, target: usize) -> Result<Worker> {
        ensure!(target < self.fleet.workers.len(), "there is no worker {target}");
        Ok(self.fleet.workers.remove(target))
    }

    fn host(&self, target: usize) -> Result<Host> {
        self.fleet.workers.get(target).and_then(|worker| worker.host.clone()).context("the worker is on loopback")
    }

    fn network(&self) -> Result<&r2o_test_kit::Network> {
        self.fleet.options.network.as_ref().context("the fleet is on loopback")
    }

    fn replace_all(&mut self) -> Result<()> {
        for worker in &self.fleet.workers {
            worker.process.signal(Signal::KILL)?;
        }
        self.fleet.workers.clear();
        self.add()?;
        self.add()
    }

    /// Flips a bit of an object that no other checkpoint uses.
    async fn damage_newest_checkpoint(&self) -> Result<()> {
        let there = |seen: &Seen| seen.checkpoint > 0;
        self.watch.until("a first checkpoint", RECOVERY, Instant::now() - RECOVERY, there).await?;
        let store = self.ground.store(&self.ground.checkpoints(&self.job.metadata.name))?;
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
        let key = format!("objects/{}", own.blake3);
        let mut bytes = store.get(&key).await?.to_vec();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        Ok(store.put(&key, bytes).await?)
    }
}

/// Asks workers to leave, all at once, and waits until they have left in order.
async fn drain(mut workers: Vec<Worker>) -> Result<()> {
    for worker in &workers {
        worker.process.signal(Signal::TERM)?;
    }
    for worker in &mut workers {
        let exit = worker.process.wait_end(RECOVERY).await?;
        ensure!(exit.code() == Some(0), "a drained worker exits with {exit}:\n{}", worker.process.log_tail(20));
    }
    Ok(())
}
