//! Outcomes by kind, as a Markdown table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::fault::Kind;
use crate::run::Outcome;

/// One row per kind: how often, how long until it was noticed, until the next step, how long the others were held, how long
/// the step after that took, steps that were done again. Times are median and worst, in seconds.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut kinds: BTreeMap<Kind, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        kinds.entry(outcome.kind).or_default().push(outcome);
    }
    let mut text = String::from(
        "| fault | times | noticed after | next step after | others held | a step | steps done again |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (kind, of_kind) in kinds {
        let spans = |pick: fn(&Outcome) -> Option<Duration>| span(of_kind.iter().filter_map(|o| pick(o)).collect());
        let lost = of_kind.iter().map(|o| o.lost).max().unwrap_or(0);
        let _infallible = writeln!(
            text,
            "| {kind} | {} | {} | {} | {} | {} | {lost} |",
            of_kind.len(),
            spans(|o| o.detected),
            spans(|o| Some(o.recovered)),
            spans(|o| Some(o.held)),
            spans(|o| Some(o.step)),
        );
    }
    text
}

/// Median and worst.
fn span(mut spans: Vec<Duration>) -> String {
    spans.sort_unstable();
    match (spans.get(spans.len() / 2), spans.last()) {
        (Some(median), Some(worst)) => format!("{:.2}, {:.2}", median.as_secs_f64(), worst.as_secs_f64()),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_rows_with_median_and_worst() {
        let outcome = |ms| Outcome {
            kind: Kind::KillWorker,
            detected: Some(Duration::from_millis(10)),
            recovered: Duration::from_millis(ms),
            held: Duration::from_millis(ms),
            step: Duration::from_millis(ms / 2),
            lost: 0,
        };
        let text = table(&[outcome(300), outcome(100), outcome(200)]);
        assert!(
            text.contains("| kill -9 of a worker | 3 | 0.01, 0.01 | 0.20, 0.30 | 0.20, 0.30 | 0.10, 0.15 | 0 |"),
            "{text}"
        );
    }
}
