//! `data pack`, `data merge`, `data inspect` and `data bench`.

mod pack;

use std::time::{Duration, Instant};

use r2o_data::bench::{BenchOptions, BenchReport, OrderReport, bench, order};
use r2o_data::inspect::{InspectReport, inspect};
use r2o_data::{CacheOptions, DataError, Dataset, StreamOptions};
use r2o_storage::shard::SetError;
use r2o_types::{Prior, Shape};

use crate::cli::{Data, DataBench};
use crate::error::{CliError, Exit, exit_of_storage};
use crate::format::{bytes, count};
use crate::output::Output;
use crate::table;

/// Damages that are named; more are only counted. `-o json` has all.
const BAD_SHOWN: usize = 50;

pub(super) async fn run(command: Data, output: &mut Output) -> Result<(), CliError> {
    match command {
        Data::Pack(args) => pack::run(args, output).await,
        Data::Merge { out } => pack::run_merge(out, output).await,
        Data::Inspect { url } => run_inspect(&url, output).await,
        Data::Bench(args) => run_bench(args, output).await,
    }
}

/// The first lines, indented, and how many more there are.
fn some(lines: &[String], shown: usize) -> String {
    let mut text: Vec<String> = lines.iter().take(shown).map(|line| format!("  {line}")).collect();
    if lines.len() > shown {
        text.push(format!("  and {} more (-o json names all)", lines.len() - shown));
    }
    text.join("\n")
}

async fn run_inspect(url: &str, output: &mut Output) -> Result<(), CliError> {
    let report = inspect(url).await.map_err(|e| read_error(e, url, "inspect"))?;
    output.result(&report, |wide| inspect_text(&report, wide))?;
    if report.bad.is_empty() {
        return Ok(());
    }
    Err(CliError::refused(format!("the data set {url} is damaged in {}", count(report.bad.len(), "place")))
        .advice("`r2octl data pack` with the same source mends it"))
}

fn read_error(e: DataError, url: &str, verb: &str) -> CliError {
    let exit = match &e {
        DataError::Set(SetError::Missing { .. }) => Exit::NotFound,
        DataError::Storage(e) | DataError::Set(SetError::Storage(e)) => exit_of_storage(e),
        _ => Exit::Refused,
    };
    CliError::new(exit, format!("cannot {verb} the data set {url}")).because(e)
}

fn inspect_text(r: &InspectReport, wide: bool) -> String {
    let mean = r.bytes.checked_div(r.samples).unwrap_or_default();
    let size = |[width, height]: [u32; 2]| format!("{width} x {height}");
    let mut text = table::facts(&[
        ("data set", r.url.clone()),
        ("samples", r.samples.to_string()),
        ("shards", format!("{} ({}, {} a sample)", r.shards.len(), bytes(r.bytes), bytes(mean))),
        ("images", format!("{} to {} pixels", size(r.smallest), size(r.largest))),
        ("superpixels", format!("SLIC, {} segments at {} pixels", r.segments, r.slic_size)),
        ("masks", format!("{} of {} samples", r.masks, r.samples)),
        ("classes", r.classes.len().to_string()),
        ("damage", if r.bad.is_empty() { "none".into() } else { count(r.bad.len(), "place") }),
    ]);
    if wide {
        text += &format!("\n\n{}", table::shards(&r.shards));
        if !r.classes.is_empty() {
            text += &format!("\n\n{}", table::classes(&r.classes));
        }
    }
    if !r.bad.is_empty() {
        text += &format!("\n\n{}", some(&r.bad, BAD_SHOWN));
    }
    text
}

async fn run_bench(args: DataBench, output: &mut Output) -> Result<(), CliError> {
    let url = args.url.clone();
    let failed = |e| read_error(e, &url, "measure");
    let cache = args.cache_dir.zip(args.cache_bytes).map(|(folder, bytes)| CacheOptions { folder, bytes });
    let stream = StreamOptions { memory_bytes: args.loader_memory, cache, ..StreamOptions::default() };
    let start = Instant::now();
    let dataset = Dataset::open_with(&args.url, stream).await.map_err(failed)?;
    if args.order {
        let shape = Shape { seed: 0, lanes: args.lanes, samples_per_lane: args.samples_per_lane };
        let report = order(&dataset, shape, &args.windows).map_err(failed)?;
        return output.result(&report, |_| order_text(&report));
    }
    let options = BenchOptions {
        image_size: args.image_size,
        dtype: args.dtype.into(),
        prior: args.segments.map(|segments| Prior::Slic { segments }),
        threads: args.threads,
        time: Duration::from_secs(args.seconds),
        gpu_rate: args.gpu_rate,
        opened: start.elapsed(),
    };
    let measured = tokio::task::spawn_blocking(move || bench(dataset, &options)).await;
    let report = measured
        .map_err(|e| CliError::failure(format!("measuring {} broke off", args.url)).because(e))?
        .map_err(failed)?;
    output.result(&report, |_| bench_text(&report))
}

fn bench_text(r: &BenchReport) -> String {
    let mut rows: Vec<(&str, String)> = vec![
        ("data set", r.url.clone()),
        ("decoder", r.decoder.to_owned()),
        (
            "cold start",
            format!("{:.2} s to open, {:.2} s more to the first batch", r.open_seconds, r.first_batch_seconds),
        ),
        ("images", format!("{} in {:.1} s on {}", r.images, r.seconds, count(r.threads, "thread"))),
        ("rate", format!("{:.0} images/s, {:.0} a core", r.images_per_second, r.images_per_second_per_core)),
    ];
    for stage in &r.stages {
        let alone = stage.images_per_second_per_core.map_or("-".to_owned(), |rate| format!("{rate:.0} images/s/core"));
        rows.push((stage.stage, format!("{:.3} ms an image, {alone}", stage.milliseconds_per_image)));
    }
    let skipped: u64 = r.skipped.iter().map(|(_, samples)| samples).sum();
    let [requests, retries, hedges] = r.requests;
    let share = |share: f64| format!("{:.1}% of the chunks that steps needed", 100.0 * share);
    rows.extend([
        ("all stages", format!("{:.0} images/s/core", r.stages_per_second_per_core)),
        ("read", format!("{}, {} an image", bytes(r.bytes_read), bytes(r.bytes_per_image as u64))),
        ("requests", format!("{requests} ({retries} retries, {hedges} hedges), {} sent", bytes(r.bytes_requested))),
        ("in memory", share(r.chunks_in_memory)),
        ("on disk", format!("{}, {} of samples", share(r.chunks_on_disk), bytes(r.bytes_from_disk))),
        ("buffered", format!("{} at most", bytes(r.buffered_bytes))),
        ("left out", count(skipped, "sample")),
        ("limit", r.limit.to_owned()),
        ("a GPU", format!("of {} images/s needs {:.1} cores", r.gpu_rate, r.cores_for_gpu)),
    ]);
    table::facts(&rows)
}

fn order_text(r: &OrderReport) -> String {
    let [median, slowest] = r.jump_milliseconds;
    let facts = table::facts(&[
        ("data set", r.url.clone()),
        ("samples", format!("{} in {}", r.samples, count(r.chunks, "chunk"))),
        ("job", format!("{} lanes of {} samples", r.lanes, r.samples_per_lane)),
        ("a jump", format!("to any step of 300 epochs takes {median:.2} ms, at most {slowest:.2} ms")),
    ]);
    format!("{facts}\n\n{}", table::windows(&r.windows))
}
