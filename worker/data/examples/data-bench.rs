//! Measures SLIC and the loader: `data-bench slic`, `data-bench loader [PHOTOS [THREADS]]` and `data-bench stream`; `data-bench
//! decode PHOTOS` our JPEG decoder beside libjpeg-turbo.
//! `data-bench set FOLDER` writes a set of 100,000 samples in 100 classes, one after another, in little room: for `r2octl data
//! bench FOLDER --order`.
//!
//! Prints JSON lines; tests/parity/bench_slic.py and bench_loader.py do the same work in Python. One thread unless told
//! otherwise. Rates are by processor time, and on several threads by the clock, so that others on the machine disturb least.
//! PHOTOS is a folder of JPEGs; without it the committed photographs are taken.

#[path = "../tests/kit/streaming.rs"]
mod streaming;
#[path = "../tests/kit/synthetic.rs"]
mod synthetic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use r2o_data::bench::{BenchOptions, BenchReport, bench, processor_seconds};
use r2o_data::pack::{PackOptions, pack};
use r2o_data::{Dataset, StreamOptions};
use r2o_test_stores::{Behind, Faults, Faulty};
use r2o_types::Prior;

const NO_TIME: &str = "no processor time: is /proc there?";
const SIDE: usize = 224;
const ROUNDS: usize = 3;
/// How long a loader is measured.
const LOADING: Duration = Duration::from_secs(3);
const STREAMING: Duration = Duration::from_secs(8);
/// Memory for chunks: two windows of the usual size.
const STREAM_MEMORY: u64 = 256 << 20;
/// Chunks of the streamed set, which is far larger.
const CHUNKS: u32 = 96;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("slic") => print("slic", slic()?, "ms/image"),
        Some("loader") => {
            let photos = arguments.get(1).map_or_else(|| fixtures().join("photos"), PathBuf::from);
            let threads = arguments.get(2).map_or(Ok(1), |text| text.parse()).context("THREADS is no number")?;
            loader(&photos, threads)?;
        }
        #[cfg(feature = "turbojpeg")]
        Some("decode") => decode(Path::new(arguments.get(1).context("usage: data-bench decode PHOTOS")?))?,
        Some("stream") => stream()?,
        Some("rate") => {
            let url = arguments.get(1).context("usage: data-bench rate URL")?;
            let prior = Some(Prior::None {});
            let report = measured(url, |options| BenchOptions { prior, time: STREAMING, ..options })?;
            println!("{}", serde_json::to_string(&report)?);
        }
        Some("set") => {
            let folder = arguments.get(1).context("usage: data-bench set FOLDER")?;
            let images = synthetic::small_images(5);
            let layout =
                synthetic::Layout { samples: 100_000, per_chunk: 64, per_shard: 40, classes: 100, padding: 0, images };
            synthetic::write(Path::new(folder), &layout);
        }
        other => {
            bail!("usage: data-bench slic | loader [PHOTOS [THREADS]] | stream | rate URL | set FOLDER, not {other:?}")
        }
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
        let started = processor_seconds().context(NO_TIME)?;
        for rgb in &pictures {
            std::hint::black_box(r2o_slic::segment(rgb, SIDE, SIDE, &options));
        }
        Ok::<_, anyhow::Error>((processor_seconds().context(NO_TIME)? - started) * 1e3 / pictures.len() as f64)
    };
    (0..ROUNDS).map(|_| round()).try_fold(f64::INFINITY, |least, found| Ok(least.min(found?)))
}

