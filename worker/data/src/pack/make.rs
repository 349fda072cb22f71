//! Makes shards: images are read ahead, decoded and segmented by all threads, and written while the next shard is made.
//!
//! Memory is bounded: what is read and not yet made is within a budget, one shard is being filled and one written. A slow store
//! holds up the threads, and slow threads the reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use futures::{StreamExt, stream};
use r2o_storage::Store;
use r2o_storage::shard::{self, Member, SampleEntry};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::place::{READS, Stretch, apart};
use super::record::{self, Image, ShardRecord};
use super::rows::{Cursor, Row};
use super::source::{Mask, Origin};
use super::tarball::{Members, Tarball};
use super::{PackError, PackOptions, Plan, Progress, Skipped};
use crate::augment::Studio;
use crate::decode::{DECODER, dimensions};
use crate::error::DecodeError;
use crate::labels::{self, Binding};

/// KiB of images that are read and not yet made, at most (one image may always come).
const AHEAD_KIB: u32 = 256 << 10;
/// Shards of parquet's rows that are read at a time.
const TABLES: usize = 2;

/// An image's bytes, and its share of the budget.
struct Read {
    shard: usize,
    item: usize,
    /// `None`: a row without one.
    image: Option<Bytes>,
    mask: Option<Bytes>,
    _budget: OwnedSemaphorePermit,
}

/// What became of an image.
struct Made {
    shard: usize,
    item: usize,
    /// Or why it is left out.
    members: Result<(Members, blake3::Hash), String>,
}

/// Makes these shards of the plan, in order. Blocks its thread.
pub(super) fn make(
    options: &PackOptions,
    plan: &Arc<Plan>,
    shards: Vec<usize>,
    store: &Store,
    runtime: &Handle,
    progress: &dyn Progress,
) -> Result<(), PackError> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (images, read) = unbounded();
    let (done, made) = bounded(threads);
    let reading = runtime.spawn(read_all(Arc::clone(plan), shards.clone(), images));
    let ended = std::thread::scope(|scope| {
        for number in 0..threads {
            let (read, done) = (read.clone(), done.clone());
            let thread = std::thread::Builder::new().name(format!("pack-{number}"));
            thread.spawn_scoped(scope, move || work(options, plan, &read, &done)).map_err(PackError::Threads)?;
        }
        // Only the threads hold these now, so that each end is seen by the other.
        drop((read, done));
        let mut bench = Bench { plan, store, runtime, writing: None };
        bench.gather(&shards, made, progress)
    });
    reading.abort();
    ended
}

/// What is read by one task.
enum Load {
    /// An image of its own.
    One(usize, Stretch),
    /// Consecutive rows.
    Rows(Vec<(usize, Row)>),
}

fn loads(plan: &Plan, shard: usize) -> Vec<Load> {
    let mut loads = Vec::new();
    for item in plan.shards[shard].clone() {
        match (&plan.items[item].image, loads.last_mut()) {
            (Origin::Stretch(stretch), _) => loads.push(Load::One(item, stretch.clone())),
            (Origin::Row(row), Some(Load::Rows(rows))) => rows.push((item, row.clone())),
            (Origin::Row(row), _) => loads.push(Load::Rows(vec![(item, row.clone())])),
        }
    }
    loads
}

/// Who reads ahead, and for whom.
struct Loader<'a> {
    plan: &'a Plan,
    budget: Arc<Semaphore>,
    tables: Semaphore,
    images: Sender<Result<Read, PackError>>,
}

/// Reads all images of the shards, those of the first shard first.
async fn read_all(plan: Arc<Plan>, shards: Vec<usize>, images: Sender<Result<Read, PackError>>) {
    let (budget, tables) = (Arc::new(Semaphore::new(AHEAD_KIB as usize)), Semaphore::new(TABLES));
    let all = shards.into_iter().flat_map(|shard| loads(&plan, shard).into_iter().map(move |load| (shard, load)));
    let loader = Loader { plan: &plan, budget, tables, images };
    stream::iter(all).for_each_concurrent(READS, |(shard, load)| loader.load(shard, load)).await;
}

