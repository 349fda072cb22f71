//! The curves of a run: as numbers for the script that draws them, and drawn for those who have none.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, PreEscaped, html};
use r2o_proto::v1::Progress;
use r2o_report::{Curve, curve};
use r2o_storage::history::{self, StepRecord};
use serde::Serialize;

use super::access::Visitor;
use super::words::{number, segment};
use super::{Missing, Page, Shared};
use crate::board::Entry;

/// Points of a curve that are sent.
const POINTS: usize = 1_500;
/// Bytes of history that are read for a page; of a longer run the report tells.
const HISTORY_BYTES: u64 = 64 << 20;
/// The history is read again only when this coordinator has forgotten steps since.
const NEVER: Duration = Duration::from_secs(u64::MAX >> 2);

/// One value over the steps.
pub(super) struct Kind {
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) of: fn(&Columns) -> &[f64],
    stairs: bool,
    noisy: bool,
    from_zero: bool,
}

/// All that is drawn. The script knows them by their keys.
pub(super) const CURVES: &[Kind] = &[
    Kind {
        key: "loss",
        title: "Loss",
        unit: "mean over the lanes",
        of: |c| &c.loss,
        stairs: false,
        noisy: true,
        from_zero: false,
    },
    Kind {
        key: "rate",
        title: "Images/s",
        unit: "smoothed",
        of: |c| &c.rate,
        stairs: false,
        noisy: false,
        from_zero: true,
    },
    Kind { key: "k", title: "K", unit: "clusters a lane", of: |c| &c.k, stairs: true, noisy: false, from_zero: true },
    Kind {
        key: "tau",
        title: "τ",
        unit: "momentum of the target network",
        of: |c| &c.tau,
        stairs: false,
        noisy: false,
        from_zero: false,
    },
    Kind {
        key: "learningRate",
        title: "Learning rate",
        unit: "",
        of: |c| &c.learning_rate,
        stairs: false,
        noisy: false,
        from_zero: true,
    },
    Kind {
        key: "gradientNorm",
        title: "Gradient norm",
        unit: "L2, of the mean gradient",
        of: |c| &c.gradient_norm,
        stairs: false,
        noisy: true,
        from_zero: true,
    },
    Kind {
        key: "validRegions",
        title: "Valid regions",
        unit: "an image",
        of: |c| &c.valid_regions,
        stairs: false,
        noisy: true,
        from_zero: true,
    },
];

/// Values of committed steps, all columns of one length. What is not a number is null in JSON.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Columns {
    /// Committed steps.
    pub(super) step: Vec<u64>,
    loss: Vec<f64>,
    rate: Vec<f64>,
    k: Vec<f64>,
    tau: Vec<f64>,
    learning_rate: Vec<f64>,
    gradient_norm: Vec<f64>,
    valid_regions: Vec<f64>,
}

/// What happened before this coordinator's memory of a job begins.
#[derive(Debug, Default)]
pub(super) struct Past {
    columns: Columns,
    /// The first step that is not in it.
    until: u64,
}

impl Columns {
    fn values(&mut self) -> [&mut Vec<f64>; 7] {
        [
            &mut self.loss,
            &mut self.rate,
            &mut self.k,
            &mut self.tau,
            &mut self.learning_rate,
            &mut self.gradient_norm,
            &mut self.valid_regions,
        ]
    }

    /// Adds a step; later ones that were undone go.
    fn push(&mut self, step: u64, values: [f64; 7]) {
        while self.step.last().is_some_and(|last| *last >= step) {
            self.step.pop();
            self.values().into_iter().for_each(|column| _ = column.pop());
        }
        self.step.push(step);
        self.values().into_iter().zip(values).for_each(|(column, value)| column.push(value));
    }

    pub(super) fn take(&mut self, p: &Progress) {
        // Before the first step of this process there are no numbers.
        if p.k > 0 {
            let k = f64::from(p.k);
            self.push(
                p.step,
                [p.loss, p.images_per_second, k, p.tau, p.learning_rate, p.gradient_norm, p.valid_regions],
            );
        }
    }

    fn record(&mut self, r: &StepRecord) {
        let rate = if r.seconds > 0.0 { r.images as f64 / r.seconds } else { f64::NAN };
        let k = f64::from(r.k);
        self.push(r.step + 1, [r.loss, rate, k, r.tau, r.learning_rate, r.gradient_norm, r.valid_regions]);
    }

    /// Every n-th step when there are too many; the last one always.
    fn thinned(&self) -> Self {
        let n = self.step.len();
        let every = n.div_ceil(POINTS).max(1);
        let mut columns = Self::default();
        let mut from = self.clone();
        for i in (0..n).filter(|i| i % every == 0 || i + 1 == n) {
            let values = from.values().map(|column| column[i]);
            columns.push(self.step[i], values);
        }
        columns
    }

