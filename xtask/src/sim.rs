//! `cargo xtask sim`: builds tests/sim and lets it run seeds.

use anyhow::Result;

use crate::repo;

/// Which seeds.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The first seed; the same seed gives the same run.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many, one after another; one prints what happened.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

/// Fails when a promise does not hold; the seed is named.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut sim = repo::cargo();
    sim.args(["run", "--quiet", "--package", "r2o-sim", "--"]);
    sim.args(["--seed", &arguments.seed.to_string(), "--seeds", &arguments.seeds.to_string()]);
    repo::run(&mut sim)
}