impl Loader<'_> {
    async fn load(&self, shard: usize, load: Load) {
        match load {
            Load::One(item, stretch) => {
                let read = self.one(shard, item, &stretch).await;
                // Nobody listens any more once something failed.
                let _ = self.images.send(read);
            }
            Load::Rows(rows) => {
                // The semaphore is never closed.
                let _turn = self.tables.acquire().await;
                let (budget, images) = (Arc::clone(&self.budget), self.images.clone());
                let read = move || read_rows(&budget, shard, rows, &images);
                if let Err(panicked) = apart(read).await {
                    let _ = self.images.send(Err(PackError::Threads(panicked)));
                }
            }
        }
    }

    async fn one(&self, shard: usize, item: usize, stretch: &Stretch) -> Result<Read, PackError> {
        let budget = permit(&self.budget, stretch.bytes()).await?;
        let image = Some(stretch.read().await?);
        let mask = match &self.plan.items[item].mask {
            Some(Mask::Stored(mask)) => Some(mask.read().await?),
            _ => None,
        };
        Ok(Read { shard, item, image, mask, _budget: budget })
    }
}

async fn permit(budget: &Arc<Semaphore>, bytes: u64) -> Result<OwnedSemaphorePermit, PackError> {
    let kib = (bytes >> 10).clamp(16, u64::from(AHEAD_KIB)) as u32;
    let permit = Arc::clone(budget).acquire_many_owned(kib).await;
    permit.map_err(|e| PackError::Threads(std::io::Error::other(e)))
}

/// Reads rows one after the other; blocks its thread.
fn read_rows(budget: &Arc<Semaphore>, shard: usize, rows: Vec<(usize, Row)>, images: &Sender<Result<Read, PackError>>) {
    let mut cursor = Cursor::default();
    for (item, row) in rows {
        let read = Handle::current()
            .block_on(permit(budget, row.bytes))
            .and_then(|budget| Ok(Read { shard, item, image: cursor.read(&row)?, mask: None, _budget: budget }));
        let failed = read.is_err();
        if images.send(read).is_err() || failed {
            return;
        }
    }
}

/// A thread's work.
fn work(
    options: &PackOptions,
    plan: &Plan,
    images: &Receiver<Result<Read, PackError>>,
    done: &Sender<Result<Made, PackError>>,
) {
    for read in images {
        let made = read.and_then(|read| {
            let (shard, item) = (read.shard, read.item);
            Ok(Made { shard, item, members: members(options, plan, read)? })
        });
        if done.send(made).is_err() {
            return;
        }
    }
}

/// Where shards are put together.
struct Bench<'a> {
    plan: &'a Plan,
    store: &'a Store,
    runtime: &'a Handle,
    writing: Option<JoinHandle<Result<(), PackError>>>,
}

