//! `data pack` and `data merge`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use r2o_data::pack::{PackError, PackOptions, PackSummary, Part, Progress, Skipped, merge, pack};
use r2o_storage::shard::SetError;
use serde::Serialize;

use super::some;
use crate::cli::Pack;
use crate::error::{CliError, Exit, exit_of_storage};
use crate::format::{bytes, count};
use crate::output::Output;

/// Left-out images that are named; more are only counted. `-o json` has all.
const SKIPPED_SHOWN: usize = 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Packed {
    url: String,
    samples: u64,
    shards: usize,
    resumed_shards: usize,
    bytes: u64,
    classes: Vec<String>,
    skipped: Vec<Skipped>,
}

impl From<PackSummary> for Packed {
    fn from(s: PackSummary) -> Self {
        let (url, samples, shards, bytes, classes) = (s.url, s.samples, s.shards, s.bytes, s.classes);
        Self { url, samples, shards, resumed_shards: s.resumed, bytes, classes, skipped: s.skipped }
    }
}

pub(super) async fn run(args: Pack, output: &mut Output) -> Result<(), CliError> {
    let (source, listed, out, part) = (args.source.clone(), args.source.clone(), args.out.clone(), args.part);
    let options = PackOptions {
        masks: args.masks,
        images: args.images,
        segments: args.segments,
        slic_size: args.slic_size,
        shard_bytes: args.shard_mib << 20,
        side_min: args.min_side,
        threads: args.threads,
        part,
        ..PackOptions::new(args.source, args.out)
    };
    // Packing keeps all cores busy for long: it gets a thread of its own.
    let packed = tokio::task::spawn_blocking(move || pack(&options, &Bar::new(&listed))).await;
    let summary = packed
        .map_err(|e| CliError::failure(format!("packing {source} broke off; the same command goes on")).because(e))?
        .map_err(|e| pack_error(e, format!("cannot pack {source} into {out}")))?;
    let packed = Packed::from(summary);
    output.result(&packed, |_| {
        let text = pack_text(&packed);
        if part == Part::WHOLE {
            return text;
        }
        format!("part {part}: {text}\nwhen all {} parts are packed: r2octl data merge {out}", part.of)
    })
}

pub(super) async fn run_merge(out: String, output: &mut Output) -> Result<(), CliError> {
    let of = out.clone();
    let merged = tokio::task::spawn_blocking(move || merge(&of)).await;
    let summary = merged
        .map_err(|e| CliError::failure(format!("merging {out} broke off; the same command goes on")).because(e))?
        .map_err(|e| pack_error(e, format!("cannot merge the parts under {out}")))?;
    let packed = Packed::from(summary);
    output.result(&packed, |_| pack_text(&packed))
}

fn pack_text(p: &Packed) -> String {
    let mut text = format!(
        "packed {} into {} ({}) under {}",
        count(p.samples, "image"),
        count(p.shards, "shard"),
        bytes(p.bytes),
        p.url
    );
    if p.resumed_shards > 0 {
        text += &format!("\n{} finished by an earlier run", count(p.resumed_shards, "shard"));
    }
    if !p.classes.is_empty() {
        text += &format!("\n{} classes", p.classes.len());
    }
    if !p.skipped.is_empty() {
        let named = p.skipped.iter().map(|s| format!("{}: {}", s.name, s.reason)).collect::<Vec<_>>();
        text += &format!("\n{} left out:\n{}", count(named.len(), "image"), some(&named, SKIPPED_SHOWN));
    }
    text
}

/// A line on the standard error, which hides itself where that is no terminal. It advances by bytes, which tell better than
/// images how long the rest takes.
struct Bar {
    bar: ProgressBar,
    start: Cell<Instant>,
    /// To be packed.
    images: Cell<u64>,
    resumed: Cell<u64>,
    packed: Cell<u64>,
}

/// How often the line shows that listing goes on.
const TICK: Duration = Duration::from_millis(200);

impl Bar {
    fn new(source: &str) -> Self {
        let bar = ProgressBar::new_spinner().with_message(format!("listing {source}"));
        bar.enable_steady_tick(TICK);
        let zero = || Cell::new(0);
        Self { bar, start: Cell::new(Instant::now()), images: zero(), resumed: zero(), packed: zero() }
    }

    fn say(&self) {
        let (packed, all) = (self.packed.get(), self.resumed.get() + self.packed.get());
        let rate = packed as f64 / self.start.get().elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{all}/{} images  {rate:.0} images/s", self.images.get()));
    }
}

impl Progress for Bar {
    fn listed(&self, images: u64, bytes: u64) {
        self.images.set(images);
        self.bar.set_length(bytes);
        // A template of fixed text; a failure would only mean the default look.
        let template = "packing {bar:30.cyan/blue} {msg}  {decimal_bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("━╸ "));
        }
        self.say();
    }

    fn resumed(&self, images: u64, bytes: u64) {
        self.resumed.set(images);
        self.start.set(Instant::now());
        self.bar.set_position(bytes);
        // What was there already says nothing of the rate.
        self.bar.reset_eta();
        self.say();
    }

    fn advanced(&self, images: u64, bytes: u64) {
        self.packed.set(self.packed.get() + images);
        self.bar.inc(bytes);
        self.say();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn pack_error(e: PackError, what: String) -> CliError {
    let exit = match &e {
        _ if e.is_not_found() => Exit::NotFound,
        PackError::Set(SetError::Missing { .. }) => Exit::NotFound,
        PackError::Storage(e) | PackError::Set(SetError::Storage(e)) => exit_of_storage(e),
        PackError::Source { .. } | PackError::Threads(_) => Exit::Failure,
        _ => Exit::Refused,
    };
    let error = CliError::new(exit, what).because(e);
    match exit {
        Exit::NoSpace | Exit::Unreachable => {
            error.advice("what is finished stays: the same command goes on from there")
        }
        _ => error,
    }
}
