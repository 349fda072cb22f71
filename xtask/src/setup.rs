//! Set-up: the folders in the user's cache that the repository builds and tests with.
//!
//! Each folder's name ends in a hash of the recipe that it was made by, so a changed recipe makes a new one and leaves
//! the old alone. A folder is made under another name and renamed when whole: an interrupted set-up leaves nothing that
//! a later one would take for finished.

mod cuda;
mod deploy;
mod folder;
mod libtorch;
mod pip;
mod python;
mod s3;
mod tools;

use std::path::PathBuf;

pub(crate) use libtorch::VERSION as LIBTORCH_VERSION;

use anyhow::Result;

/// What to set up. Without options: libtorch, and the tools that the JPEG decoder is built with.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also make the Python environment that the parity tests and benchmarks compare with (a 3 GB download).
    #[arg(long)]
    python: bool,
    /// Also fetch what the `cuda` feature is compiled and linked against (a 740 MB download); no GPU is needed.
    #[arg(long)]
    cuda: bool,
    /// Also fetch an S3 server for the storage tests (a 48 MB download), as `cargo xtask test` does.
    #[arg(long)]
    s3: bool,
    /// Also fetch Helm, linters and a collector for the tests of deploy/ and of traces (a 117 MB download), as
    /// `cargo xtask test` does.
    #[arg(long)]
    deploy: bool,
}

/// Makes what is asked for and missing, and says where it is.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    libtorch()?;
    if arguments.python {
        println!("Python with the reference packages: {}", python::ensure()?.display());
    }
    if arguments.cuda {
        println!("CUDA headers: {}", cuda::ensure()?.display());
    }
    if arguments.s3 {
        println!("S3 server: {}", s3::ensure()?.display());
    }
    if arguments.deploy {
        println!("Helm and linters: {}", deploy::ensure()?.display());
    }
    Ok(())
}

/// Fetches what tests use and is small. Where that fails, as without a network, they are listed as not run.
pub(crate) fn for_tests() {
    for (what, made) in [("the S3 server", s3::ensure()), ("Helm, linters and collector", deploy::ensure())] {
        if let Err(error) = made {
            eprintln!("without {what}, which cannot be fetched: {error:#}");
        }
    }
}

/// The S3 server's program, when it was fetched.
pub(crate) fn s3_server() -> Option<PathBuf> {
    s3::existing()
}

/// The folder of Helm and linters, when it was made.
pub(crate) fn deploy_tools() -> Option<PathBuf> {
    deploy::existing()
}

/// Makes `.libtorch` and `.tools` when there are none.
pub(crate) fn libtorch() -> Result<()> {
    tools()?;
    libtorch::ensure()
}

/// Makes `.tools` when there is none: all that crates without libtorch need.
pub(crate) fn tools() -> Result<()> {
    tools::ensure()
}

/// The Python with the reference packages: `R2O_PYTHON`, or the one that `setup --python` made.
pub(crate) fn python() -> Option<PathBuf> {
    python::existing()
}

/// The folder that the feature `cuda` builds against, made when it is missing.
pub(crate) fn cuda() -> Result<PathBuf> {
    cuda::ensure()
}
