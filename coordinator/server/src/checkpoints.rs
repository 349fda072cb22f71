//! The coordinator's own work on a job's storage: manifests, retention, the search for the newest checkpoint, the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use r2o_coordinator_core::{Event, Tensor};
use r2o_storage::checkpoint::{self, CheckpointError, Committed, Keep, Manifest, TensorEntry};
use r2o_storage::{Store, run};
use r2o_telemetry::otlp::{Span, Spans};
use r2o_telemetry::{TaskKind, build_info, chain, spawn_blocking};
use r2o_types::{TraceContext, TrainJob};

use crate::board::Entry;
use crate::metrics::Storage;
use crate::recorder::Recorder;

/// The first pause before storage that failed is asked again; it doubles, up to a minute.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long the end of a job waits for its history and report to be written.
const FINALIZE: Duration = Duration::from_secs(120);

/// A checkpoint whose tensors are all uploaded.
pub(crate) struct Commit {
    pub(crate) job: String,
    pub(crate) generation: u64,
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) worker_version: String,
    pub(crate) unix_ms: i64,
    /// The checkpoint's span, if it is traced.
    pub(crate) trace: Option<(TraceContext, Spans)>,
}

/// Writes a manifest, then applies retention; nobody uploads meanwhile, because the core asks for the next checkpoint only
/// after the answer.
///
/// The history is written first: it must reach as far as any checkpoint from which a run may go on.
pub(crate) async fn commit(entry: Arc<Entry>, recorder: Option<Recorder>, commit: Commit) -> Event {
    let Commit { job, generation, step, .. } = &commit;
    let (job, generation, step) = (job.clone(), *generation, *step);
    let bytes = commit.tensors.iter().map(|tensor| tensor.bytes).sum();
    let (trace, start, began) = (commit.trace.clone(), SystemTime::now(), Instant::now());
    let written = async {
        if let Some(recorder) = recorder {
            recorder.flush().await?;
        }
        let _alone = entry.keeping.lock().await;
        write(&entry, commit).await
    };
    let written = written.await;
    if let Some((checkpoint, spans)) = trace {
        let context = checkpoint.child("commit_checkpoint");
        let error = written.as_ref().err().cloned();
        spans.record(|| Span::under(checkpoint, "commit_checkpoint", context, start).failed(error));
    }
    match written {
        Ok(()) => {
            entry.metrics.checkpoint(bytes, began.elapsed().as_secs_f64());
            Event::CheckpointCommitted { job, generation, step }
        }
        Err(reason) => {
            Storage::Manifest.failed(entry.metrics.all());
            Event::CheckpointNotCommitted { job, generation, step, reason }
        }
    }
}

async fn write(entry: &Entry, commit: Commit) -> Result<(), String> {
    let spec: TrainJob = TrainJob::parse(&entry.spec()).map_err(|e| e.to_string())?;
    let keep = &spec.spec.checkpoint.keep;
    let (last, every_epochs, now) = (keep.last, keep.every_epochs, commit.unix_ms);
    let manifest = manifest(commit, &spec)?;
    match checkpoint::commit(&entry.store, &manifest).await.map_err(|e| chain(&e).to_string())? {
        Committed::Created => {}
        // After a fall-back to an earlier checkpoint its successor may be there. It counts if it is whole.
        Committed::Exists => {
            let verified = checkpoint::verify(&entry.store, manifest.step).await.map_err(|e| chain(&e).to_string())?;
            if let Some(bad) = verified.bad.first() {
                return Err(format!(
                    "a damaged checkpoint after step {} is in the way (tensor {}); remove its manifest {}",
                    manifest.step,
                    bad.tensor,
                    entry.store.url_of(&crate::wire::manifest_key(manifest.step))
                ));
            }
        }
    }
    let retained = async {
        let leased = checkpoint::leased(&entry.store, now).await?;
        checkpoint::retain(&entry.store, &Keep { last, every_epochs, leased }).await
    };
    if let Err(error) = retained.await {
        Storage::Retention.failed(entry.metrics.all());
        entry.announce("RetentionFailed", format!("old checkpoints stay for now: {}", chain(&error)), true);
    }
    Ok(())
}

