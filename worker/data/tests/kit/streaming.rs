//! What the tests of streaming have in common: a small set, its batches, and processes that load it.
// Each test program uses its own part.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use r2o_data::{Dataset, Loader, LoaderOptions, StreamOptions};

use crate::synthetic;

/// Set in a process that a test starts of its own program: the URL that it is to load.
const CHILD: &str = "R2O_TEST_CHILD";
const LANES: u32 = 2;
const PER_LANE: u32 = 16;
/// Chunks that are shuffled together.
pub(crate) const WINDOW: u32 = 8;

/// The numbers of a set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    samples: u32,
    per_chunk: u32,
    padding: usize,
}

/// 64 chunks of some 260 KiB.
pub(crate) const SMALL: Shape = Shape { samples: 2048, per_chunk: 32, padding: 250_000 };
/// 32 chunks of some 4 MiB, which take a while to write.
pub(crate) const LONG: Shape = Shape { samples: 1024, per_chunk: 32, padding: 4_000_000 };

impl Shape {
    /// Steps of an epoch.
    pub(crate) fn steps(self) -> usize {
        (self.samples / (LANES * PER_LANE)) as usize
    }
}

/// A set in a folder, and the digests of its first epoch as a folder gives it.
pub(crate) struct Set {
    folder: tempfile::TempDir,
    shape: Shape,
    digests: Vec<u64>,
    chunk_bytes: u64,
}

impl Set {
    pub(crate) fn small() -> Self {
        Self::of(SMALL)
    }

    pub(crate) fn of(shape: Shape) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Shape { samples, per_chunk, padding } = shape;
        let images = synthetic::small_images(5);
        let layout = synthetic::Layout { samples, per_chunk, per_shard: 10, classes: 4, padding, images };
        synthetic::write(folder.path(), &layout);
        let dataset = opened(&folder.path().display().to_string(), StreamOptions::default());
        let digests = digests(&mut started(&dataset, 0), shape.steps());
        let bytes = std::fs::metadata(folder.path().join("shard-000000.tar")).unwrap().len();
        Self { folder, shape, digests, chunk_bytes: bytes.div_ceil(10) }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn steps(&self) -> usize {
        self.shape.steps()
    }

    pub(crate) fn chunks(&self) -> u64 {
        u64::from(self.shape.samples / self.shape.per_chunk)
    }

    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Of all lanes of the first epoch, step by step.
    pub(crate) fn digests(&self) -> &[u64] {
        &self.digests
    }
}

pub(crate) fn opened(url: &str, options: StreamOptions) -> Arc<Dataset> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Arc::new(runtime.block_on(Dataset::open_with(url, options)).unwrap())
}

/// A loader of all lanes.
pub(crate) fn started(dataset: &Arc<Dataset>, first_step: u64) -> Loader {
    of_lanes(dataset, (0..LANES).collect(), first_step)
}

/// A loader of some of the lanes.
pub(crate) fn of_lanes(dataset: &Arc<Dataset>, lanes: Vec<u32>, first_step: u64) -> Loader {
    Loader::start(LoaderOptions {
        seed: 5,
        image_size: 32,
        lanes,
        total_lanes: LANES,
        samples_per_lane: PER_LANE,
        window_chunks: WINDOW,
        first_step,
        threads: 2,
        audit: true,
        ..LoaderOptions::new(Arc::clone(dataset))
    })
    .unwrap()
}

/// One for all lanes of a step.
pub(crate) fn digests(loader: &mut Loader, steps: usize) -> Vec<u64> {
    let digest = |lanes: &[u64]| lanes.iter().fold(0_u64, |all, lane| all.rotate_left(7) ^ lane);
    (0..steps).map(|_| digest(&loader.next().unwrap().pixel_digests)).collect()
}

/// Puts a folder's files under a URL.
pub(crate) fn upload(folder: &Path, url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = r2o_storage::open(url).unwrap();
    for file in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
        let bytes = std::fs::read(file.path()).unwrap();
        runtime.block_on(store.put(file.file_name().to_str().unwrap(), bytes)).unwrap();
    }
}

/// The URL that this process is to load, when a test has started it.
pub(crate) fn in_child() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// This program again, with only the test of that name, which is to load `url`.
pub(crate) fn child(test: &str, url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, url);
    command
}

/// Looks again and again until `look` is true.
pub(crate) fn wait_until(what: &str, look: impl Fn() -> bool) {
    let (start, (_never, tick)) = (Instant::now(), mpsc::channel::<()>());
    while !look() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        let _ = tick.recv_timeout(Duration::from_millis(20));
    }
}
