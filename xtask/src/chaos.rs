//! `cargo xtask chaos`: builds the programs and lets tests/chaos disturb a run of them.

use anyhow::Result;

use crate::{repo, setup};

/// Which faults, and how many.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The same seed gives the same faults after the same numbers of steps.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 15)]
    faults: u32,
    /// Further options of r2o-chaos, after `--`: `--kind kill-worker`, `--place hosts`, `--per-run 10`.
    #[arg(last = true)]
    more: Vec<String>,
}

/// Fails when the fleet does not recover, or when the run ends with other weights than an undisturbed one.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::libtorch()?;
    repo::run(repo::cargo().args(["build", "--workspace", "--bins"]))?;
    let mut chaos = repo::cargo();
    chaos.args(["run", "--quiet", "--package", "r2o-chaos", "--"]);
    chaos.args(["--seed", &arguments.seed.to_string(), "--faults", &arguments.faults.to_string()]);
    chaos.args(&arguments.more).env("R2O_BIN_DIR", repo::programs("debug"));
    if let Some(program) = setup::s3_server() {
        chaos.env(r2o_test_stores::PROGRAM, program);
    }
    repo::run(&mut chaos)
}
