//! `r2o-sim`: runs seeds of the simulation. One seed prints what happened; several print only what broke.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;
use r2o_sim::{Options, run};

/// A fleet in virtual time, disturbed by what a seed decides.
#[derive(Parser)]
#[command(name = "r2o-sim")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many; one prints its trace.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options { readable: arguments.seeds == 1, ..Options::default() };
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut failed = 0;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let report = run(seed, options);
        for line in &report.lines {
            println!("{line}");
        }
        for (what, times) in report.counts {
            *counts.entry(what).or_default() += times;
        }
        if let Some(violation) = report.violation {
            failed += 1;
            println!("seed {seed}: {violation}\n  to see it: cargo xtask sim --seed {seed}");
        } else if options.readable {
            println!("seed {seed}: every promise held for {:.1} s", report.lasted as f64 / 1e6);
        }
    }
    if !options.readable {
        let counts: Vec<String> = counts.iter().map(|(what, times)| format!("{what} {times}")).collect();
        println!("{} seeds, {failed} failed; {}", arguments.seeds, counts.join(", "));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
