//! The head of the page: what ran, and how far it came.

use maud::{Markup, html};

use super::numbers::short;
use crate::ReportInput;
use crate::words::duration;

/// The name and the most asked facts.
pub(super) fn head(input: &ReportInput) -> Markup {
    let facts = facts(input);
    html! {
        h1 { (input.name()) }
        div.dim { "R2O pretraining · " code { (input.url) } }
        @if input.records.is_empty() { p.warn { "No step has been committed yet." } }
        div.facts { @for (name, value) in &facts { div { b { (value) } span { (name) } } } }
    }
}

fn facts(input: &ReportInput) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let text = |path: &str| input.job.pointer(path).and_then(|v| v.as_str()).map(str::to_owned);
    let number = |path: &str| input.job.pointer(path).and_then(serde_json::Value::as_u64);
    facts.extend(text("/spec/model/backbone").map(|b| ("backbone", b)));
    facts.extend(number("/spec/data/imageSize").map(|s| ("image size", format!("{s} px"))));
    if let (Some(lanes), Some(samples)) = (number("/spec/batch/lanes"), number("/spec/batch/samplesPerLane")) {
        facts.push(("lanes × images", format!("{lanes} × {samples}")));
    }
    let (Some(first), Some(last)) = (input.records.first(), input.records.last()) else { return facts };
    facts.push(("steps", (last.step + 1).to_string()));
    facts.push(("epochs", (last.epoch + 1).to_string()));
    facts.push(("loss, first to last", format!("{} → {}", short(first.loss), short(last.loss))));
    facts.push(("K", if first.k == last.k { first.k.to_string() } else { format!("{} → {}", first.k, last.k) }));
    if let Some((from, to)) = regions(input) {
        facts.push(("regions an image", format!("{from:.0} → {to:.0}")));
    }
    let seconds: f64 = input.records.iter().map(|r| r.seconds).sum();
    let images: u64 = input.records.iter().map(|r| r.images).sum();
    facts.push(("time in steps", duration(seconds)));
    if seconds > 0.0 {
        facts.push(("images a second", short(images as f64 / seconds)));
    }
    let generations: std::collections::BTreeSet<_> = input.records.iter().map(|r| r.generation).collect();
    facts.push(("generations", generations.len().to_string()));
    facts
}

/// The mean number of predicted regions on the first and the last page.
fn regions(input: &ReportInput) -> Option<(f64, f64)> {
    let mean = |page: &r2o_storage::gallery::GalleryPage| {
        let n = page.images.len();
        (n > 0).then(|| page.images.iter().map(|i| f64::from(i.mask_count)).sum::<f64>() / n as f64)
    };
    Some((mean(input.pages.first()?)?, mean(input.pages.last()?)?))
}
