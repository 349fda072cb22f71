//! `export`: from a checkpoint to a safetensors file that other programs load.

mod layout;
mod safetensors;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use r2o_storage::Store;
use r2o_storage::checkpoint::{self, Manifest, TensorEntry};
use serde::Serialize;

use super::now_unix_ms;
use crate::cli::{Export, Layout, Network};
use crate::error::CliError;
use crate::format::bytes;
use crate::output::Output;
use crate::target::{resolve, write};

use self::safetensors::Tensor;

/// Objects that are read at once.
const IN_FLIGHT: usize = 8;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exported {
    out: String,
    job: String,
    step: u64,
    epoch: u64,
    tensors: usize,
    bytes: usize,
}

pub(super) async fn export(url: &str, args: Export, output: &mut Output) -> Result<(), CliError> {
    let store = resolve(&args.run, url).await?;
    let manifest = choose(&store, args.step, output).await?;
    let network = match args.network {
        Network::Online => "online",
        Network::Target => "target",
    };
    let wanted = select(&manifest, args.format, network);
    if wanted.is_empty() {
        let what = format!("the checkpoint of step {} under {} has no {network} backbone", manifest.step, store.url());
        return Err(CliError::refused(what).advice("`--format state` exports whatever it has"));
    }
    // Without the right to write, retention may remove the checkpoint meanwhile, which is then said.
    let lease = checkpoint::lease(&store, manifest.step, now_unix_ms()).await.ok();
    let read = read(&store, wanted).await;
    if let Some(lease) = lease {
        let _runs_out_by_itself = lease.release().await;
    }
    let mut tensors = read?;
    if args.format != Layout::State {
        layout::add_batch_counts(&mut tensors, manifest.step, args.format);
    }
    let file = safetensors::encode(&tensors, &metadata(&manifest, network));
    let size = file.len();
    let out = write(&args.out, file).await?;
    let (step, epoch) = (manifest.step, manifest.epoch);
    let exported = Exported { out, job: manifest.job, step, epoch, tensors: tensors.len(), bytes: size };
    output.result(&exported, |_| {
        let Exported { out, job, tensors, .. } = &exported;
        format!("wrote {tensors} tensors ({}) of job `{job}` after step {step} to {out}", bytes(size as u64))
    })
}

/// The asked checkpoint, or the newest that is whole; damaged newer ones are mentioned.
async fn choose(store: &Store, step: Option<u64>, output: &Output) -> Result<Manifest, CliError> {
    if let Some(step) = step {
        return Ok(checkpoint::load_manifest(store, step).await?);
    }
    let newest = checkpoint::newest(store).await?.ok_or_else(|| {
        CliError::new(crate::error::Exit::NotFound, format!("there are no checkpoints under {}", store.url()))
            .advice("`r2octl checkpoint JOB` takes one of a running job")
    })?;
    for refused in &newest.refused {
        output.note(&format!("passed over: {refused}"));
    }
    Ok(newest.manifest)
}

/// The manifest's tensors that go into the file, with the names that they get there.
fn select(manifest: &Manifest, format: Layout, network: &str) -> Vec<(String, TensorEntry)> {
    let prefix = format!("{network}.backbone.");
    let renamed = manifest.tensors.iter().filter_map(|entry| {
        let name = match format {
            Layout::State => entry.name.clone(),
            _ => layout::rename(entry.name.strip_prefix(&prefix)?, format)?,
        };
        Some((name, entry.clone()))
    });
    renamed.collect()
}

async fn read(store: &Store, wanted: Vec<(String, TensorEntry)>) -> Result<BTreeMap<String, Tensor>, CliError> {
    let reads = stream::iter(wanted.into_iter().map(|(name, entry)| {
        let store = store.clone();
        async move {
            let data = checkpoint::read_object(&store, &entry).await?;
            Ok::<_, CliError>((name, Tensor { dtype: entry.dtype, shape: entry.shape, data: data.to_vec() }))
        }
    }));
    reads.buffer_unordered(IN_FLIGHT).try_collect().await
}

/// `format: pt` is what other readers of safetensors expect; the rest says where the weights are from.
fn metadata(manifest: &Manifest, network: &str) -> BTreeMap<String, String> {
    let backbone = manifest.spec.pointer("/spec/model/backbone").or(manifest.spec.pointer("/model/backbone"));
    BTreeMap::from([
        ("format".into(), "pt".into()),
        ("r2o.job".into(), manifest.job.clone()),
        ("r2o.step".into(), manifest.step.to_string()),
        ("r2o.epoch".into(), manifest.epoch.to_string()),
        ("r2o.network".into(), network.into()),
        ("r2o.backbone".into(), backbone.and_then(|b| b.as_str()).unwrap_or("unknown").into()),
    ])
}
