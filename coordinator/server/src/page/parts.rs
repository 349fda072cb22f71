//! Parts of pages that change while they are looked at. Each has an id; a newer one takes its place.

use maud::{Markup, html};
use r2o_proto::v1::{Job, JobState, Progress, Worker};
use r2o_storage::run::EventRecord;

use super::words::{bytes, count, duration, has_ended, instant, number, ranges, segment, state, time};

/// Workers that a table shows.
const WORKERS_SHOWN: usize = 100;

/// A part of a page.
pub(super) struct Part {
    pub(super) id: &'static str,
    pub(super) html: Markup,
}

/// One checkpoint of a job.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) step: u64,
    /// What the manifest says, or what is wrong with it.
    pub(super) manifest: Result<Manifest, String>,
}

#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) epoch: u64,
    pub(super) tensors: usize,
    pub(super) bytes: u64,
    pub(super) created_unix_ms: i64,
}

/// A state as a word in its colour.
pub(super) fn badge(job: JobState) -> Markup {
    let word = state(job);
    html! { span class={ "badge " (word.to_lowercase()) } { (word) } }
}

/// Why a job is in its state, and what to do about it.
pub(super) fn why(job: &Job) -> Markup {
    let why = job.why.clone().unwrap_or_default();
    html! {
        p.why { (sentence(&job.reason)) }
        @if !why.hint.is_empty() { p.hint { strong { "Try: " } (why.hint) } }
    }
}

/// What follows "the job" as a sentence of its own.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// How far a job is.
pub(super) fn progress(job: &Job, p: &Progress) -> Markup {
    let share = if job.steps == 0 { 0.0 } else { p.step as f64 / job.steps as f64 * 100.0 };
    html! {
        div.progress {
            progress max=(job.steps.max(1)) value=(p.step) aria-label={ "Steps of " (job.name) } { (format!("{share:.0}%")) }
            div.far {
                span { "Step " b { (p.step) } " of " (job.steps) }
                span { "epoch " b { (p.epoch.max(u64::from(p.step > 0))) } " of " (p.epochs) }
                span.share { (format!("{share:.1}%")) }
            }
        }
    }
}

/// Names and values side by side.
pub(super) fn facts(facts: &[(&str, String)]) -> Markup {
    html! { dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}

/// The numbers of the last step; none before the first.
pub(super) fn numbers(job: &Job, p: &Progress) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if p.k > 0 {
        facts.push(("Loss", number(p.loss)));
        if !has_ended(job.state()) {
            facts.push(("Images/s", number(p.images_per_second)));
        }
        facts.push(("K", p.k.to_string()));
    }
    if job.state() == JobState::Running && p.eta_seconds > 0.0 {
        facts.push(("Time left", duration(p.eta_seconds)));
    }
    facts
}

/// The jobs, those that are not over first.
pub(super) fn jobs(jobs: &[Job], now_unix_ms: i64, more: usize) -> Part {
    let html = html! {
        @if jobs.is_empty() {
            div.empty {
                p { "No jobs yet." }
                p { "Submit one: " code { "r2octl submit -f job.yaml" } }
            }
        } @else {
            ul.jobs { @for job in jobs { li { (card(job, now_unix_ms)) } } }
        }
        @if more > 0 { p.more { "And " (count(more, "older job")) ": " code { "r2octl list" } } }
    };
    Part { id: "jobs", html }
}

fn card(job: &Job, now_unix_ms: i64) -> Markup {
    let p = job.progress.clone().unwrap_or_default();
    let mut facts = numbers(job, &p);
    if !job.workers.is_empty() {
        facts.push(("Workers", job.workers.len().to_string()));
    }
    let (from, what) =
        if has_ended(job.state()) { (job.ended_unix_ms, "Ended") } else { (job.submitted_unix_ms, "Submitted") };
    facts.push((what, format!("{} ago", duration((now_unix_ms - from).max(0) as f64 / 1_000.0))));
    html! {
        article.card {
            div.name { h3 { a href={ "/jobs/" (segment(&job.name)) } { (job.name) } } (badge(job.state())) }
            (why(job))
            (progress(job, &p))
            (self::facts(&facts))
        }
    }
}

