//! `r2o-worker`: one process that owns one accelerator (or some CPU threads) and trains what the coordinator grants.

mod agent;
mod checkpoint;
mod cli;
mod gallery;
mod gpu;
mod leave;
mod logs;
mod metrics;
mod session;
mod store;
mod trainer;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Run(options) => agent::run(*options),
        Verb::Golden(options) => match r2o_engine::golden::run(&options.into()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("r2o-worker golden: {:#}", anyhow::Error::new(error));
                ExitCode::FAILURE
            }
        },
    }
}
