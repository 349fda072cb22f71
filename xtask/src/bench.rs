//! `cargo xtask bench`: our speed beside the Python reference's, as ratios measured in one run.
//!
//! Programs on both sides print JSON lines `{"name": ..., "value": ..., "unit": ...}`; a measure is compared with the one
//! of the same name. Rounds take turns, so that a machine that slows down slows both, and the median ratio counts.

mod fleet;
mod measure;
mod pairs;
mod stream;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::{repo, setup};
use measure::{Measure, median};
use pairs::PAIRS;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only comparisons whose name contains this: step, kmeans, checkpoint, slic, loader; or fleet, stream.
    filter: Option<String>,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// Builds optimised programs, measures, and prints the table.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut rows = Vec::new();
    if arguments.filter.as_ref().is_none_or(|filter| fleet::NAME.contains(filter)) {
        rows.extend(fleet::run()?);
    }
    if arguments.filter.as_ref().is_none_or(|filter| stream::NAME.contains(filter)) {
        rows.extend(stream::run()?);
    }
    if !arguments.filter.as_deref().is_some_and(|filter| [fleet::NAME, stream::NAME].contains(&filter)) {
        rows.extend(compare(arguments)?);
    }
    print_table(&rows);
    Ok(())
}

/// Our programs beside the reference's.
fn compare(arguments: &Arguments) -> Result<Vec<[String; 6]>> {
    setup::libtorch()?;
    let python =
        setup::python().context("the comparisons need the reference packages: type `cargo xtask setup --python`")?;
    let wanted: Vec<_> =
        PAIRS.iter().filter(|pair| arguments.filter.as_ref().is_none_or(|filter| pair.name.contains(filter))).collect();
    for package in wanted.iter().map(|pair| pair.package).collect::<std::collections::BTreeSet<_>>() {
        repo::run(repo::cargo().args(["build", "--release", "--package", package, "--examples"]))?;
    }
    let mut rows = Vec::new();
    for pair in wanted {
        if let Some(mut prepare) = pair.preparation(&python) {
            repo::run(&mut prepare)?;
        }
        let mut seen: BTreeMap<String, (Vec<Measure>, Vec<Measure>)> = BTreeMap::new();
        for round in 0..arguments.rounds {
            eprintln!("{}: round {} of {}", pair.name, round + 1, arguments.rounds);
            // The side that begins changes from round to round.
            for side in if round % 2 == 0 { [true, false] } else { [false, true] } {
                let mut command = if side { pair.ours() } else { pair.theirs(&python) };
                for measure in measure::read(&repo::text(&mut command)?)? {
                    let entry = seen.entry(measure.name.clone()).or_default();
                    if side { entry.0.push(measure) } else { entry.1.push(measure) }
                }
            }
        }
        rows.extend(seen.into_iter().map(|(name, (ours, theirs))| row(pair.target(&name), &name, &ours, &theirs)));
    }
    Ok(rows)
}

/// One line of the table: name, ours, theirs, ratio, spread, target.
fn row(target: Option<f64>, name: &str, ours: &[Measure], theirs: &[Measure]) -> [String; 6] {
    let unit = ours.first().or(theirs.first()).map_or("", |measure| measure.unit.as_str());
    let value = |side: &[Measure]| {
        let values: Vec<f64> = side.iter().map(|measure| measure.value).collect();
        median(&values).map_or("-".to_owned(), |value| format!("{value:.4} {unit}"))
    };
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours.speed_over(theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    let spread = match (ratios.first(), ratios.last()) {
        (Some(low), Some(high)) => format!("{low:.2}-{high:.2}"),
        _ => "-".to_owned(),
    };
    let ratio = median(&ratios);
    let verdict = match (target, ratio) {
        (Some(target), Some(ratio)) => format!("{target:.1} {}", if ratio >= target { "met" } else { "MISSED" }),
        _ => "-".to_owned(),
    };
    let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
    [name.to_owned(), value(ours), value(theirs), ratio, spread, verdict]
}

fn print_table(rows: &[[String; 6]]) {
    let head = ["measure", "ours", "reference", "ratio", "rounds", "target"].map(str::to_owned);
    let all: Vec<_> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in all {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
