//! Runs the rows, each in processes of its own, and prints the table.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use r2o_engine::host::Device;

use crate::checks::{Finding, Row, rows};
use crate::{FAILED, NO_GPU, PASSED, Where};

const POLL: Duration = Duration::from_millis(20);
const NEEDS_GPU: &str = "not run: needs a GPU";

/// Runs all rows and prints the table as it grows; the exit code.
pub(crate) fn run(place: Where, quick: bool, limit: u64) -> Result<u8> {
    let runnable = place == Where::Cpu || (r2o_c10d::CUDA && Device::cuda().is_some());
    println!("| check | result | figures |\n| --- | --- | --- |");
    let mut code = if runnable { PASSED } else { NO_GPU };
    for (index, row) in rows(place, quick).iter().enumerate() {
        let (result, figures) = if runnable {
            let started = Instant::now();
            match run_row(index, row, place, quick, Duration::from_secs(limit)) {
                Ok(Finding { passed: true, figures }) => ("pass".to_owned(), figures),
                Ok(Finding { passed: false, figures }) => ("FAIL".to_owned(), figures),
                Err(error) => ("FAIL".to_owned(), format!("{error:#}, after {:.0} s", started.elapsed().as_secs_f64())),
            }
        } else {
            (NEEDS_GPU.to_owned(), String::new())
        };
        if result == "FAIL" {
            code = FAILED;
        }
        let figures = figures.replace('\n', " ").replace('|', "/");
        println!("| {} | {result} | {figures} |", row.title());
    }
    Ok(code)
}

/// The processes of a row, ended with it.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run_row(index: usize, row: &Row, place: Where, quick: bool, limit: Duration) -> Result<Finding> {
    let folder = tempfile::tempdir().context("cannot make a folder for the rendezvous")?;
    let mut processes = Processes(Vec::new());
    for rank in 0..row.world {
        processes.0.push(start((index, row), rank, place, quick, folder.path())?);
    }
    let deadline = Instant::now() + limit;
    let mut found = None;
    for (rank, child) in processes.0.iter_mut().enumerate() {
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => anyhow::bail!("rank {rank} ran into the limit of {limit:?}"),
                None => thread::sleep(POLL),
            }
        };
        let said = |stream| fs::read_to_string(folder.path().join(output(stream, rank))).unwrap_or_default();
        if !status.success() {
            let errors = said("stderr");
            let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            anyhow::bail!("rank {rank} ended with {status}: {last}");
        }
        if rank == 0 {
            let text = said("stdout");
            let line = text.lines().find(|line| line.starts_with('{')).context("rank 0 found nothing")?;
            found = Some(serde_json::from_str(line).context("rank 0's finding")?);
        }
    }
    found.context("a row has a rank 0")
}

/// A file for what a rank says; the store's keys have other names.
fn output(stream: &str, rank: usize) -> String {
    format!("{stream}-{rank}")
}

fn start((index, row): (usize, &Row), rank: usize, place: Where, quick: bool, store: &Path) -> Result<Child> {
    let file =
        |stream| File::create(store.join(output(stream, rank))).context("cannot write into the temporary folder");
    let mut command = Command::new(env::current_exe().context("where is this program?")?);
    command
        .args(["part", &index.to_string(), "--rank", &rank.to_string()])
        .args(["--device", if place == Where::Cpu { "cpu" } else { "cuda" }])
        .arg("--store")
        .arg(store)
        .args(quick.then_some("--quick"))
        // NCCL refuses two ranks on one GPU by host and bus: two hosts, then, over sockets.
        .env("NCCL_HOSTID", format!("r2o-gpu-suite-{rank}"))
        .stdin(Stdio::null())
        .stdout(file("stdout")?)
        .stderr(file("stderr")?);
    let loopback = [("NCCL_SOCKET_IFNAME", "lo"), ("NCCL_IB_DISABLE", "1")];
    for (name, value) in loopback.iter().chain(row.environment()) {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    command.spawn().context("cannot start a part of the suite")
}
