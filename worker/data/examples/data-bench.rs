//! Measures SLIC and the loader: `data-bench slic`, and `data-bench loader [PHOTOS [THREADS]]`.
//!
//! Prints JSON lines; tests/parity/bench_slic.py and bench_loader.py do the same work in Python. One thread unless told
//! otherwise. Rates are by processor time, and on several threads by the clock, so that others on the machine disturb least.
//! PHOTOS is a folder of JPEGs; without it the committed photographs are taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use r2o_data::pack::{PackOptions, pack};
use r2o_data::{Dataset, Loader, LoaderOptions, Stage};
use r2o_types::Prior;

const SIDE: usize = 224;
const ROUNDS: usize = 3;
const STEPS: usize = 16;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("slic") => print("slic", slic()?, "ms/image"),
        Some("loader") => {
            let photos = arguments.get(1).map_or_else(|| fixtures().join("photos"), PathBuf::from);
            let threads = arguments.get(2).map_or(Ok(1), |text| text.parse()).context("THREADS is no number")?;
            loader(&photos, threads)?;
        }
        other => bail!("usage: data-bench slic | loader [PHOTOS [THREADS]], not {other:?}"),
    }
    Ok(())
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{}", serde_json::json!({"name": name, "value": value, "unit": unit}));
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
        let started = processor_seconds()?;
        for rgb in &pictures {
            std::hint::black_box(r2o_slic::segment(rgb, SIDE, SIDE, &options));
        }
        Ok::<_, anyhow::Error>((processor_seconds()? - started) * 1e3 / pictures.len() as f64)
    };
    (0..ROUNDS).map(|_| round()).try_fold(f64::INFINITY, |least, found| Ok(least.min(found?)))
}

/// Processor time of all threads of this process that live.
fn processor_seconds() -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>().context("no time in schedstat")?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Images per second: decode, raw view, two augmented views, and a stored label map or SLIC. Then the sum of its stages.
fn loader(photos: &Path, threads: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().display().to_string();
    pack(&PackOptions::new(photos.display().to_string(), out.clone()), &())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dataset = Arc::new(runtime.block_on(Dataset::open(&out))?);
    for (name, segments) in [("loader", 100), ("loader-online-slic", 101)] {
        let mut loader = Loader::start(LoaderOptions {
            dataset: Arc::clone(&dataset),
            seed: 0,
            image_size: SIDE as u32,
            prior: Prior::Slic { segments },
            lanes: vec![0],
            total_lanes: 1,
            samples_per_lane: 32,
            window_chunks: 16,
            first_step: 0,
            threads,
            prefetch_steps: 1,
            audit: false,
        })?;
        // The first batches pay for threads, buffers and tables.
        for _ in 0..4 {
            loader.next()?;
        }
        let stats = loader.stats();
        let spent = |stage| stats.nanoseconds(stage) as f64 / 1e6;
        let before = Stage::ALL.map(spent);
        let made = stats.images();
        let (started, busy) = (Instant::now(), processor_seconds()?);
        let mut images = 0;
        for _ in 0..STEPS {
            images += loader.next()?.images;
        }
        let seconds = if threads == 1 { processor_seconds()? - busy } else { started.elapsed().as_secs_f64() };
        let rate = images as f64 / seconds;
        print(name, rate, "images/s");
        if name == "loader" {
            print("loader-no-slic", rate, "images/s");
            print("loader-best-python", rate, "images/s");
        }
        let made = (stats.images() - made) as f64;
        for (stage, before) in Stage::ALL.into_iter().zip(before).filter(|(stage, _)| *stage != Stage::Wait) {
            print(&format!("{name}-{}", stage.word()), (spent(stage) - before) / made, "ms/image");
        }
    }
    Ok(())
}
