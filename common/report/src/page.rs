//! The page: summary, curves, masks, timing, checkpoints, events, spec.

mod gallery;
mod numbers;
mod summary;

pub use gallery::OVERLAP;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{PictureError, ReportInput, style, words};

/// Renders the report as one HTML file: no scripts, styles, fonts or images from elsewhere.
///
/// # Errors
/// When a picture of the gallery is not a PNG of the expected kind.
pub fn render(input: &ReportInput) -> Result<String, PictureError> {
    let gallery = gallery::section(&input.pages)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "r2o-report " (env!("CARGO_PKG_VERSION")) };
                title { (input.name()) " · R2O report" }
                style { (PreEscaped(style::CSS)) }
            }
            body {
                (summary::head(input))
                (gallery)
                (numbers::curves(&input.records))
                (numbers::timing(&input.records))
                (checkpoints(input))
                (events(input))
                (spec(input))
                (versions(input))
            }
        }
    };
    Ok(page.into_string())
}

fn checkpoints(input: &ReportInput) -> Markup {
    if input.checkpoints.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Checkpoints" }
        p.dim { "Under " code { (input.url) } }
        div.scroll { table {
            tr { th.n { "step" } th.n { "epoch" } th.n { "tensors" } th.n { "MiB" } th { "manifest" } }
            @for c in &input.checkpoints {
                tr {
                    td.n { (c.step) }
                    @if let Some(damage) = &c.damage {
                        td {} td {} td {} td.warn { (damage) }
                    } @else {
                        td.n { (c.epoch) } td.n { (c.tensors) } td.n { (format!("{:.1}", c.bytes as f64 / 1048576.0)) }
                        td { "ok" }
                    }
                }
            }
        } }
    }
}

/// Events that stand open on the page; more are folded away.
const EVENTS_OPEN: usize = 30;

fn events(input: &ReportInput) -> Markup {
    if input.events.is_empty() {
        return html! {};
    }
    let start = input.events[0].unix_ms;
    let rows = html! { div.scroll { table {
        tr { th.n { "after" } th { "what" } th { "details" } }
        @for e in &input.events {
            tr class=[e.warning.then_some("warn")] {
                td.n { (words::duration((e.unix_ms - start).max(0) as f64 / 1000.0)) } td { (e.reason) } td { (e.message) }
            }
        }
    } } };
    html! {
        h2 { "Events" }
        @if input.events.len() <= EVENTS_OPEN { (rows) } @else {
            details { summary { (input.events.len()) " events" } (rows) }
        }
    }
}

fn spec(input: &ReportInput) -> Markup {
    if input.job.is_null() {
        return html! {};
    }
    let text = serde_saphyr::to_string(&input.job).unwrap_or_else(|_| format!("{:#}", input.job));
    html! { h2 { "Job" } pre { (text) } }
}

fn versions(input: &ReportInput) -> Markup {
    let ours = ("r2o-report", env!("CARGO_PKG_VERSION"));
    let theirs = input.versions.iter().map(|(name, version)| (name.as_str(), version.as_str()));
    html! {
        h2 { "Versions" }
        table { @for (name, version) in theirs.chain([ours]) { tr { td { (name) } td { code { (version) } } } } }
    }
}
