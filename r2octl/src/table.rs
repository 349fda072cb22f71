//! What people get: tables and the long description of a job.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use r2o_data::inspect::ShardReport;
use r2o_types::Mixing;
use serde_json::Value;

use crate::format::{age, bytes, duration, number, tau};
use crate::output::yaml;
use crate::view::{CheckpointView, EventView, JobView, ProgressView, State, VerifyView, WorkerView};

/// An empty table: no lines, two blanks between the columns; as wide as its content when not on a terminal.
pub(crate) fn table(header: &[&str], right: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header.to_vec());
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if right.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(crate) fn finish(table: &Table) -> String {
    table.trim_fmt()
}

/// A value that is only meaningful once the job has made a step.
fn once<T: ToString>(p: &ProgressView, value: T) -> String {
    if p.k == 0 { "-".into() } else { value.to_string() }
}

fn of(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{part}/{whole}") }
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".into(), |v| v.to_string())
}

fn eta(p: &ProgressView) -> String {
    if p.state == State::Running && p.eta_seconds > 0.0 { duration(p.eta_seconds) } else { "-".into() }
}

/// The jobs, one a line.
pub(crate) fn jobs(jobs: &[JobView], now_unix_ms: i64, wide: bool) -> String {
    if jobs.is_empty() {
        return "There are no jobs; `r2octl submit job.yaml` adds one.".into();
    }
    let mut header = vec!["NAME", "STATE", "EPOCH", "STEP", "K", "LOSS", "IMAGES/S", "ETA", "AGE"];
    if wide {
        header.extend(["GENERATION", "WORKERS", "CHECKPOINT", "REASON"]);
    }
    let mut table = table(&header, &["EPOCH", "STEP", "K", "LOSS", "IMAGES/S", "ETA", "AGE"]);
    for job in jobs {
        let p = &job.progress;
        let mut row = vec![
            job.name.clone(),
            job.state.to_string(),
            of(p.epoch, p.epochs),
            of(p.step, job.steps),
            once(p, p.k),
            once(p, number(p.loss)),
            once(p, number(p.images_per_second)),
            eta(p),
            age(job.submitted_unix_ms, now_unix_ms),
        ];
        if wide {
            let workers = if job.workers.is_empty() { "-".into() } else { job.workers.join(",") };
            row.extend([job.generation.to_string(), workers, or_dash(job.checkpoint_step), job.reason.clone()]);
        }
        table.add_row(row);
    }
    finish(&table)
}

/// What follows "the job": the sentence of a reason that says what it does, or how it ended and why.
pub(crate) fn predicate(state: State, sentence: &str) -> String {
    match state {
        State::Failed => format!("failed: {sentence}"),
        State::Succeeded => format!("succeeded: {sentence}"),
        // "cancelled: why", in the reason's own words.
        State::Cancelled => format!("was {sentence}"),
        _ => sentence.to_owned(),
    }
}

/// Everything about a job.
pub(crate) fn describe(job: &JobView, events: &[EventView], now_unix_ms: i64) -> String {
    let p = &job.progress;
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{:<12} {value}", format!("{name}:"));
    line("Name", job.name.clone());
    if let Some(Value::Object(labels)) =
        job.spec.pointer("/metadata/labels").filter(|l| **l != Value::Object(<_>::default()))
    {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        line("Labels", labels.join(", "));
    }
    let why = if job.reason.is_empty() { String::new() } else { format!(" ({})", job.reason) };
    line("State", format!("{}{why}", job.state));
    if let Some(hint) = &job.why.hint {
        line("Try", hint.clone());
    }
    let when = |at: &Option<String>| or_dash(at.clone());
    line("Submitted", format!("{} ({} ago)", when(&job.submitted_at), age(job.submitted_unix_ms, now_unix_ms)));
    line("Started", when(&job.started_at));
    line("Ended", when(&job.ended_at));
    let percent = if job.steps == 0 { 0.0 } else { p.step as f64 / job.steps as f64 * 100.0 };
    line("Progress", format!("step {}, epoch {}, {percent:.1}%", of(p.step, job.steps), of(p.epoch, p.epochs)));
    if p.step > 0 {
        line("Now", numbers(p));
        line(
            "Gradient",
            format!("norm {}, {} valid regions an image", number(p.gradient_norm), number(p.valid_regions)),
        );
    }
    let workers = if job.workers.is_empty() { "none".into() } else { job.workers.join(", ") };
    line("Generation", format!("{} (workers: {workers})", job.generation));
    line("Checkpoint", job.checkpoint_step.map_or("none yet".into(), |step| format!("after step {step}")));
    if let Some(url) = job.spec.pointer("/spec/checkpoint/url").and_then(Value::as_str) {
        line("Stored at", url.into());
    }
    line("Report", job.report.clone().unwrap_or("not written yet".into()));
    text.push_str("\nEvents:\n");
    for event in events {
        _ = writeln!(text, "  {}", self::event(event));
    }
    if events.is_empty() {
        text.push_str("  none\n");
    }
    text.push_str("\nSpec:\n");
    for row in yaml(&job.spec).unwrap_or_default().lines() {
        _ = writeln!(text, "  {row}");
    }
    text
}

/// The changing numbers of a running job in one line.
pub(crate) fn numbers(p: &ProgressView) -> String {
    if p.k == 0 {
        // No step has been reported yet.
        return String::new();
    }
    format!(
        "K {}  tau {}  lr {}  loss {}  {} images/s  ETA {}",
        p.k,
        tau(p.tau),
        number(p.learning_rate),
        number(p.loss),
        number(p.images_per_second),
        eta(p)
    )
}

