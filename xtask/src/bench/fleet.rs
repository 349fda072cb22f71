//! Thousands of simulated workers against a coordinator: figures with limits instead of a reference.

use std::process::Command;

use anyhow::Result;

use super::measure::{self, Measure};
use crate::repo;

/// For the command line.
pub(super) const NAME: &str = "fleet";

/// The most that a measure may be: (end of its name, limit in its unit). Others are only shown.
const LIMITS: &[(&str, f64)] = &[("last report to ticket, p99", 250.0), ("wait for a ticket, longest", 0.0)];

/// Builds the coordinator and the simulated workers, and gives a row of the table for each measure.
pub(super) fn run() -> Result<Vec<[String; 6]>> {
    repo::run(repo::cargo().args(["build", "--release", "--bins"]).args([
        "--package",
        "r2o-coordinator",
        "--package",
        "r2o-fleet-bench",
    ]))?;
    let program = repo::programs("release").join("fleet-bench");
    let printed = repo::text(Command::new(program).current_dir(repo::root()))?;
    Ok(measure::read(&printed)?.iter().map(row).collect())
}

fn row(measure: &Measure) -> [String; 6] {
    let Measure { name, value, unit } = measure;
    let limit = LIMITS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, limit)| *limit);
    let verdict = limit.map_or("-".to_owned(), |limit| {
        format!("at most {limit:.0} {unit} {}", if *value <= limit { "met" } else { "MISSED" })
    });
    let none = || "-".to_owned();
    [name.clone(), format!("{value:.2} {unit}"), none(), none(), none(), verdict]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_met_or_missed_and_other_measures_are_only_shown() {
        let measure = |name: &str, value| Measure { name: name.to_owned(), value, unit: "ms".to_owned() };
        assert!(row(&measure("fleet of 9: last report to ticket, p99", 99.0))[5].ends_with("250 ms met"));
        assert!(row(&measure("fleet of 9: wait for a ticket, longest", 1.0))[5].ends_with("MISSED"));
        assert_eq!(row(&measure("fleet of 9: anything", 1.0))[5], "-");
    }
}
