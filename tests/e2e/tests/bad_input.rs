//! Bad input is refused with a message that names the thing, and loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use r2o_e2e::{RUN, demo_job};
use r2o_proto::v1::{EventsRequest, Job, JobState, SubmitRequest};
use r2o_test_kit::{Coordinator, Fleet, WorkerOptions, not_run, packed_photos, wait_until};
use r2o_types::TrainJob;

const SOON: Duration = Duration::from_secs(60);

fn one_thread() -> WorkerOptions {
    WorkerOptions { threads: 1, audit: false, more: Vec::new() }
}

async fn refusal(fleet: &Fleet, spec: String) -> Result<String> {
    let answer = fleet.coordinator.jobs().await?.submit(SubmitRequest { spec, dry_run: false }).await;
    let status = answer.err().context("the job was accepted")?;
    Ok(status.message().to_owned())
}

fn assert_names(message: &str, things: &[&str]) {
    for thing in things {
        assert!(message.contains(thing), "`{thing}` is not named in: {message}");
    }
}

async fn ended(fleet: &mut Fleet, name: &str) -> Result<Job> {
    let failed = |job: &Job| Ok(job.state() == JobState::Failed);
    fleet.wait_job(name, "the job fails", RUN, failed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_jobs_are_refused_with_the_field_and_the_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(0, one_thread()).await?;
    let job = demo_job("impossible", folder.path(), 1)?;
    let changed = |change: &dyn Fn(&mut TrainJob)| {
        let mut job = job.clone();
        change(&mut job);
        serde_json::to_string(&job)
    };
    let misspelt = serde_json::to_string(&job)?.replace("\"samplesPerLane\"", "\"samplesPerLnae\"");
    assert_names(&refusal(&fleet, misspelt).await?, &["spec.batch", "samplesPerLnae"]);

    let size = changed(&|job| job.spec.data.image_size = 100)?;
    assert_names(&refusal(&fleet, size).await?, &["spec.data.imageSize", "100", "32"]);

    let clusters = changed(&|job| {
        job.spec.batch.samples_per_lane = 1;
        job.spec.method.prior = r2o_types::Prior::Grid { cells: 4 };
    })?;
    assert_names(&refusal(&fleet, clusters).await?, &["spec.method.curriculum", "16"]);

    let unreachable = changed(&|job| job.spec.data.url = "http://127.0.0.1:9/photos".to_owned())?;
    assert_names(&refusal(&fleet, unreachable).await?, &["http://127.0.0.1:9/photos"]);

    let missing = changed(&|job| job.spec.data.url = "/no/such/folder".to_owned())?;
    assert_names(&refusal(&fleet, missing).await?, &["/no/such/folder"]);

    // sysfs takes no new files from anybody, root included.
    let read_only = changed(&|job| job.spec.checkpoint.url = Some("/sys/r2o".to_owned()))?;
    assert_names(&refusal(&fleet, read_only).await?, &["/sys/r2o"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_workers_says_what_it_waits_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(0, one_thread()).await?;
    fleet.submit(&demo_job("lonely", folder.path(), 1)?).await?;
    let job = fleet.job("lonely").await?;
    assert_eq!(job.state(), JobState::Queued);
    assert_names(&job.reason, &["worker"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_coordinator_on_the_same_state_is_refused() -> Result<()> {
    let fleet = Fleet::start(0, one_thread()).await?;
    let state = format!("file://{}", fleet.state().display());
    let mut second = Coordinator::launch(fleet.folder(), "second", &state, &[])?;
    let status = second.wait_end(SOON).await?;
    assert!(!status.success(), "two coordinators run on one state folder");
    let log = second.log_tail(20);
    assert_names(&log, &["state"]);
    assert!(log.contains("another coordinator") || log.contains("held"), "the holder is not named in: {log}");
    fleet.coordinator.jobs().await.context("the first coordinator goes on")?;
    Ok(())
}

/// A copy of the packed photographs and the path of its first shard.
fn copied_set(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let copy = folder.join("set");
    fs::create_dir(&copy)?;
    let mut shard = None;
    for entry in fs::read_dir(packed_photos()?)? {
        let from = entry?.path();
        let to = copy.join(from.file_name().context("a file has a name")?);
        fs::copy(&from, &to)?;
        if to.extension().is_some_and(|e| e == "tar") {
            shard = Some(to);
        }
    }
    Ok((copy, shard.context("the set has a shard")?))
}

async fn train_on_damaged(name: &str, damage: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (set, shard) = copied_set(folder.path())?;
    let mut job = demo_job(name, folder.path(), 2)?;
    job.spec.data.url = set.display().to_string();
    damage(&shard)?;
    let mut fleet = Fleet::start(1, one_thread()).await?;
    if let Err(refused) = fleet.submit(&job).await {
        // Seen before the first step already.
        assert_names(&format!("{refused:#}"), &[shard.file_name().and_then(|n| n.to_str()).unwrap_or_default()]);
        return Ok(());
    }
    let failed = ended(&mut fleet, name).await?;
    assert_names(&failed.reason, &[shard.file_name().and_then(|n| n.to_str()).unwrap_or_default()]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_shard_fails_the_job_by_name() -> Result<()> {
    train_on_damaged("truncated", |shard| {
        let length = fs::metadata(shard)?.len();
        Ok(fs::OpenOptions::new().write(true).open(shard)?.set_len(length / 2)?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_fails_the_job_by_name() -> Result<()> {
    train_on_damaged("flipped", |shard| {
        let mut bytes = fs::read(shard)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(fs::write(shard, bytes)?)
    })
    .await
}

/// Runs the named test of this program again in a mount namespace of its own, where it may mount a small file system.
fn in_namespace(test: &str) -> Result<bool> {
    if std::env::var_os("R2O_IN_NAMESPACE").is_some() {
        return Ok(true);
    }
    let may_mount =
        std::process::Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may_mount.is_ok_and(|o| o.status.success()) {
        not_run("needs unshare and the right to mount in a namespace");
        return Ok(false);
    }
    let output = std::process::Command::new("unshare")
        .arg("-rm")
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env("R2O_IN_NAMESPACE", "1")
        .output()?;
    ensure!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_checkpoints_but_not_the_run() -> Result<()> {
    if !in_namespace("a_full_disk_costs_checkpoints_but_not_the_run")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let small = folder.path().join("small");
    fs::create_dir(&small)?;
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&small).status()?;
    ensure!(mounted.success(), "cannot mount a small file system");

    let mut fleet = Fleet::start(1, one_thread()).await?;
    let mut job = demo_job("full", &small, 3)?;
    job.spec.checkpoint.every.epochs = 1;
    fleet.submit(&job).await?;
    fleet.wait_step("full", 6, RUN).await?;
    let message = wait_until("an event names the full disk", RUN, || async {
        let request = EventsRequest { name: "full".to_owned(), follow: false };
        let mut events = fleet.coordinator.jobs().await?.events(request).await?.into_inner();
        let mut found = None;
        while let Some(event) = events.message().await? {
            if event.warning && event.message.to_lowercase().contains("no space") {
                found = Some(event.message);
            }
        }
        Ok(found)
    })
    .await?;
    assert_names(&message, &["small"]);
    Ok(())
}