impl Bench<'_> {
    fn gather(
        &mut self,
        shards: &[usize],
        made: Receiver<Result<Made, PackError>>,
        progress: &dyn Progress,
    ) -> Result<(), PackError> {
        let mut open: BTreeMap<usize, BTreeMap<usize, Made>> = BTreeMap::new();
        let mut left = shards.len();
        for made in made {
            let made = made?;
            progress.advanced(1, self.plan.items[made.item].image.bytes());
            let shard = made.shard;
            let filled = open.entry(shard).or_default();
            filled.insert(made.item, made);
            if filled.len() < self.plan.shards[shard].len() {
                continue;
            }
            let filled = open.remove(&shard).unwrap_or_default();
            self.written()?;
            self.write(shard, filled.into_values());
            left -= 1;
        }
        self.written()?;
        if left > 0 {
            return Err(PackError::Threads(std::io::Error::other("a packing thread ended unexpectedly")));
        }
        Ok(())
    }

    /// Waits for the shard that is being written.
    fn written(&mut self) -> Result<(), PackError> {
        match self.writing.take() {
            Some(writing) => {
                let ended = self.runtime.block_on(writing);
                ended.unwrap_or_else(|e| Err(PackError::Threads(std::io::Error::other(e))))
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, shard: usize, made: impl Iterator<Item = Made>) {
        let (tarball, record) = self.shard(made);
        let store = self.store.clone();
        self.writing = Some(self.runtime.spawn(async move {
            if !record.samples.is_empty() {
                store.put(&record::keys(shard)[0], tarball).await?;
            }
            record.write(&store, shard).await
        }));
    }

    fn shard(&self, made: impl Iterator<Item = Made>) -> (Vec<u8>, ShardRecord) {
        let (mut samples, mut images, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        let mut first_with: HashMap<blake3::Hash, String> = HashMap::new();
        for Made { item, members, .. } in made {
            let name = self.plan.items[item].name.clone();
            let reason = match members {
                Ok((members, hash)) => match first_with.get(&hash) {
                    Some(first) => format!("duplicate of {first}"),
                    None => {
                        first_with.insert(hash, name.clone());
                        samples.push(members);
                        images.push(Image { name, blake3: hash.to_hex().to_string() });
                        continue;
                    }
                },
                Err(reason) => reason,
            };
            skipped.push(Skipped { name, reason });
        }
        let tarball = Tarball::build(samples);
        let record = ShardRecord {
            identity: self.plan.identity.clone(),
            bytes: tarball.bytes.len() as u64,
            blake3: blake3::hash(&tarball.bytes).to_hex().to_string(),
            chunks: tarball.chunks,
            samples: tarball.index.samples,
            images,
            skipped,
        };
        (tarball.bytes, record)
    }
}

/// Names the label maps' definition: algorithm, resize, decoder.
pub(super) fn maps() -> String {
    format!("{}/bicubic-3/{DECODER}", r2o_slic::DEFINITION)
}

/// A sample's members, or why the image is left out.
fn members(
    options: &PackOptions,
    plan: &Plan,
    read: Read,
) -> Result<Result<(Members, blake3::Hash), String>, PackError> {
    let Read { item, image, mask, .. } = read;
    let source = &plan.items[item];
    let Some(image) = image else { return Ok(Err("the row has no image".to_owned())) };
    // The header first: what is left out by it is never decoded.
    match dimensions(&image) {
        Ok((width, height)) if width.min(height) < options.side_min => {
            let side_min = options.side_min;
            return Ok(Err(format!("{width} x {height} pixels, the shorter side must have {side_min}")));
        }
        Ok(_) => {}
        Err(e) => return Ok(Err(e.to_string())),
    }
    let (width, height, prior) = match label_map(options, &image) {
        Ok(made) => made,
        Err(MapError::Decode(e)) => return Ok(Err(e.to_string())),
        Err(MapError::Map(source_of)) => {
            return Err(PackError::Prior { path: source.name.clone(), source: source_of });
        }
    };
    let mask = match &source.mask {
        Some(Mask::Drawn(drawing)) => match drawing.draw(width, height) {
            Ok(drawn) => Some(drawn.into()),
            Err(reason) => return Ok(Err(reason)),
        },
        _ => mask,
    };
    let (key, label) = (Plan::key(item), plan.label(source));
    let json = serde_json::json!({
        "key": key,
        "class": source.class,
        "label": label,
        "width": width,
        "height": height,
        "source": source.name,
    });
    let nowhere = Member { offset: 0, bytes: 0 };
    let entry = SampleEntry { key, label, width, height, image: nowhere, prior: None, mask: None };
    let extension = extension(&image);
    let hash = blake3::hash(&image);
    Ok(Ok((Members { entry, extension, json: json.to_string().into_bytes(), image, prior, mask }, hash)))
}

/// By content, since names lie.
fn extension(image: &[u8]) -> &'static str {
    match image::guess_format(image) {
        Ok(image::ImageFormat::Png) => "png",
        Ok(image::ImageFormat::WebP) => "webp",
        _ => "jpg",
    }
}

enum MapError {
    Decode(DecodeError),
    Map(DecodeError),
}

/// Width and height of an image, and its label map as it is stored.
fn label_map(options: &PackOptions, image: &[u8]) -> Result<(u32, u32, Vec<u8>), MapError> {
    thread_local! {
        static STUDIO: RefCell<Studio> = RefCell::new(Studio::new());
    }
    let side = options.slic_size;
    let slic = r2o_slic::Options { segments: options.segments, ..r2o_slic::Options::default() };
    let (width, height, found) = STUDIO.with_borrow_mut(|studio| {
        let canvas = studio.decoder.decode(image).map_err(MapError::Decode)?;
        let (width, height) = (canvas.width, canvas.height);
        let mut easel = studio.easel();
        let found = r2o_slic::segment(easel.raw(side, None, true), side as usize, side as usize, &slic);
        studio.decoder.rest();
        Ok((width, height, found))
    })?;
    let regions: Result<Vec<u8>, _> = found.labels.iter().map(|&label| u8::try_from(label)).collect();
    let regions = regions.map_err(|_| {
        MapError::Map(DecodeError::Broken(format!("SLIC found {} regions, at most 256 fit", found.count)))
    })?;
    let binding = Binding { definition: maps(), segments: options.segments, size: side, format: shard::FORMAT };
    let stored = labels::stored(&binding, &regions, image).map_err(MapError::Map)?;
    Ok((width, height, stored))
}
