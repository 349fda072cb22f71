//! `checkpoints ls` and `checkpoints verify`.

use r2o_storage::Store;
use r2o_storage::checkpoint::{self, CheckpointError};

use super::now_unix_ms;
use crate::cli::Checkpoints;
use crate::error::CliError;
use crate::output::Output;
use crate::table;
use crate::target::resolve;
use crate::view::{CheckpointView, VerifyView};

pub(super) async fn run(url: &str, command: Checkpoints, output: &mut Output) -> Result<(), CliError> {
    match command {
        Checkpoints::Ls { run } => ls(&resolve(&run, url).await?, output).await,
        Checkpoints::Verify { run, step } => verify(&resolve(&run, url).await?, step, output).await,
    }
}

async fn ls(store: &Store, output: &mut Output) -> Result<(), CliError> {
    let mut found = Vec::new();
    for info in checkpoint::list(store).await? {
        found.push(match checkpoint::load_manifest(store, info.step).await {
            Ok(manifest) => CheckpointView::whole(&manifest),
            Err(CheckpointError::Storage(e)) => return Err(e.into()),
            Err(damage) => CheckpointView::damaged(info.step, damage.to_string()),
        });
    }
    output.result(&found, |_| table::checkpoints(store.url(), &found, now_unix_ms()))
}

async fn verify(store: &Store, step: Option<u64>, output: &mut Output) -> Result<(), CliError> {
    let steps = match step {
        Some(step) => vec![step],
        None => checkpoint::list(store).await?.into_iter().map(|info| info.step).collect(),
    };
    let mut found = Vec::new();
    for step in steps {
        output.note(&format!("verifying the checkpoint of step {step} under {}", store.url()));
        found.push(match checkpoint::verify(store, step).await {
            Ok(verified) => VerifyView::from(verified),
            Err(e @ (CheckpointError::Storage(_) | CheckpointError::NoSuchStep { .. })) => return Err(e.into()),
            Err(e) => {
                let damage = Some(e.to_string());
                VerifyView { step, ok: false, tensors: 0, bytes: 0, bad: Vec::new(), damage }
            }
        });
    }
    if found.is_empty() {
        return output.result(&found, |_| format!("There are no checkpoints under {}.", store.url()));
    }
    output.result(&found, |_| table::verified(&found))?;
    let bad = found.iter().filter(|v| !v.ok).count();
    if bad == 0 {
        return Ok(());
    }
    Err(CliError::refused(format!("{bad} of {} checkpoints under {} are damaged", found.len(), store.url())).advice(
        "jobs resume from the newest whole one; restore the named objects from a copy, or remove the manifests",
    ))
}
