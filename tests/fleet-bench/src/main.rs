//! `fleet-bench`: thousands of workers that compute nothing, against a real coordinator process.
//!
//! Each worker is a task with a stream of its own over a bounded number of connections. It says hello, answers an
//! assignment with ready, and each step with a report when the step's all-reduce, which lasts a given time, is over.
//! Prints JSON lines like the other benchmark programs, and sentences for people on standard error.

mod figures;
mod group;
mod place;
mod process;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use r2o_proto::v1::fleet_client::FleetClient;
use r2o_telemetry::{TaskHandle, TaskKind, spawn};
use r2o_test_kit::{Coordinator, wait_until};
use tonic::transport::Endpoint;

use figures::print;
use group::Shared;
use place::Place;
use process::Usage;

/// How long a fleet may take to come together, and to form anew.
const PATIENCE: Duration = Duration::from_secs(300);
/// The job's name.
const JOB: &str = "bench";

#[derive(Debug, Parser)]
#[command(name = "fleet-bench")]
struct Arguments {
    /// Workers of each fleet, one after another.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    workers: Vec<usize>,
    /// Milliseconds of a step.
    #[arg(long, default_value_t = 2_000)]
    step_ms: u64,
    /// Milliseconds over which workers' reports of a step spread.
    #[arg(long, default_value_t = 100)]
    spread_ms: u64,
    /// Steps that are measured.
    #[arg(long, default_value_t = 10)]
    steps: u64,
    /// Streams of one connection; the coordinator takes 200.
    #[arg(long, default_value_t = 200)]
    streams: usize,
    /// Further arguments of the coordinator.
    #[arg(long, value_delimiter = ' ', allow_hyphen_values = true)]
    coordinator: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        for workers in &arguments.workers {
            runtime.block_on(measure(&arguments, *workers))?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments, count: usize) -> Result<()> {
    let place = Place::new(count)?;
    let more: Vec<&str> = arguments.coordinator.iter().map(String::as_str).collect();
    let coordinator = Coordinator::start(place.folder(), "coordinator", &place.state(), &more).await?;
    place.submit(&coordinator, count).await?;
    let step = Duration::from_millis(arguments.step_ms);
    let shared = Arc::new(Shared::new(step, Duration::from_millis(arguments.spread_ms)));

    let start = Instant::now();
    let mut workers = start_workers(&coordinator, count, arguments.streams, &shared).await?;
    let fleet = format!("fleet of {count}");
    let trains = shared.trains(1, count);
    wait_until(&format!("{count} workers train"), PATIENCE, || async { Ok(trains().then_some(())) })
        .await
        .with_context(|| coordinator.process.log_tail(20))?;
    print(&format!("{fleet}: all train after"), start.elapsed().as_secs_f64(), "s");

    // What the start left to do is not part of the steady state.
    shared.wait_steps(2, PATIENCE).await?;
    shared.figures.clear();
    let (before, at) = (Usage::of(coordinator.process.id())?, Instant::now());
    shared.wait_steps(arguments.steps, PATIENCE.max(step * arguments.steps as u32 * 4)).await?;
    let (after, seconds) = (Usage::of(coordinator.process.id())?, at.elapsed().as_secs_f64());
    shared.figures.report(&fleet);
    let cpu = (after.cpu_seconds - before.cpu_seconds) / seconds;
    print(&format!("{fleet}: coordinator's cores"), cpu, "cores");
    print(&format!("{fleet}: coordinator's CPU per worker"), cpu * 1e6 / count as f64, "us/s");
    print(&format!("{fleet}: coordinator's memory"), after.memory_mib, "MiB");
    print(&format!("{fleet}: seconds per step of {} s", step.as_secs_f64()), seconds / arguments.steps as f64, "s");

    let generation = shared.generation();
    let killed = Instant::now();
    if let Some(worker) = workers.pop() {
        worker.cancel();
    }
    let assigned = shared.assigned(generation + 1, count - 1);
    wait_until("the others are assigned anew", PATIENCE, || async { Ok(assigned().then_some(())) })
        .await
        .with_context(|| coordinator.process.log_tail(20))?;
    shared.figures.report_assignments(&fleet, killed);
    let trains = shared.trains(generation + 1, count - 1);
    wait_until("the others train", PATIENCE, || async { Ok(trains().then_some(())) })
        .await
        .with_context(|| coordinator.process.log_tail(20))?;
    print(&format!("{fleet}: kill to training"), killed.elapsed().as_secs_f64(), "s");
    print(&format!("{fleet}: memory at the end"), Usage::of(coordinator.process.id())?.memory_mib, "MiB");
    workers.iter().for_each(TaskHandle::cancel);
    Ok(())
}

async fn start_workers(
    coordinator: &Coordinator,
    count: usize,
    streams: usize,
    shared: &Arc<Shared>,
) -> Result<Vec<TaskHandle<()>>> {
    let mut channels = Vec::new();
    for _ in 0..count.div_ceil(streams) {
        channels.push(Endpoint::from_shared(coordinator.url.clone())?.tcp_nodelay(true).connect().await?);
    }
    let workers = (0..count).map(|index| {
        let client = FleetClient::new(channels[index / streams].clone()).max_decoding_message_size(64 << 20);
        let worker = worker::live(Arc::clone(shared), client, index);
        spawn("simulated worker", TaskKind::Work, worker)
    });
    Ok(workers.collect())
}
