//! Curves and the timing breakdown.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};
use r2o_storage::history::StepRecord;

use crate::curves::{Curve, curve, hex, stack};

/// Bars of the timing chart at most.
const BUCKETS: usize = 120;
/// Time of a step that no phase accounts for.
const OTHER: &str = "other";

/// All curves over the steps.
pub(super) fn curves(records: &[StepRecord]) -> Markup {
    if records.is_empty() {
        return html! {};
    }
    let of = |value: fn(&StepRecord) -> f64| records.iter().map(|r| (r.step as f64, value(r))).collect::<Vec<_>>();
    let plain = |value| Curve { points: of(value), stairs: false, noisy: false, from_zero: false };
    let noisy = |value| Curve { noisy: true, ..plain(value) };
    let charts = [
        ("Loss", "mean over the lanes", noisy(|r| r.loss)),
        ("K", "clusters per lane", Curve { stairs: true, from_zero: true, ..plain(|r| f64::from(r.k)) }),
        ("τ", "momentum of the target network", plain(|r| r.tau)),
        ("Learning rate", "", Curve { from_zero: true, ..plain(|r| r.learning_rate) }),
        ("Throughput", "images a second", Curve { from_zero: true, ..noisy(throughput) }),
        ("Valid regions", "per image", Curve { from_zero: true, ..noisy(|r| r.valid_regions) }),
        ("Gradient norm", "L2, mean gradient", Curve { from_zero: true, ..noisy(|r| r.gradient_norm) }),
    ];
    html! {
        h2 { "Training" }
        div.charts {
            @for (name, unit, values) in &charts {
                @if let Some(svg) = curve(values) {
                    figure { figcaption { (name) " " span.dim { (unit) } } (PreEscaped(svg)) }
                }
            }
        }
        p.dim { "Horizontally: committed steps." }
    }
}

fn throughput(r: &StepRecord) -> f64 {
    if r.seconds > 0.0 { r.images as f64 / r.seconds } else { f64::NAN }
}

/// Where the time of a step goes, over the run and in the mean.
pub(super) fn timing(records: &[StepRecord]) -> Markup {
    let phases = phases(records);
    if phases.is_empty() {
        return html! {};
    }
    let total: f64 = phases.iter().map(|(_, seconds)| seconds).sum();
    let (x, layers) = buckets(records, &phases);
    let steps = records.len() as f64;
    html! {
        h2 { "Where the time goes" }
        div.charts {
            figure {
                figcaption { "Seconds a step " span.dim { "by phase, of the slowest worker" } }
                @if let Some(svg) = stack(&x, &layers) { (PreEscaped(svg)) }
                div.legend { @for (i, (name, _)) in phases.iter().enumerate() {
                    span { i style={ "background:" (hex(i)) } {} (words(name)) }
                } }
            }
            div.scroll { table {
                tr { th { "phase" } th.n { "ms a step" } th.n { "share" } }
                @for (name, seconds) in &phases {
                    tr { td { (words(name)) } td.n { (format!("{:.1}", seconds / steps * 1000.0)) }
                        td.n { (format!("{:.1}%", seconds / total * 100.0)) } }
                }
                tr { td { "together" } td.n { (format!("{:.1}", total / steps * 1000.0)) } td {} }
            } }
        }
    }
}

/// Seconds of all steps by phase, the longest first; the rest of the wall time last.
fn phases(records: &[StepRecord]) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for (phase, seconds) in records.iter().flat_map(|r| &r.timings) {
        *sums.entry(phase).or_default() += seconds;
    }
    let mut phases: Vec<_> = sums.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect();
    phases.sort_by(|a, b| b.1.total_cmp(&a.1));
    let rest: f64 = records.iter().map(other).sum();
    if !phases.is_empty() && rest > 0.0 {
        phases.push((OTHER.to_owned(), rest));
    }
    phases
}

fn other(r: &StepRecord) -> f64 {
    (r.seconds - r.timings.values().sum::<f64>()).max(0.0)
}

/// Mean seconds by phase over runs of neighbouring steps.
fn buckets(records: &[StepRecord], phases: &[(String, f64)]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = records.len().div_ceil(BUCKETS).max(1);
    let runs: Vec<&[StepRecord]> = records.chunks(size).collect();
    let x = runs.iter().map(|run| run[run.len() / 2].step as f64).collect();
    let seconds = |r: &StepRecord, phase: &str| {
        r.timings.get(phase).copied().unwrap_or_else(|| if phase == OTHER { other(r) } else { 0.0 })
    };
    let mean = |run: &[StepRecord], phase: &str| run.iter().map(|r| seconds(r, phase)).sum::<f64>() / run.len() as f64;
    let layers = phases.iter().map(|(phase, _)| runs.iter().map(|run| mean(run, phase)).collect()).collect();
    (x, layers)
}

fn words(phase: &str) -> String {
    phase.replace('_', " ")
}

/// Four significant digits at most.
pub(super) fn short(x: f64) -> String {
    match x.abs() {
        _ if !x.is_finite() => "not a number".into(),
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 0.001 || a == 0.0 => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}