/// What the fleet does, in numbers.
pub(super) fn summary(jobs: &[Job], workers: &[Worker]) -> Part {
    let of = |wanted: &[JobState]| jobs.iter().filter(|job| wanted.contains(&job.state())).count();
    let doing = |state: &str| workers.iter().filter(|worker| worker.state == state).count();
    let lanes: usize = workers.iter().map(|worker| worker.lanes.len()).sum();
    let rate: f64 = jobs
        .iter()
        .filter(|job| job.state() == JobState::Running)
        .filter_map(|job| job.progress.as_ref())
        .map(|p| p.images_per_second)
        .sum();
    let all = [
        ("Jobs running", of(&[JobState::Running, JobState::Starting]).to_string()),
        ("Jobs waiting", of(&[JobState::Queued, JobState::Paused]).to_string()),
        ("Workers training", format!("{} of {}", doing("training"), workers.len())),
        ("Workers idle", doing("idle").to_string()),
        ("Lanes computed", lanes.to_string()),
        ("Images/s", if rate > 0.0 { number(rate) } else { "–".to_owned() }),
    ];
    Part { id: "summary", html: facts(&all) }
}

/// The workers; `of_job`: those of one job, with their lanes.
pub(super) fn workers(workers: &[&Worker], of_job: bool) -> Part {
    let html = html! {
        @if workers.is_empty() {
            @if of_job { p.empty { "No worker computes lanes of this job now." } }
            @else {
                div.empty { p { "No workers are connected." } p { "Start one on each machine: " code { "r2o-worker run --coordinator URL" } } }
            }
        } @else {
            div.scroll role="region" aria-label="Table of workers" tabindex="0" { table {
                caption.quiet { @if of_job { "Workers of this job" } @else { "Workers of the fleet" } }
                thead { tr {
                    th scope="col" { "Worker" } th scope="col" { "State" }
                    @if !of_job { th scope="col" { "Job" } }
                    th scope="col" { "Lanes" } th scope="col" { "Device" } th.n scope="col" { "Threads" }
                    th scope="col" { "Address" } th scope="col" { "Version" }
                } }
                tbody { @for w in workers.iter().take(WORKERS_SHOWN) { tr {
                    th scope="row" { (w.name) }
                    td { span class={ "state " (w.state) } { (w.state) } }
                    @if !of_job { td { @if !w.job.is_empty() { a href={ "/jobs/" (segment(&w.job)) } { (w.job) } } @else { "–" } } }
                    td.num { (ranges(&w.lanes)) } td { (w.device) } td.n { (w.threads) }
                    td { (w.address) } td.num { (w.version) }
                } } }
            } }
            @if workers.len() > WORKERS_SHOWN { p.more { "And " (count(workers.len() - WORKERS_SHOWN, "further worker")) ": " code { "r2octl fleet" } } }
        }
    };
    Part { id: "workers", html }
}

/// What happened, the newest first.
pub(super) fn events(events: &[EventRecord], name: &str) -> Part {
    let html = html! {
        @if events.is_empty() { p.empty { "Nothing has happened yet." } } @else {
            div.scroll.tall role="region" aria-label="Table of events" tabindex="0" { table.events {
                caption.quiet { "The last events, the newest first; all of them: " code { "r2octl events " (name) } }
                thead { tr { th scope="col" { "Time" } th scope="col" { "What" } th scope="col" { "Details" } } }
                tbody { @for e in events.iter().rev() { tr class=[e.warning.then_some("warning")] {
                    td.num { time datetime=(instant(e.unix_ms)) { (time(e.unix_ms)) } }
                    th scope="row" { @if e.warning { span.sign aria-hidden="true" { "▲ " } span.hidden { "Warning: " } } (e.reason) }
                    td { (e.message) }
                } } }
            } }
        }
    };
    Part { id: "events", html }
}

/// What lies in storage, the newest first.
pub(super) fn checkpoints(checkpoints: &[Checkpoint], name: &str) -> Part {
    let html = html! {
        @if checkpoints.is_empty() { p.empty { "No checkpoint yet." } } @else {
            div.scroll role="region" aria-label="Table of checkpoints" tabindex="0" { table {
                caption.quiet { "The newest checkpoints; to read them through: " code { "r2octl checkpoints verify " (name) } }
                thead { tr { th.n scope="col" { "Step" } th.n scope="col" { "Epoch" } th.n scope="col" { "Tensors" } th.n scope="col" { "Size" } th scope="col" { "Written" } } }
                tbody { @for c in checkpoints { tr {
                    th.n scope="row" { (c.step) }
                    @match &c.manifest {
                        Ok(m) => {
                            td.n { (m.epoch) } td.n { (m.tensors) } td.n { (bytes(m.bytes)) }
                            td.num { time datetime=(instant(m.created_unix_ms)) { (time(m.created_unix_ms)) } }
                        }
                        Err(damage) => { td.damage colspan="4" { (damage) } }
                    }
                } } }
            } }
        }
    };
    Part { id: "checkpoints", html }
}
