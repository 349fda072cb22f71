//! Shows that R2O works on a machine with a GPU: parity with the CPU, NCCL, and speed, as a Markdown table.
//!
//! Each row runs in processes of its own, so that one that crashes or hangs costs only its row. README.md says how to
//! build the suite and how to take it to a machine.

mod batch;
mod checks;
mod store;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// All rows ran and passed.
const PASSED: u8 = 0;
/// A row failed.
const FAILED: u8 = 1;
/// Nothing failed, but rows that need a GPU did not run.
const NO_GPU: u8 = 3;

/// Where a row computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Where {
    /// The first GPU, over NCCL.
    Cuda,
    /// The CPU, over Gloo: shows that the suite itself works.
    Cpu,
}

#[derive(Debug, Parser)]
#[command(
    about = "Checks R2O on a machine with a GPU and prints a Markdown table",
    after_help = "Exit codes: 0 all \
rows passed, 1 a row failed, 2 wrong arguments, 3 not run: needs a GPU"
)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cuda")]
    device: Where,
    /// Small networks and few steps: minutes become seconds.
    #[arg(long)]
    quick: bool,
    /// Seconds that a row may take.
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One process of one row; the suite runs these.
    #[command(hide = true)]
    Part(PartArguments),
}

/// One process of one row.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PartArguments {
    /// Index of the row.
    row: usize,
    #[arg(long, value_enum)]
    device: Where,
    #[arg(long)]
    quick: bool,
    #[arg(long)]
    rank: usize,
    /// Folder through which the processes of a row find each other.
    #[arg(long)]
    store: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.part {
        Some(Part::Part(part)) => checks::run_part(&part).map(|()| PASSED),
        None => suite::run(arguments.device, arguments.quick, arguments.limit),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}
