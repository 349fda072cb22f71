//! One hash of the final state for every fleet: workers join and are lost in between, and a replica whose memory is at
//! fault is named and healed.

use anyhow::{Context, Result, ensure};
use r2o_e2e::{RUN, Run, demo_job, store, train};
use r2o_test_kit::{Fleet, FleetOptions, Signal, Worker, WorkerOptions};
use r2o_types::{PixelType, TrainJob};
use tempfile::TempDir;

/// 134 photographs give so many steps of 32 images.
const STEPS_PER_EPOCH: u64 = 4;

/// Numbers of workers, and epochs. Long runs on 1, 2, 3, 5 and 8 workers take twenty minutes on two cores: they are asked for,
/// as `R2O_FLEETS=1,2,3,5,8`.
fn extent() -> Result<(Vec<usize>, u64)> {
    let Ok(fleets) = std::env::var("R2O_FLEETS") else { return Ok((vec![3, 8], 6)) };
    let fleets = fleets.split(',').map(str::parse).collect::<Result<_, _>>().context("R2O_FLEETS")?;
    Ok((fleets, 15))
}

/// The demo in its smallest size, in eight lanes that all share their batch statistics.
fn small_job(name: &str, folder: &TempDir, epochs: u64) -> Result<TrainJob> {
    let mut job = demo_job(name, folder.path(), epochs)?;
    job.spec.data.image_size = 32;
    (job.spec.batch.lanes, job.spec.batch.samples_per_lane, job.spec.batch.norm_group_lanes) = (8, 4, 8);
    (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (1, 8);
    job.spec.checkpoint.every.epochs = 5;
    (job.spec.model.projector.hidden, job.spec.model.predictor.hidden) = (32, 32);
    ensure!(job.spec.reproducible && job.spec.method.mask_prediction.enabled, "the demo job is not what it was");
    Ok(job)
}

/// One number for the whole final state.
fn hash(run: &Run) -> Result<String> {
    ensure!(run.checkpoint_step == run.steps.len() as u64, "the newest checkpoint is after {}", run.checkpoint_step);
    let lines: String = run.state.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
    Ok(blake3::hash(lines.as_bytes()).to_hex()[..16].to_owned())
}

/// A run that begins with so many workers. One is killed, one joins, one is asked to leave.
async fn disturbed(workers: usize, epochs: u64, folder: &TempDir) -> Result<Run> {
    let job = small_job(&format!("fleet-{workers}"), folder, epochs)?;
    let sixth = epochs * STEPS_PER_EPOCH / 6;
    let name = job.metadata.name.clone();
    let mut fleet = Fleet::start(workers, WorkerOptions { threads: 1, audit: true, more: Vec::new() }).await?;
    fleet.submit(&job).await?;
    fleet.wait_step(&name, sixth, RUN).await?;
    if workers == 1 {
        fleet.add_worker("early")?;
        fleet.wait_job(&name, "two workers", RUN, |job| Ok(job.workers.len() == 2)).await?;
    }
    fleet.wait_step(&name, 2 * sixth, RUN).await?;
    fleet.workers.remove(0).process.kill()?;
    fleet.wait_step(&name, 3 * sixth, RUN).await?;
    fleet.add_worker("late")?;
    let joined = |job: &r2o_proto::v1::Job| Ok(job.workers.iter().any(|worker| worker == "late"));
    let job_then = fleet.wait_job(&name, "the late one takes part", RUN, joined).await?;
    ensure!(job_then.progress.is_some_and(|p| p.step + 2 < job_then.steps), "it came too late to matter");
    let mut leaving = fleet.workers.remove(0);
    leaving.process.signal(Signal::TERM)?;
    let exit = leaving.process.wait_end(RUN).await?;
    ensure!(exit.code() == Some(0), "the drained worker exits with {exit}");
    fleet.wait_success(&name, RUN).await?;
    Run::read(&job).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hash_for_every_fleet_with_joins_and_losses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (fleets, epochs) = extent()?;
    let mut alone = small_job("undisturbed", &folder, epochs)?;
    alone.spec.fleet.max_workers = 1;
    let alone = train(&alone, 1).await?;
    ensure!(alone.steps.len() as u64 == epochs * STEPS_PER_EPOCH, "{} steps", alone.steps.len());
    println!("undisturbed: {}", hash(&alone)?);
    for workers in fleets {
        let run = disturbed(workers, epochs, &folder).await?;
        let generations: Vec<u64> = run.steps.iter().map(|r| r.generation).collect();
        println!("{workers} workers, {} generations: {}", generations.last().unwrap_or(&0), hash(&run)?);
        ensure!(generations.last() >= Some(&4), "nothing happened: generations {generations:?}");
        assert_eq!(run.ledger(), alone.ledger(), "another order of samples on {workers} workers");
        assert_eq!(run.losses(), alone.losses(), "other losses on {workers} workers");
        assert_eq!(hash(&run)?, hash(&alone)?, "another final state on {workers} workers");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_8_bits_give_one_hash_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = async |name: &str, pixel_type, workers: u32| {
        let mut job = small_job(name, &folder, 1)?;
        job.spec.data.pixel_type = pixel_type;
        train(&job, workers).await
    };
    let (one, two) = (run("one", PixelType::Uint8, 1).await?, run("two", PixelType::Uint8, 2).await?);
    assert_eq!(one.pixels(), two.pixels(), "other pixels on two workers");
    assert_eq!(hash(&one)?, hash(&two)?, "another final state on two workers");
    let float = run("float", PixelType::Float, 1).await?;
    assert_eq!(one.ledger(), float.ledger(), "other samples");
    assert_ne!(one.pixels(), float.pixels(), "pixels were not rounded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_flipped_bit_is_named_kept_out_and_healed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let job = small_job("flipped", &folder, 12)?;
    let name = job.metadata.name.clone();
    let options = WorkerOptions { threads: 1, audit: true, more: Vec::new() };
    let often = ["--parity-steps", "4"].map(str::to_owned).to_vec();
    let fleet = FleetOptions { worker: options.clone(), coordinator: often, ..FleetOptions::default() };
    let mut fleet = Fleet::start_with(2, fleet).await?;
    let faulty = WorkerOptions { more: vec!["--flip-bit-at".to_owned(), "11".to_owned()], ..options };
    fleet.workers.push(Worker::start(fleet.folder(), "faulty", &fleet.coordinator.url, &faulty)?);
    let mut three = job.clone();
    three.spec.fleet.min_workers = 2;
    three.spec.fleet.max_workers = 3;
    fleet.submit(&three).await?;
    fleet.wait_job(&name, "it takes part", RUN, |job| Ok(job.workers.iter().any(|w| w == "faulty"))).await?;
    let kept_out = |job: &r2o_proto::v1::Job| Ok(job.workers.len() == 2 && !job.workers.iter().any(|w| w == "faulty"));
    fleet.wait_step(&name, 12, RUN).await?;
    fleet.wait_job(&name, "it is kept out", RUN, kept_out).await?;
    fleet.wait_job(&name, "it is back", RUN, |job| Ok(job.workers.len() == 3)).await?;
    fleet.wait_success(&name, RUN).await?;
    drop(fleet);
    let events = r2o_storage::run::read_events(&store(&job)?).await?;
    let named: Vec<_> = events.iter().filter(|e| e.reason == "ReplicaDiffers").collect();
    ensure!(named.len() == 1, "{} replicas were named: {named:?}", named.len());
    let message = &named.first().context("nobody was named")?.message;
    ensure!(message.contains("worker faulty") && message.contains("after step 11"), "{message}");
    ensure!(message.contains("first in online.backbone.conv1.weight"), "{message}");
    // The bit flipped after the step was applied and was found before the next one: nothing else saw it.
    let mut alone = small_job("sound", &folder, 12)?;
    alone.spec.fleet.max_workers = 1;
    assert_eq!(hash(&Run::read(&job).await?)?, hash(&train(&alone, 1).await?)?, "the damage left a trace");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_fast_job_hold_the_same_bits_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut job = small_job("fast", &folder, 3)?;
    job.spec.reproducible = false;
    // Groups that nobody shares: what each worker sees of batch statistics is its own.
    job.spec.batch.norm_group_lanes = 1;
    (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (3, 3);
    let coordinator = ["--parity-steps", "1"].map(str::to_owned).to_vec();
    let worker = WorkerOptions { threads: 1, audit: false, more: Vec::new() };
    let mut fleet = Fleet::start_with(3, FleetOptions { worker, coordinator, ..FleetOptions::default() }).await?;
    fleet.submit(&job).await?;
    fleet.wait_success("fast", RUN).await?;
    let events = r2o_storage::run::read_events(&store(&job)?).await?;
    ensure!(!events.iter().any(|e| e.reason.starts_with("Replica")), "{events:?}");
    let history = r2o_storage::history::read_all(&store(&job)?).await?;
    ensure!(history.iter().all(|step| step.timings.contains_key("hash_state")), "nothing was compared");
    Ok(())
}
