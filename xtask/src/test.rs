//! `cargo xtask test`: set up, build, run every test, and close with what was not run and why.

mod outcome;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use r2o_test_stores::{Azurite, Server};
use rustix::process::{Signal, kill_process_group};

use crate::{repo, setup};
use outcome::Outcome;

/// Which tests, and how strictly.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains this.
    filter: Option<String>,
    /// A test that cannot run for want of something fails (also by R2O_REQUIRE_ALL=1).
    #[arg(long)]
    all: bool,
    /// Only crates that build without libtorch, and no set-up of it.
    #[arg(long)]
    no_torch: bool,
    /// Only these packages.
    #[arg(short, long)]
    package: Vec<String>,
}

/// Crates that need libtorch, and the tests that start their programs.
const TORCH: &[&str] =
    &["r2o-libtorch", "r2o-aten", "r2o-c10d", "r2o-engine", "r2o-worker", "r2o-gpu-suite", "r2o-e2e", "r2o-chaos"];

/// Runs the tests. Fails when one fails, when none matched, or when one was not run though all must be.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let all = arguments.all || env::var("R2O_REQUIRE_ALL").is_ok_and(|value| value == "1");
    let mut selection: Vec<&str> = arguments.package.iter().flat_map(|name| ["--package", name]).collect();
    if selection.is_empty() {
        selection.push("--workspace");
    }
    if arguments.no_torch {
        selection.extend(TORCH.iter().flat_map(|name| ["--exclude", name]));
        setup::tools()?;
    } else {
        setup::libtorch()?;
    }
    if arguments.package.is_empty() {
        setup::for_tests();
    }
    // The process tests start programs of other packages, which cargo does not build for them.
    let servers = Servers::start()?;
    let prepared = |subcommand: &str| prepared(subcommand, all, &servers);
    let mut build = prepared("build");
    repo::run(build.args(&selection).args(["--bins", "--tests", "--examples", "--keep-going"]))?;
    let mut outcome = if has_nextest() {
        nextest(prepared("nextest"), &selection, arguments.filter.as_deref())?
    } else {
        println!("cargo-nextest is not installed: running the tests by `cargo test`");
        libtest(prepared("test"), &["--tests"], &selection, arguments.filter.as_deref())?
    };
    if arguments.filter.is_none() {
        // Nextest runs no examples of the documents.
        outcome.add(libtest(prepared("test"), &["--doc"], &selection, None)?);
    }
    close(&outcome, all)
}

/// A cargo command with the environment that tests see.
fn prepared(subcommand: &str, all: bool, servers: &Servers) -> Command {
    let mut command = repo::cargo();
    command.arg(subcommand);
    if all {
        command.env("R2O_REQUIRE_ALL", "1");
    }
    if let Some(python) = setup::python() {
        command.env("R2O_PYTHON", python);
    }
    if let Some(program) = setup::s3_server() {
        command.env(r2o_test_stores::PROGRAM, program);
    }
    if let Some(tools) = setup::deploy_tools() {
        command.env("R2O_DEPLOY_TOOLS", tools);
    }
    if let Some(s3) = &servers.s3 {
        command.env(S3_URL, s3.url()).envs(s3.environment());
    }
    if let Some(azure) = &servers.azure {
        command.env(AZURE_URL, azure.url()).envs(azure.environment());
    }
    command
}

/// Empty prefixes of stores, for tests; where the environment names one, none is started.
const S3_URL: &str = "R2O_TEST_S3_URL";
const AZURE_URL: &str = "R2O_TEST_AZURE_URL";

/// The stores that all tests share, those that were set up.
struct Servers {
    s3: Option<Server>,
    azure: Option<Azurite>,
}

impl Servers {
    fn start() -> Result<Self> {
        let wanted = |url: &str| env::var_os(url).is_none();
        let program = setup::s3_server().filter(|_| wanted(S3_URL));
        let s3 = program.map(|program| Server::start(&program, Ipv4Addr::LOCALHOST)).transpose()?;
        let azure = if wanted(AZURE_URL) { Azurite::start(&repo::root().join("tests/azure"))? } else { None };
        let groups: Vec<_> = s3.iter().map(Server::group).chain(azure.iter().map(Azurite::group)).collect();
        if !groups.is_empty() {
            // An interrupted run leaves no server behind.
            ctrlc::set_handler(move || {
                for &group in &groups {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                std::process::exit(130);
            })?;
        }
        Ok(Self { s3, azure })
    }
}

fn has_nextest() -> bool {
    repo::output(repo::cargo().args(["nextest", "--version"])).is_ok_and(|output| output.status.success())
}

fn nextest(mut command: Command, selection: &[&str], filter: Option<&str>) -> Result<Outcome> {
    let report = repo::programs("nextest/default/junit.xml");
    let _ = fs::remove_file(&report);
    command.arg("run").args(selection).args(["--no-tests", "pass"]).args(filter);
    println!("$ {}", repo::shown(&command));
    let status = command.status().context("cannot run `cargo nextest`")?;
    let text = fs::read_to_string(&report)
        .with_context(|| format!("nextest ended ({status}) without {}: see its message above", report.display()))?;
    let mut outcome = Outcome::of_junit(&text);
    // What nextest calls a failure without naming a test (such as a build that failed) is one all the same.
    if !status.success() && outcome.failed == 0 {
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Runs `cargo test`, showing its output as it comes.
fn libtest(mut command: Command, kind: &[&str], selection: &[&str], filter: Option<&str>) -> Result<Outcome> {
    command.args(selection).args(kind).arg("--no-fail-fast").args(filter).args(["--", "--show-output"]);
    println!("$ {}", repo::shown(&command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run `cargo test`")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        // A crate without tests of this kind says so in four lines that nobody needs.
        if !["", "running 0 tests", "successes:"].contains(&line.as_str())
            && !line.starts_with("test result: ok. 0 passed")
        {
            println!("{line}");
        }
        outcome.read_libtest(&line);
    }
    let status = child.wait()?;
    if !status.success() && outcome.failed == 0 {
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Prints the closing list and decides.
fn close(outcome: &Outcome, all: bool) -> Result<()> {
    println!();
    for (needs, tests) in &outcome.not_run {
        println!("not run: {needs}: {}", tests.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    let not_run = outcome.not_run.values().map(std::collections::BTreeSet::len).sum::<usize>();
    let passed = outcome.passed.saturating_sub(not_run);
    println!("{passed} passed, {} failed, {not_run} skipped", outcome.failed);
    if outcome.failed > 0 {
        bail!("{} tests failed", outcome.failed);
    }
    if passed == 0 {
        bail!("no test ran");
    }
    if all && not_run > 0 {
        bail!("{not_run} tests were not run, and all must be");
    }
    Ok(())
}