/// One event in a line.
pub(crate) fn event(e: &EventView) -> String {
    let mark = if e.warning { "!" } else { " " };
    format!("{} {mark} {:<22} {}", e.time, e.reason, e.message)
}

/// The workers, one a line.
pub(crate) fn workers(workers: &[WorkerView], wide: bool) -> String {
    if workers.is_empty() {
        return "There are no workers; start `r2o-worker --coordinator URL` on each machine.".into();
    }
    let mut header = vec!["NAME", "STATE", "JOB", "LANES", "DEVICE", "THREADS"];
    if wide {
        header.extend(["ADDRESS", "VERSION"]);
    }
    let mut table = table(&header, &["THREADS"]);
    for w in workers {
        let mut row = vec![
            w.name.clone(),
            w.state.clone(),
            or_dash(w.job.clone()),
            ranges(&w.lanes),
            w.device.clone(),
            w.threads.to_string(),
        ];
        if wide {
            row.extend([w.address.clone(), w.version.clone()]);
        }
        table.add_row(row);
    }
    finish(&table)
}

/// `0-3,8` for 0, 1, 2, 3, 8; a dash for none.
pub(crate) fn ranges(lanes: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &lane in lanes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == lane => *last = lane,
            _ => parts.push((lane, lane)),
        }
    }
    let parts: Vec<_> =
        parts.into_iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    if parts.is_empty() { "-".into() } else { parts.join(",") }
}

/// The checkpoints of a run, oldest first.
pub(crate) fn checkpoints(url: &str, found: &[CheckpointView], now_unix_ms: i64) -> String {
    if found.is_empty() {
        return format!("There are no checkpoints under {url}.");
    }
    let header = ["STEP", "EPOCH", "GENERATION", "TENSORS", "SIZE", "AGE", "MANIFEST"];
    let mut table = table(&header, &header[..6]);
    for c in found {
        table.add_row([
            c.step.to_string(),
            or_dash(c.epoch),
            or_dash(c.generation),
            or_dash(c.tensors),
            or_dash(c.bytes.map(bytes)),
            age(c.created_unix_ms, now_unix_ms),
            c.damage.clone().unwrap_or("ok".into()),
        ]);
    }
    finish(&table)
}

/// What verifying found: a line per checkpoint, then one per damaged tensor.
pub(crate) fn verified(found: &[VerifyView]) -> String {
    let mut table = table(&["STEP", "TENSORS", "READ", "RESULT"], &["STEP", "TENSORS", "READ"]);
    for v in found {
        let result = match (&v.damage, v.bad.len()) {
            (Some(_), _) => "manifest damaged".into(),
            (None, 0) => "ok".into(),
            (None, n) => format!("{n} damaged"),
        };
        table.add_row([v.step.to_string(), v.tensors.to_string(), bytes(v.bytes), result]);
    }
    let mut text = finish(&table) + "\n";
    for v in found {
        if let Some(damage) = &v.damage {
            _ = writeln!(text, "step {}: {damage}", v.step);
        }
        for b in &v.bad {
            _ = writeln!(text, "step {}: {}: {} ({})", v.step, b.tensor, b.damage, b.object);
        }
    }
    text
}

/// The shards of a data set.
pub(crate) fn shards(shards: &[ShardReport]) -> String {
    let mut table = table(&["SHARD", "SAMPLES", "CHUNKS", "SIZE", "STATE"], &["SAMPLES", "CHUNKS", "SIZE"]);
    for s in shards {
        let state = if s.whole { "ok" } else { "damaged" };
        table.add_row([s.file.clone(), s.samples.to_string(), s.chunks.to_string(), bytes(s.bytes), state.into()]);
    }
    finish(&table)
}

/// The classes of a data set, each with its samples.
pub(crate) fn classes(classes: &[(String, u64)]) -> String {
    let mut table = table(&["CLASS", "SAMPLES"], &["SAMPLES"]);
    for (name, samples) in classes {
        table.add_row([name.clone(), samples.to_string()]);
    }
    finish(&table)
}

/// Names and values in two columns.
pub(crate) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len() + 1).max().unwrap_or_default();
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{:<width$} {value}", format!("{name}:"))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;

/// What windows of several sizes do to a set; the last one is a full permutation.
pub(crate) fn windows(windows: &[Mixing]) -> String {
    let header =
        ["WINDOW", "MOVED", "10/50/90%", "NEIGHBOURS", "MEET AGAIN", "CLASSES/LANE", "CLASSES/STEP", "COPIES READ"];
    let mut table = table(&header, &header);
    let classes = |mean: Option<f64>| mean.map_or("-".to_owned(), |mean| format!("{mean:.1}"));
    for (number, w) in windows.iter().enumerate() {
        let full = if number + 1 == windows.len() { " (all)" } else { "" };
        let [low, middle, high] = w.displacement.map(|share| format!("{:.0}", 100.0 * share));
        let copies: Vec<_> = w.copies.iter().map(|(workers, copies)| format!("{copies:.2} by {workers}")).collect();
        table.add_row([
            format!("{}{full}", w.window_chunks),
            format!("{:.1}%", 100.0 * w.displacement_mean),
            format!("{low}/{middle}/{high}"),
            format!("{:.3}%", 100.0 * w.neighbours_in_lane),
            format!("{:.3}%", 100.0 * w.meet_again),
            classes(w.classes_in_lane),
            classes(w.classes_in_batch),
            copies.join(", "),
        ]);
    }
    finish(&table)
}
