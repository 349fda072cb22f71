//! The project's own commands: `cargo xtask setup | check | test | demo | bench | chaos | sim | fuzz | schema | chart | sbom`.

mod bench;
mod chaos;
mod chart;
mod check;
mod demo;
mod fuzz;
mod repo;
mod sbom;
mod schema;
mod setup;
mod sim;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands that keep R2O's repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the CPU libtorch folder that the torch crates build against (a no-op when it is there).
    Setup(setup::Arguments),
    /// Format, lints, dependency arrows, tidy rules, licences and advisories; changes nothing.
    Check(check::Arguments),
    /// Build and run all tests, or those whose name contains FILTER.
    Test(test::Arguments),
    /// Train on the photographs under tests/fixtures with a coordinator and workers on this machine.
    Demo(demo::Arguments),
    /// Print the speed of our code beside the Python reference's, as ratios measured in one run.
    Bench(bench::Arguments),
    /// Disturb a run by faults from a seed, and print how long the fleet took to recover from each kind.
    Chaos(chaos::Arguments),
    /// Run seeds of a fleet in virtual time; one seed prints what happened.
    Sim(sim::Arguments),
    /// Feed random bytes to what reads from outside, guided by coverage, for some time each.
    Fuzz(fuzz::Arguments),
    /// Write the JSON schema of job.yaml anew.
    Schema,
    /// Write the Helm chart's table of values and its copies of dashboards and alerts anew.
    Chart,
    /// Print the bill of materials of a program as CycloneDX JSON.
    Sbom(sbom::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Schema => schema::write(),
        Command::Chart => chart::write(),
        Command::Sbom(arguments) => sbom::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
