//! A run under faults, and the oracle at its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use r2o_e2e::{RUN, Run, demo_job, prove_ledger, train};
use r2o_proto::v1::JobState;
use r2o_test_kit::{Fleet, FleetOptions, WorkerOptions, wait_until};
use r2o_types::TrainJob;

use crate::fault::{Fault, Kind};
use crate::ground::{Ground, Place};
use crate::watch::{Seen, Watch};

/// A fleet that has not recovered after so long never will.
pub(crate) const RECOVERY: Duration = Duration::from_secs(120);
/// Photographs of the demo.
const PHOTOS: u64 = 134;
/// Steps that a fault takes, with those between two faults.
const STEPS_OF_A_FAULT: u64 = 8;
/// Steps that are done while an S3 server comes back.
const STEPS_WITHOUT_STORAGE: u64 = 40;

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
    /// From that one to the next: what a step takes with those who are there now.
    pub step: Duration,
    /// Committed steps that had to be done again.
    pub lost: u64,
}

/// A disturbed run.
pub struct Chaos {
    // Workers end before their ground goes.
    pub(crate) fleet: Fleet,
    pub(crate) watch: Watch,
    pub(crate) job: TrainJob,
    pub(crate) ground: Ground,
    names: usize,
}

impl Chaos {
    /// Starts a job on three workers that lasts for these faults.
    ///
    /// # Errors
    /// When the fleet does not start.
    pub async fn start(
        name: &str,
        size: Size,
        (ground, options): (Ground, FleetOptions),
        faults: &[Fault],
    ) -> Result<Self> {
        let steps = |fault: &Fault| match fault.kind {
            Kind::KillStorage => STEPS_OF_A_FAULT + STEPS_WITHOUT_STORAGE,
            _ => STEPS_OF_A_FAULT,
        };
        let steps: u64 = faults.iter().map(steps).sum();
        let mut job = demo_job(name, ground.folder.path(), 1)?;
        job.spec.reproducible = size.reproducible;
        job.spec.data.image_size = size.image;
        job.spec.batch.samples_per_lane = size.samples_per_lane;
        job.spec.epochs = steps.div_ceil(steps_per_epoch(&job));
        // One every so many steps, whatever an epoch has.
        job.spec.checkpoint.every.epochs = 4_u64.div_ceil(steps_per_epoch(&job));
        job.spec.checkpoint.url = Some(ground.checkpoints(name));
        (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (1, 4);
        let worker = WorkerOptions { threads: 1, audit: true, more: Vec::new() };
        let fleet = Fleet::start_with(3, FleetOptions { worker, ..options }).await?;
        fleet.submit(&job).await?;
        let watch = Watch::start(&fleet.coordinator.url, name)?;
        Ok(Self { fleet, watch, job, ground, names: 0 })
    }

    /// Waits for the fault's moment, lets it happen, and waits until the fleet has recovered. A fault that does not suit the
    /// number of workers becomes one that does.
    ///
    /// # Errors
    /// When the fleet does not recover in time, or loses more than it may.
    pub async fn suffer(&mut self, fault: &Fault) -> Result<Outcome> {
        let start = self.watch.last().map_or(0, |seen| seen.step);
        let workers = self.fleet.workers.len();
        // Who is not a member yet can neither be missed nor take over.
        let steps = |seen: &Seen| {
            seen.step >= start + fault.steps && seen.workers == workers && seen.state == JobState::Running
        };
        let moment =
            self.watch.until("some steps with all workers between two faults", RECOVERY, Instant::now(), steps);
        moment.await.map_err(|error| error.context(self.fleet.logs(12)))?;
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
        let repair = self.damage(kind, target, before).await?;
        let outcome = self.recovery(kind, before, at).await;
        self.mend(repair)?;
        let outcome = outcome?;
        ensure!(outcome.lost == 0 || kind.loses_steps(), "{} committed steps were done again", outcome.lost);
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
        let at_work = if kind.takes_all_workers() {
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
        let another = |seen: &Seen| seen.generation >= generation && seen.step > step.step;
        let another = self.watch.until("one more step", RECOVERY, step.at, another).await?;
        let all = self.watch.all();
        let commits = all.windows(2).filter(|pair| pair[1].step != pair[0].step && pair[1].at < step.at);
        let last = commits.map(|pair| pair[1].at).rfind(|when| *when <= since).unwrap_or(at);
        let then = all.iter().filter(|seen| (before.at..=since).contains(&seen.at));
        let highest = then.map(|seen| seen.step).max().unwrap_or(before.step);
        let lost = if opened.is_some() { highest.saturating_sub(began.step) } else { 0 };
        ensure!(
            kind == Kind::DamageAndKillFleet || began.step >= before.checkpoint,
            "the fleet went back to step {}, beyond the checkpoint after step {}",
            began.step,
            before.checkpoint
        );
        Ok(Outcome {
            kind,
            detected: opened.map(|seen| seen.at.duration_since(at)),
            recovered: step.at.duration_since(at),
            held: step.at.duration_since(last),
            step: another.at.duration_since(step.at),
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
        let store = self.ground.store(&self.ground.checkpoints(&name))?;
        let run = Run::read_from(&store).await?;
        prove_ledger(&self.job, &store).await?;
        let events = r2o_storage::run::read_events(&store).await?;
        drop(self.fleet);
        let mut alone = demo_job("undisturbed", self.ground.folder.path(), self.job.spec.epochs)?;
        (alone.spec.data, alone.spec.batch) = (self.job.spec.data.clone(), self.job.spec.batch.clone());
        alone.spec.fleet.max_workers = 1;
        let alone = train(&alone, 1).await?;
        let steps: Vec<u64> = run.steps.iter().map(|record| record.step).collect();
        let events: Vec<String> = events.iter().map(|e| format!("{} {}: {}", e.unix_ms, e.reason, e.message)).collect();
        let expected: Vec<u64> = (0..self.job.spec.epochs * steps_per_epoch(&self.job)).collect();
        ensure!(steps == expected, "the history has steps {steps:?}\n{}", events.join("\n"));
        ensure!(run.ledger() == alone.ledger(), "another order of samples");
        ensure!(run.pixels() == alone.pixels(), "other augmented pixels");
        if !self.job.spec.reproducible {
            return Ok(());
        }
        ensure!(run.losses() == alone.losses(), "other losses");
        if let Some((tensor, _)) = alone.state.iter().find(|(tensor, hash)| run.state.get(*tensor) != Some(hash)) {
            bail!("`{tensor}` of the final state is not that of an undisturbed run");
        }
        Ok(())
    }

    /// One more worker.
    pub(crate) fn add(&mut self) -> Result<()> {
        self.names += 1;
        self.fleet.add_worker(&format!("more-{}", self.names))
    }
}

/// Which faults happen to which run.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Where.
    pub place: Place,
    /// The same seed and number give the same faults.
    pub seed: u64,
    /// Of the run, among those of the seed.
    pub number: u64,
    /// How many faults.
    pub faults: usize,
    /// Of these kinds; empty: of all.
    pub kinds: Vec<Kind>,
    /// What a step is.
    pub size: Size,
}

/// What a step is: it has four lanes.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Side of the images in pixels, a multiple of 32.
    pub image: u32,
    /// Images of a lane.
    pub samples_per_lane: u32,
    /// Whether the weights must be those of an undisturbed run, bit by bit.
    pub reproducible: bool,
}

fn steps_per_epoch(job: &TrainJob) -> u64 {
    r2o_types::steps_per_epoch(PHOTOS, job.spec.batch.lanes, job.spec.batch.samples_per_lane)
}

/// A whole run: opens the ground, suffers the faults, and holds the end beside an undisturbed run. `Err` in the inner
/// result: what the machine lacks.
///
/// # Errors
/// When the fleet does not recover, or its run ends differently.
pub async fn run(trial: &Trial, mut heard: impl FnMut(&Outcome)) -> Result<Result<Vec<Outcome>, String>> {
    let Trial { place, seed, number, faults, kinds, size } = trial;
    let ground = match Ground::open(*place)? {
        Ok(ground) => ground,
        Err(lacks) => return Ok(Err(lacks)),
    };
    let wanted = |kind| ground.0.has(kind) && (kinds.is_empty() || kinds.contains(&kind));
    let faults = crate::fault::draw(*seed, *number, *faults, wanted);
    let mut chaos = Chaos::start(&format!("chaos-{number}"), *size, ground, &faults).await?;
    let mut outcomes = Vec::new();
    for (at, fault) in faults.iter().enumerate() {
        let outcome = chaos.suffer(fault).await;
        let outcome = outcome.with_context(|| format!("seed {seed}, run {number}, fault {}", at + 1))?;
        heard(&outcome);
        outcomes.push(outcome);
    }
    chaos.finish().await.with_context(|| format!("seed {seed}, run {number}"))?;
    Ok(Ok(outcomes))
}

/// Lets some time of the fault itself pass.
pub(crate) async fn wait_for(span: Duration) -> Result<()> {
    let start = Instant::now();
    wait_until("the clock goes on", span + RECOVERY, || async { Ok((start.elapsed() >= span).then_some(())) }).await
}
