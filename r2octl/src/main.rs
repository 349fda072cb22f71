//! `r2octl`: the command line of R2O.
//!
//! `cli` declares the arguments, `commands` does one thing per module, `view` is what programs get (`-o json`), `table`
//! what people get, `error` the exit codes. Talks to the coordinator over gRPC, and to storage URLs directly.

mod cli;
mod client;
mod commands;
mod error;
mod format;
mod output;
mod table;
mod target;
mod top;
mod view;
mod watching;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;
use crate::error::CliError;

fn main() -> ExitCode {
    // clap prints usage errors itself and leaves with 2; help and version with 0.
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("R2O_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return report(&CliError::failure("cannot start the runtime").because(e)),
    };
    let outcome = runtime.block_on(commands::run(cli));
    // A blocked read of a stream must not keep the program from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is_broken_pipe() => ExitCode::SUCCESS,
        Err(e) => report(&e),
    }
}

fn report(error: &CliError) -> ExitCode {
    eprint!("{}", error.for_people());
    ExitCode::from(error.code() as u8)
}
