//! The steady state allocates nothing for an image. With zune-jpeg, which takes buffers of its own for each, it does.
#![cfg(feature = "turbojpeg")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use r2o_data::pack::{PackOptions, pack};
use r2o_data::{Dataset, Loader, LoaderOptions};
use r2o_types::Prior;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const STEPS: u64 = 12;

/// Blocks that are allocated in some steps of so many images each, once all buffers are there.
fn blocks(dataset: &Arc<Dataset>, images: u32, prior: Prior) -> u64 {
    let mut loader = Loader::start(LoaderOptions {
        image_size: 64,
        prior,
        samples_per_lane: images,
        window_chunks: 4,
        ..LoaderOptions::new(Arc::clone(dataset))
    })
    .unwrap();
    // The plan reaches farther ahead with each of the first steps.
    for _ in 0..30 {
        loader.next().unwrap();
    }
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..STEPS {
        loader.next().unwrap();
    }
    dhat::HeapStats::get().total_blocks - before
}

#[test]
fn more_images_take_no_more_allocations() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let folder = tempfile::tempdir().unwrap();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/photos");
    let out = folder.path().join("set").display().to_string();
    let options = PackOptions { slic_size: 64, ..PackOptions::new(photos.display().to_string(), out.clone()) };
    pack(&options, &()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dataset = Arc::new(runtime.block_on(Dataset::open(&out)).unwrap());
    let few = blocks(&dataset, 8, Prior::Slic { segments: 100 });
    let many = blocks(&dataset, 32, Prior::Slic { segments: 100 });
    println!("{STEPS} steps: {few} allocations with 8 images, {many} with 32");
    // Lists of samples and chunks of a step may be longer; none may grow with each image.
    assert!(many < few + STEPS * 24 / 4, "{few} allocations with 8 images a step, {many} with 32");
}