/// Images per second: decode, raw view, two augmented views, and a stored label map or SLIC. Then the sum of its stages.
fn loader(photos: &Path, threads: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().display().to_string();
    pack(&PackOptions::new(photos.display().to_string(), out.clone()), &())?;
    for (name, prior) in [("loader", None), ("loader-online-slic", Some(Prior::Slic { segments: 101 }))] {
        let report = measured(&out, |options| BenchOptions { prior, threads, time: LOADING, ..options })?;
        let by_processor = report.images_per_processor_second.context(NO_TIME)?;
        let rate = if threads == 1 { by_processor } else { report.images_per_second };
        print(name, rate, "images/s");
        if name == "loader" {
            print("loader-no-slic", rate, "images/s");
            print("loader-best-python", rate, "images/s");
        }
        for stage in report.stages {
            print(&format!("{name}-{}", stage.stage), stage.milliseconds_per_image, "ms/image");
        }
    }
    Ok(())
}

/// Milliseconds for one photograph: our own decoder and libjpeg-turbo, in turns.
#[cfg(feature = "turbojpeg")]
fn decode(photos: &Path) -> Result<()> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry?.path());
    let files = std::fs::read_dir(photos)?.map(read).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..=ROUNDS {
        let both = r2o_data::jpeg_decoders_seconds(&files).context(NO_TIME)?;
        let [ours, theirs] = both.map(|all| 1e3 * all / files.len() as f64);
        print("decode", ours, "ms/image");
        print("decode-libjpeg-turbo", theirs, "ms/image");
    }
    Ok(())
}

fn measured(url: &str, change: impl FnOnce(BenchOptions) -> BenchOptions) -> Result<BenchReport> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = StreamOptions { memory_bytes: STREAM_MEMORY, ..StreamOptions::default() };
    let start = Instant::now();
    let dataset = runtime.block_on(Dataset::open_with(url, stream))?;
    Ok(bench(dataset, &change(BenchOptions::new(start.elapsed())))?)
}

/// The rate from S3 with latency and failures beside that from a folder, in turns: a set that memory does not hold, of
/// ImageNet's bytes for each image. Each measurement has a process of its own, because a store's address is in its environment.
fn stream() -> Result<()> {
    let url = std::env::var("R2O_TEST_S3_URL").context("needs R2O_TEST_S3_URL: `cargo xtask bench stream` sets it")?;
    let endpoint = std::env::var("AWS_ENDPOINT").context("needs AWS_ENDPOINT")?;
    let folder = tempfile::tempdir()?;
    let images = synthetic::photographs(5);
    let padding = 6_700_000 - images.iter().map(Vec::len).sum::<usize>();
    let layout = synthetic::Layout { samples: 64 * CHUNKS, per_chunk: 64, per_shard: 20, classes: 1, padding, images };
    synthetic::write(folder.path(), &layout);
    streaming::upload(folder.path(), &url);
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/').parse()?;
    let faults = Faults { delay: Duration::from_millis(50), failing: 10, ..Faults::default() };
    let server = Faulty::start(Behind::Server(address), faults)?;
    let local = folder.path().display().to_string();
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let mut both = [("folder", &local, endpoint.clone()), ("s3", &url, server.url())];
        both.rotate_left(round % 2);
        let mut rates = [0.0; 2];
        for (name, url, endpoint) in both {
            let output =
                Command::new(std::env::current_exe()?).args(["rate", url]).env("AWS_ENDPOINT", endpoint).output()?;
            let report: serde_json::Value = serde_json::from_slice(&output.stdout)
                .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
            let number = |field: &str| report[field].as_f64().unwrap_or(f64::NAN);
            rates[usize::from(name == "s3")] = number("imagesPerSecond");
            print(&format!("stream, {name}"), number("imagesPerSecond"), "images/s");
            print(&format!("stream, {name}, first batch"), number("firstBatchSeconds") * 1e3, "ms");
            print(&format!("stream, {name}, buffered"), number("bufferedBytes") / f64::from(1 << 20), "MiB");
            eprintln!("{name}: requests, retries, hedges {}", report["requests"]);
        }
        ratios.push(100.0 * rates[1] / rates[0]);
    }
    ratios.iter().for_each(|ratio| print("stream, s3 of folder", *ratio, "%"));
    let [requests, failed, ..] = server.seen();
    eprintln!("{failed} of {requests} requests were made to fail");
    Ok(())
}
