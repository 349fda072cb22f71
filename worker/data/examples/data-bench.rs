//! Measures SLIC and the loader on the committed photographs: `data-bench slic` and `data-bench loader`.
//!
//! Prints JSON lines; tests/parity/bench_slic.py and bench_loader.py do the same work in Python. One thread each.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use r2o_data::pack::{PackOptions, pack};
use r2o_data::{Dataset, Loader, LoaderOptions};
use r2o_types::Prior;

const SIDE: usize = 224;
const ROUNDS: usize = 3;
const STEPS: usize = 16;

fn main() -> Result<()> {
    let (name, value, unit) = match std::env::args().nth(1).as_deref() {
        Some("slic") => ("slic", slic()?, "ms/image"),
        Some("loader") => ("loader", loader()?, "images/s"),
        other => bail!("usage: data-bench slic|loader, not {other:?}"),
    };
    println!("{}", serde_json::json!({"name": name, "value": value, "unit": unit}));
    Ok(())
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// Least milliseconds per picture of the fixtures, all at 224 pixels.
fn slic() -> Result<f64> {
    let mut pictures = Vec::new();
    for entry in std::fs::read_dir(fixtures().join("slic"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.matches('.').count() == 1 {
            let picture = r2o_data::decode(&std::fs::read(&path)?).with_context(|| path.display().to_string())?;
            pictures.push(picture.rgb);
        }
    }
    let options = r2o_slic::Options::default();
    let round = || {
        let started = Instant::now();
        for rgb in &pictures {
            std::hint::black_box(r2o_slic::segment(rgb, SIDE, SIDE, &options));
        }
        started.elapsed().as_secs_f64() * 1e3 / pictures.len() as f64
    };
    Ok((0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min))
}

/// Images per second of one decoding thread: decode, raw view, two augmented views, stored label map.
fn loader() -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().display().to_string();
    pack(&PackOptions::new(fixtures().join("photos").display().to_string(), out.clone()), &())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dataset = Arc::new(runtime.block_on(Dataset::open(&out))?);
    let mut loader = Loader::start(LoaderOptions {
        dataset,
        seed: 0,
        image_size: SIDE as u32,
        prior: Prior::Slic { segments: 100 },
        lanes: vec![0],
        total_lanes: 1,
        samples_per_lane: 32,
        window_chunks: 16,
        first_step: 0,
        threads: 1,
        prefetch_steps: 1,
        audit: false,
    })?;
    // The first batches pay for threads and tables.
    for _ in 0..2 {
        loader.next()?;
    }
    let started = Instant::now();
    let mut images = 0;
    for _ in 0..STEPS {
        images += loader.next()?.images;
    }
    Ok(images as f64 / started.elapsed().as_secs_f64())
}