    pub(super) fn is_empty(&self) -> bool {
        self.step.is_empty()
    }
}

impl Page {
    /// The curves of a job so far.
    pub(super) async fn columns(&self, entry: &Arc<Entry>) -> Columns {
        let (seen, view) = (entry.progress.all(), entry.view());
        let first = seen.iter().find(|p| p.k > 0).map_or(view.committed + 1, |p| p.step);
        let past = self.pasts.of(&view.name, view.submitted_at);
        let known = if first > 1 { past.get(NEVER, || read(entry, first)).await } else { Arc::default() };
        // The feed has forgotten steps that the past does not have yet.
        let known = if known.until + 1 < first && known.until > 0 {
            past.get(Duration::ZERO, || read(entry, first)).await
        } else {
            known
        };
        let mut columns = known.columns.clone();
        seen.iter().for_each(|p| columns.take(p));
        columns.thinned()
    }
}

async fn read(entry: &Entry, until: u64) -> Past {
    let mut columns = Columns::default();
    match history::bytes(&entry.store).await {
        Ok(bytes) if bytes <= HISTORY_BYTES => match history::read_all(&entry.store).await {
            Ok(records) => records.iter().filter(|r| r.step + 1 < until).for_each(|r| columns.record(r)),
            Err(error) => tracing::warn!("the page has no older curves: {}", r2o_telemetry::chain(&error)),
        },
        Ok(bytes) => tracing::warn!("the page shows no older curves: the history has {bytes} bytes"),
        Err(error) => tracing::warn!("the page has no older curves: {}", r2o_telemetry::chain(&error)),
    }
    Past { columns: columns.thinned(), until }
}

pub(super) async fn show(
    State(page): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Response, Missing> {
    let entry = page.entry(&name, &visitor)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&page.columns(&entry).await)).into_response())
}

/// Structures of numbers always have a JSON text.
pub(super) fn json(columns: &Columns) -> String {
    serde_json::to_string(columns).unwrap_or_default()
}

/// The curves, drawn by the server; the script draws over them.
pub(super) fn figures(columns: &Columns, name: &str) -> Markup {
    html! {
        div.charts data-curves={ "/jobs/" (segment(name)) "/curves" } {
            @for kind in CURVES {
                figure data-curve=(kind.key) data-stairs[kind.stairs] data-noisy[kind.noisy] data-zero[kind.from_zero] {
                    figcaption {
                        span { strong { (kind.title) } " " span.unit { (kind.unit) } }
                        span.now { (last((kind.of)(columns))) }
                    }
                    div.plot { (drawn(columns, kind)) }
                }
            }
        }
    }
}

fn last(values: &[f64]) -> String {
    values.last().map_or("–".to_owned(), |value| number(*value))
}

fn drawn(columns: &Columns, kind: &Kind) -> Markup {
    let points = columns.step.iter().map(|step| *step as f64).zip((kind.of)(columns).iter().copied()).collect();
    let svg = curve(&Curve { points, stairs: kind.stairs, noisy: kind.noisy, from_zero: kind.from_zero });
    html! {
        @if let Some(svg) = svg { (PreEscaped(svg.replacen("<svg role=\"img\"", "<svg aria-hidden=\"true\"", 1))) }
        @else { p.empty { "No step yet." } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: u64, loss: f64) -> Progress {
        Progress { step, loss, k: 4, ..Progress::default() }
    }

    #[test]
    fn a_step_that_was_undone_is_replaced_with_those_after_it() {
        let mut columns = Columns::default();
        [at(1, 4.0), at(2, 3.0), at(3, 2.0), at(2, 2.5), at(2, 2.6)].iter().for_each(|p| columns.take(p));
        columns.take(&Progress { step: 9, ..Progress::default() });
        assert_eq!((columns.step, columns.loss), (vec![1, 2], vec![4.0, 2.6]));
    }

    #[test]
    fn long_runs_are_thinned_and_keep_their_end() {
        let mut columns = Columns::default();
        (1..=10_000).for_each(|step| columns.take(&at(step, 1.0)));
        let thinned = columns.thinned();
        assert!(thinned.step.len() <= POINTS + 1, "{}", thinned.step.len());
        assert_eq!((thinned.step[0], thinned.step.last(), thinned.loss.len()), (1, Some(&10_000), thinned.step.len()));
        assert!(json(&Columns { loss: vec![f64::NAN], ..Columns::default() }).contains("null"));
    }
}
