//! The loader from a real S3 server behind latency and failures, beside itself from a folder.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};
use r2o_test_stores::Server;

use super::measure::{self, Measure};
use crate::{repo, setup};

/// For the command line.
pub(super) const NAME: &str = "stream";

/// The least share of the local rate.
const RATIO: &str = "stream, s3 of folder";
const LEAST: f64 = 80.0;

/// Builds the loader's program, starts the server, and gives a row of the table for each measure.
pub(super) fn run() -> Result<Vec<[String; 6]>> {
    let program = setup::s3_server().context("needs an S3 server: type `cargo xtask setup --s3`")?;
    setup::tools()?;
    repo::run(repo::cargo().args(["build", "--release", "--package", "r2o-data", "--examples"]))?;
    let server = Server::start(&program, Ipv4Addr::LOCALHOST)?;
    let mut command = Command::new(repo::programs("release/examples").join("data-bench"));
    command.current_dir(repo::root()).arg("stream");
    command.env("R2O_TEST_S3_URL", server.url()).envs(server.environment());
    Ok(measure::read(&repo::text(&mut command)?)?.iter().map(row).collect())
}

fn row(measure: &Measure) -> [String; 6] {
    let Measure { name, value, unit } = measure;
    let verdict = if name == RATIO {
        format!("at least {LEAST:.0} % {}", if *value >= LEAST { "met" } else { "MISSED" })
    } else {
        "-".to_owned()
    };
    let none = || "-".to_owned();
    [name.clone(), format!("{value:.1} {unit}"), none(), none(), none(), verdict]
}