fn manifest(commit: Commit, spec: &TrainJob) -> Result<Manifest, String> {
    let entry =
        |t: Tensor| TensorEntry { name: t.name, dtype: t.dtype, shape: t.shape, blake3: t.blake3, bytes: t.bytes };
    let versions = BTreeMap::from([
        ("r2o-coordinator".to_owned(), build_info().version.to_owned()),
        ("r2o-worker".to_owned(), commit.worker_version),
    ]);
    Ok(Manifest {
        format: Manifest::FORMAT,
        job: commit.job,
        step: commit.step,
        epoch: commit.epoch,
        generation: commit.generation,
        spec: serde_json::to_value(spec).map_err(|e| e.to_string())?,
        tensors: commit.tensors.into_iter().map(entry).collect(),
        created_unix_ms: commit.unix_ms,
        versions,
    })
}

/// Looks for the newest whole checkpoint, however long the storage fails.
pub(crate) async fn locate(entry: Arc<Entry>, job: String) -> Event {
    let mut pause = RETRY;
    loop {
        match checkpoint::newest(&entry.store).await {
            Ok(None) => return Event::CheckpointLocated { job, step: None },
            Ok(Some(newest)) => {
                for refused in &newest.refused {
                    entry.announce("CheckpointDamaged", format!("passed over a damaged checkpoint: {refused}"), true);
                }
                return Event::CheckpointLocated { job, step: Some(newest.manifest.step) };
            }
            Err(CheckpointError::Storage(error)) => {
                Storage::Locate.tried_again(entry.metrics.all());
                if pause == RETRY {
                    let message = format!("the newest checkpoint is not known yet, trying again: {}", chain(&error));
                    entry.announce("StorageFailed", message, true);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            Err(error) => return Event::CheckpointsUnreadable { job, reason: chain(&error).to_string() },
        }
    }
}

/// Writes what is left of history and events, then the report. What cannot be written is a warning: the job ends anyhow.
pub(crate) async fn finalize(entry: Arc<Entry>, recorder: Option<Recorder>, job: String) -> Event {
    let work = async {
        if let Some(recorder) = recorder {
            recorder.flush().await?;
        }
        let url = report(&entry.store).await?;
        sweep(&entry).await;
        Ok(url)
    };
    let finished = tokio::time::timeout(FINALIZE, work).await;
    let late = |_| Err(format!("{} did not answer in time", entry.store.url()));
    match finished.unwrap_or_else(late) {
        Ok(url) => entry.set_report(url),
        Err(reason) => {
            Storage::Report.failed(entry.metrics.all());
            entry.announce("ReportNotWritten", reason, true);
        }
    }
    Event::Finalized { job }
}

/// Removes what checkpoints left behind that never came to exist. The job's last generation is over; a commit that is still
/// under way either has written its manifest before, or finds its objects gone and writes none.
async fn sweep(entry: &Entry) {
    let _alone = entry.keeping.lock().await;
    match checkpoint::sweep(&entry.store).await {
        Ok(removed) if removed.objects > 0 => {
            let message = format!("{} objects, {} bytes, that no checkpoint names", removed.objects, removed.bytes);
            entry.announce("OrphansRemoved", message, false);
        }
        Ok(_) => {}
        Err(error) => {
            Storage::Orphans.failed(entry.metrics.all());
            let message = format!("objects that no checkpoint names stay: {}", chain(&error));
            entry.announce("OrphansNotRemoved", message, true);
        }
    }
}

async fn report(store: &Store) -> Result<String, String> {
    let input = match r2o_report::collect(store).await {
        Ok(input) => input,
        Err(error) => return Err(chain(&error).to_string()),
    };
    let page = spawn_blocking("report", TaskKind::Work, move || r2o_report::render(&input)).await;
    let page = page.map_err(|e| e.to_string())?.map_err(|e| chain(&e).to_string())?;
    store.put(run::REPORT, page).await.map_err(|e| chain(&e).to_string())?;
    Ok(store.url_of(run::REPORT))
}
