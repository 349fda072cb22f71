//! Makes label maps, builds shards and writes them; goes on where an earlier run was.

use std::cell::RefCell;

use r2o_storage::Store;
use r2o_storage::shard::{self, INDEX, Member, PackedPrior, SampleEntry, SetIndex, ShardEntry};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::plan::{Plan, Planned};
use super::tarball::{Members, Tarball};
use super::{PackError, PackOptions, PackSummary, Progress};
use crate::augment::Studio;
use crate::decode::DECODER;
use crate::error::DecodeError;
use crate::labels::{self, Binding};
use crate::resize::Crop;

/// Key of the record of finished shards; removed once the set is whole.
const STATE: &str = "pack.json";

/// Shards that an unfinished pack has written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    identity: String,
    shards: Vec<ShardEntry>,
}

pub(super) fn write(
    options: &PackOptions,
    plan: &Plan,
    store: &Store,
    pool: &rayon::ThreadPool,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<PackSummary, PackError> {
    let mut state = runtime.block_on(found(plan, store))?;
    let resumed = state.shards.len();
    for samples in &plan.shards[..resumed.min(plan.shards.len())] {
        progress.advanced(samples.len() as u64);
    }
    for (number, samples) in plan.shards.iter().enumerate().skip(resumed) {
        let members = pool.install(|| {
            samples
                .par_iter()
                .map(|sample| {
                    let made = members(options, sample);
                    progress.advanced(1);
                    made
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        let entry = runtime.block_on(put(store, number, Tarball::build(members)))?;
        state.shards.push(entry);
        // A single shard is finished together with the set.
        if plan.shards.len() > 1 {
            runtime.block_on(store.put(STATE, shard::pretty(&state)))?;
        }
    }
    let set = SetIndex {
        format: shard::FORMAT,
        prior: PackedPrior { segments: options.segments, size: options.slic_size, definition: definition(plan) },
        classes: plan.classes.clone(),
        shards: state.shards,
    };
    runtime.block_on(async {
        shard::write_set(store, &set).await?;
        if store.head(STATE).await?.is_some() {
            store.delete(STATE).await?;
        }
        Ok::<_, PackError>(())
    })?;
    Ok(PackSummary {
        url: store.url().to_owned(),
        samples: set.samples(),
        shards: set.shards.len(),
        resumed,
        bytes: set.shards.iter().map(|s| s.bytes).sum(),
        classes: set.classes,
        skipped: plan.skipped.clone(),
    })
}

/// Names the label maps' definition (algorithm, resize, decoder) and, after the `#`, the pack that made them.
fn definition(plan: &Plan) -> String {
    format!("{}#{}", maps(), &plan.identity[..16])
}

fn maps() -> String {
    format!("{}/bicubic-3/{DECODER}", r2o_slic::DEFINITION)
}

/// What an earlier run left: finished shards of the same plan, or an error when the target holds another set.
async fn found(plan: &Plan, store: &Store) -> Result<State, PackError> {
    let fresh = || State { identity: plan.identity.clone(), shards: Vec::new() };
    if store.head(INDEX).await?.is_some() {
        let set = shard::read_set(store).await?;
        if set.prior.definition != definition(plan) {
            return Err(PackError::OtherSet { url: store.url().to_owned() });
        }
        return whole(store, State { shards: set.shards, ..fresh() }).await;
    }
    let Some(bytes) = store.get_if_exists(STATE).await? else { return Ok(fresh()) };
    match serde_json::from_slice::<State>(&bytes) {
        Ok(state) if state.identity == plan.identity => whole(store, state).await,
        Ok(_) => Err(PackError::OtherSet { url: store.url().to_owned() }),
        // A record that was cut off says nothing: begin anew.
        Err(_) => Ok(fresh()),
    }
}

/// Keeps the leading shards whose tar and index are really there.
async fn whole(store: &Store, mut state: State) -> Result<State, PackError> {
    let mut kept = 0;
    for entry in &state.shards {
        let tar = store.head(&entry.file).await? == Some(entry.bytes);
        if !tar || shard::read_shard(store, entry).await.is_err() {
            break;
        }
        kept += 1;
    }
    state.shards.truncate(kept);
    Ok(state)
}

async fn put(store: &Store, number: usize, tarball: Tarball) -> Result<ShardEntry, PackError> {
    let (file, index) = (format!("shard-{number:06}.tar"), format!("shard-{number:06}.json"));
    let index_text = shard::pretty(&tarball.index);
    let entry = ShardEntry {
        file,
        bytes: tarball.bytes.len() as u64,
        blake3: blake3::hash(&tarball.bytes).to_hex().to_string(),
        index,
        index_blake3: blake3::hash(&index_text).to_hex().to_string(),
        chunks: tarball.chunks,
    };
    store.put(&entry.file, tarball.bytes).await?;
    store.put(&entry.index, index_text).await?;
    Ok(entry)
}

fn members(options: &PackOptions, sample: &Planned) -> Result<Members, PackError> {
    let unreadable = |source| PackError::Source { path: sample.item.name.clone(), source };
    let image = sample.item.image.read().map_err(unreadable)?;
    if blake3::hash(&image) != sample.hash {
        return Err(PackError::Changed { path: sample.item.name.clone() });
    }
    let prior =
        label_map(options, &image).map_err(|source| PackError::Prior { path: sample.item.name.clone(), source })?;
    let mask = sample.item.mask.as_ref().map(|mask| mask.read().map_err(unreadable)).transpose()?;
    let json = serde_json::json!({
        "key": sample.key,
        "class": sample.item.class,
        "label": sample.label,
        "width": sample.width,
        "height": sample.height,
        "source": sample.item.name,
    });
    let nowhere = Member { offset: 0, bytes: 0 };
    Ok(Members {
        entry: SampleEntry {
            key: sample.key.clone(),
            label: sample.label,
            width: sample.width,
            height: sample.height,
            image: nowhere,
            prior: None,
            mask: None,
        },
        extension: extension(&image),
        json: json.to_string().into_bytes(),
        image,
        prior,
        mask,
    })
}

/// By content, since names lie.
fn extension(image: &[u8]) -> &'static str {
    match image::guess_format(image) {
        Ok(image::ImageFormat::Png) => "png",
        Ok(image::ImageFormat::WebP) => "webp",
        _ => "jpg",
    }
}

fn label_map(options: &PackOptions, image: &[u8]) -> Result<Vec<u8>, DecodeError> {
    thread_local! {
        static STUDIO: RefCell<Studio> = RefCell::new(Studio::new());
    }
    let side = options.slic_size;
    let slic = r2o_slic::Options { segments: options.segments, ..r2o_slic::Options::default() };
    let found = STUDIO.with_borrow_mut(|studio| {
        studio.decoder.decode(image)?;
        let mut easel = studio.easel();
        easel.resize(Crop::whole(easel.canvas), false, side);
        let found = r2o_slic::segment(easel.rgb(), side as usize, side as usize, &slic);
        studio.decoder.rest();
        Ok::<_, DecodeError>(found)
    })?;
    let regions: Result<Vec<u8>, _> = found.labels.iter().map(|&label| u8::try_from(label)).collect();
    let regions =
        regions.map_err(|_| DecodeError::Broken(format!("SLIC found {} regions, at most 256 fit", found.count)))?;
    let binding = Binding { definition: maps(), segments: options.segments, size: side, format: shard::FORMAT };
    labels::stored(&binding, &regions, image)
}
