//! The page of one job.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use r2o_proto::v1::{Job, JobState};
use r2o_storage::checkpoint;
use serde_json::Value;

use super::access::Visitor;
use super::curves::{self, Columns};
use super::fresh::LATER;
use super::layout::{self, Frame};
use super::parts::{self, Checkpoint, Manifest, Part};
use super::words::{duration, has_ended, number, segment, state};
use super::{Missing, Page, Shared, gallery};
use crate::board::Entry;

const EVENTS_SHOWN: usize = 50;
const CHECKPOINTS_SHOWN: usize = 8;

pub(super) async fn show(
    State(page): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Response, Missing> {
    let entry = page.entry(&name, &visitor)?;
    let columns = page.columns(&entry).await;
    let spec: Value = serde_json::from_str(&entry.spec()).unwrap_or_default();
    let all = parts(&page, &entry, visitor).await;
    let [status, steer, said, numbers, masks, workers, checkpoints, events] = &all;
    let main = html! {
        p.hidden id=(said.id) role="status" { (said.html) }
        div.head {
            h1 { (name) }
            @for (key, value) in labels(&spec) { span.label { (key) "=" (value) } }
        }
        div id=(status.id) { (status.html) }
        div id=(steer.id) { (steer.html) }
        (section("Curves", html! {
            (curves::figures(&columns, &name))
            details { summary { "The same as numbers" } div id=(numbers.id) { (numbers.html) } }
        }))
        (section("Masks", html! { div id=(masks.id) { (masks.html) } }))
        (section("Workers", html! { div id=(workers.id) { (workers.html) } }))
        (section("Events", html! { div id=(events.id) { (events.html) } }))
        (section("Checkpoints", html! { div id=(checkpoints.id) { (checkpoints.html) } }))
        (section("Job", html! { details { summary { "The spec, with every default" } pre tabindex="0" { (format!("{spec:#}")) } } }))
    };
    let live = Some(format!("/jobs/{}/live", segment(&name)));
    Ok(layout::answer(layout::page(&visitor, &Frame { title: &name, live, charts: true, main })))
}

fn section(title: &str, content: Markup) -> Markup {
    let id = format!("{}-title", title.to_lowercase());
    html! { section aria-labelledby=(id) { h2 id=(id) { (title) } (content) } }
}

fn labels(spec: &Value) -> Vec<(&str, &str)> {
    let labels = spec.pointer("/metadata/labels").and_then(Value::as_object);
    labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect()
}

/// What changes.
pub(super) async fn parts(page: &Page, entry: &Arc<Entry>, visitor: Visitor) -> [Part; 8] {
    let job = entry.job();
    let events = entry.events.last_few(EVENTS_SHOWN);
    let fleet = page.workers().await;
    let members: Vec<_> = fleet.iter().filter(|worker| worker.job == job.name).collect();
    let checkpoints = page.checkpoints.of(&job.name, entry.view().submitted_at);
    let checkpoints = checkpoints.get(LATER, || newest_checkpoints(entry)).await;
    let columns = page.columns(entry).await;
    [
        status(&job, entry.unix_ms(), entry.metrics.goodput()),
        Part {
            id: "steer",
            html: if visitor.may_steer() {
                steer(&job, entry.view().paused)
            } else {
                html! {}
            },
        },
        Part { id: "said", html: html! { (job.name) " is " (state(job.state())) ": " (said(&job)) } },
        numbers(&columns),
        gallery::part(page, entry).await,
        parts::workers(&members, true),
        parts::checkpoints(&checkpoints, &job.name),
        parts::events(&events, &job.name),
    ]
}

/// What a screen reader is told when it changes: not every step.
fn said(job: &Job) -> String {
    job.why.as_ref().map(|why| why.sentence.clone()).unwrap_or_default()
}

fn status(job: &Job, now_unix_ms: i64, goodput: Option<f64>) -> Part {
    let p = job.progress.clone().unwrap_or_default();
    let mut facts = parts::numbers(job, &p);
    if p.k > 0 {
        facts.push(("τ", format!("{:.5}", p.tau)));
        facts.push(("Learning rate", number(p.learning_rate)));
        facts.push(("Gradient norm", number(p.gradient_norm)));
        facts.push(("Valid regions", number(p.valid_regions)));
    }
    let until = if job.ended_unix_ms > 0 { job.ended_unix_ms } else { now_unix_ms };
    if job.started_unix_ms > 0 {
        facts.push(("Since its start", duration((until - job.started_unix_ms) as f64 / 1_000.0)));
    }
    if let Some(share) = goodput {
        facts.push(("Goodput", format!("{:.1}%", 100.0 * share)));
    }
    facts.push(("Generation", job.generation.to_string()));
    facts.push(("Saved step", if job.checkpoint_step == 0 { "–".to_owned() } else { job.checkpoint_step.to_string() }));
    let report = has_ended(job.state()) && !job.report.is_empty();
    let html = html! {
        div.state-line { (parts::badge(job.state())) (parts::why(job)) }
        (parts::progress(job, &p))
        (parts::facts(&facts))
        @if report { p { a.report href={ "/jobs/" (segment(&job.name)) "/report" } { "Read the report of this run" } } }
    };
    Part { id: "status", html }
}

/// What may be done with a job, as buttons that need no script.
fn steer(job: &Job, paused: bool) -> Markup {
    let button = |action: &str, word: &str| {
        html! { form method="post" action={ "/jobs/" (segment(&job.name)) "/" (action) } { button type="submit" { (word) } } }
    };
    let ended = has_ended(job.state());
    html! {
        div.steer role="group" aria-label="Steer this job" {
            @if !ended && paused { (button("resume", "Resume")) }
            @if !ended && !paused { (button("pause", "Pause")) }
            @if job.state() == JobState::Running { (button("checkpoint", "Checkpoint now")) }
            @if job.state() != JobState::Succeeded { (button("requeue", if ended { "Submit again" } else { "Requeue" })) }
            @if !ended {
                details.cancel {
                    summary { "Cancel …" }
                    form method="post" action={ "/jobs/" (segment(&job.name)) "/cancel" } {
                        p { "The job stops for good; its checkpoints stay." }
                        label for="reason" { "Why (optional)" }
                        input #reason type="text" name="reason" maxlength="500";
                        button.danger type="submit" { "Cancel the job" }
                    }
                }
            }
        }
    }
}

/// The curves in a few rows, for those who do not see them.
fn numbers(columns: &Columns) -> Part {
    const ROWS: usize = 12;
    let n = columns.step.len();
    let rows: Vec<usize> =
        if n <= ROWS { (0..n).collect() } else { (0..ROWS).map(|i| i * (n - 1) / (ROWS - 1)).collect() };
    let html = html! {
        @if n == 0 { p.empty { "No step yet." } } @else {
            div.scroll role="region" aria-label="Curves as numbers" tabindex="0" { table {
                caption.quiet { "The curves at a few steps, evenly over the run" }
                thead { tr { th.n scope="col" { "Step" } @for curve in curves::CURVES { th.n scope="col" { (curve.title) } } } }
                tbody { @for row in rows { tr {
                    th.n scope="row" { (columns.step[row]) }
                    @for curve in curves::CURVES { td.n { (number((curve.of)(columns)[row])) } }
                } } }
            } }
        }
    };
    Part { id: "numbers", html }
}

async fn newest_checkpoints(entry: &Entry) -> Vec<Checkpoint> {
    let mut found = match checkpoint::list(&entry.store).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!("the page cannot list checkpoints: {}", r2o_telemetry::chain(&error));
            return Vec::new();
        }
    };
    found.sort_by_key(|info| std::cmp::Reverse(info.step));
    let mut newest = Vec::new();
    for info in found.iter().take(CHECKPOINTS_SHOWN) {
        let manifest =
            checkpoint::load_manifest(&entry.store, info.step).await.map_err(|error| error.to_string()).map(|m| {
                Manifest {
                    epoch: m.epoch,
                    tensors: m.tensors.len(),
                    bytes: m.bytes(),
                    created_unix_ms: m.created_unix_ms,
                }
            });
        newest.push(Checkpoint { step: info.step, manifest });
    }
    newest
}
