//! The rows: what one process of each computes, and what it has to find.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use r2o_c10d::{GlooOptions, NcclOptions, ProcessGroup, Store};
use r2o_engine::host::{Device, HostTensor};
use r2o_engine::{Engine, EngineOptions, StepOutput};
use serde::{Deserialize, Serialize};

use crate::batch::{Images, Scale};
use crate::store::FolderStore;
use crate::{PartArguments, Where};

const TIMEOUT: Duration = Duration::from_secs(120);
/// Steps of the rows that compare.
const STEPS: u64 = 2;

/// How far a loss or a gradient norm may be off, relatively.
const LOSS: f64 = 1e-3;
/// How far a tensor of the state may be off, relative to its norm. Another order of sums, 1e-6 apart, turns a handful of
/// the ReLUs that are that close to zero, and each moves all gradients below it by some 1e-3.
const STATE: f64 = 5e-2;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) world: usize,
    /// What rank 0 measures, and within what it passes.
    kind: Kind,
    scale: Scale,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Against the CPU.
    Parity,
    /// A group of `world` against one process.
    Group,
    /// A collective whose peer never comes, aborted.
    Abort,
    /// Images per second over some steps.
    Speed(u32),
}

/// What rank 0 found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) passed: bool,
    pub(crate) figures: String,
}

/// All rows, in the order of the table. The same list in the suite and in its parts.
pub(crate) fn rows(place: Where, quick: bool) -> Vec<Row> {
    let small = Scale::small();
    let row = |name, world, kind, scale| Row { name, world, kind, scale };
    let mut rows = vec![
        row("parity with the CPU, one step, masks = prior, float32", 1, Kind::Parity, small),
        row("parity with the CPU, one step, K-means, float32", 1, Kind::Parity, Scale { masks: true, ..small }),
        row("world 1 = no group", 1, Kind::Group, small),
        row("world 2 on one device = one process, 2 lanes", 2, Kind::Group, Scale { lanes: 2, ..small }),
        row("abort while the peer hangs", 2, Kind::Abort, small),
    ];
    let paper = Scale::paper();
    let (base, batches): (Scale, &[usize]) = match (place, quick) {
        (Where::Cpu, true) => (Scale { image_size: 32, masks: true, ..small }, &[8]),
        (Where::Cpu, false) => (Scale { masks: true, ..small }, &[8, 16, 32]),
        (Where::Cuda, true) => (paper, &[32]),
        (Where::Cuda, false) => (paper, &[32, 128, 256]),
    };
    let steps = if quick { 1 } else { 20 };
    for precision in ["float32", "bfloat16"] {
        for &samples in batches {
            rows.push(row("images/s", 1, Kind::Speed(steps), Scale { samples, precision, ..base }));
        }
    }
    if let (Where::Cuda, Some(&samples)) = (place, batches.last()) {
        // The beginning of the curriculum: K-means has most to do.
        let scale = Scale { samples, precision: "bfloat16", ..paper };
        rows.push(row("images/s", 1, Kind::Speed(steps), Scale { k: 100, ..scale }));
    }
    rows
}

impl Row {
    /// Environment of the row's processes.
    pub(crate) fn environment(&self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            Kind::Speed(_) => &[],
            // Parity is about float32; convolutions would round to TF32.
            _ => &[("NVIDIA_TF32_OVERRIDE", "0")],
        }
    }

    /// The row's title, with its sizes.
    pub(crate) fn title(&self) -> String {
        let Scale { backbone, image_size, samples, precision, k, .. } = self.scale;
        match self.kind {
            Kind::Speed(_) => {
                format!("{}, {backbone} at {image_size}, batch {samples}, K {k}, {precision}", self.name)
            }
            _ => self.name.to_owned(),
        }
    }
}

/// Runs one process of a row; rank 0 prints its finding.
pub(crate) fn run_part(arguments: &PartArguments) -> Result<()> {
    let rows = rows(arguments.device, arguments.quick);
    let row = rows.get(arguments.row).context("no such row")?;
    let finding = match row.kind {
        Kind::Parity => parity(row, arguments),
        Kind::Group => group(row, arguments),
        Kind::Abort => abort(row, arguments),
        Kind::Speed(steps) => speed(row, arguments, steps),
    }?;
    if arguments.rank == 0 {
        println!("{}", serde_json::to_string(&finding)?);
    }
    Ok(())
}

fn device(place: Where) -> Result<Device> {
    match place {
        Where::Cpu => Ok(Device::cpu()),
        Where::Cuda => Device::cuda().context("libtorch sees no GPU"),
    }
}

fn engine(row: &Row, device: Device, lanes: Vec<u32>) -> Result<Engine> {
    // The ranks of a row share this machine's processors.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) / row.world;
    let threads = Some(i32::try_from(threads.max(1))?);
    Ok(Engine::new(EngineOptions { job: row.scale.job()?, device: device.into(), lanes, threads })?)
}

fn form(row: &Row, arguments: &PartArguments) -> Result<ProcessGroup> {
    let store: Arc<dyn Store> = Arc::new(FolderStore(arguments.store.clone()));
    Ok(match arguments.device {
        Where::Cpu => {
            let options = GlooOptions { timeout: TIMEOUT, ..GlooOptions::default() };
            ProcessGroup::gloo(store, arguments.rank, row.world, options)?
        }
        Where::Cuda => {
            ProcessGroup::nccl(store, arguments.rank, row.world, NcclOptions { device: 0, timeout: TIMEOUT })?
        }
    })
}

/// Trains some lanes for some steps.
fn train(engine: &mut Engine, scale: &Scale, first: usize, lanes: usize, steps: u64) -> Result<StepOutput> {
    let mut output = None;
    for step in 0..steps {
        let images = Images::new(scale, first, lanes, step)?;
        output = Some(engine.step_host(&images.batch(), &scale.ticket(step))?);
    }
    output.context("no step")
}

fn state(engine: &mut Engine) -> Result<Vec<HostTensor>> {
    let names: Vec<String> = engine.tensor_sizes().into_iter().map(|(name, _)| name).collect();
    Ok(engine.copy_out(&names.iter().map(String::as_str).collect::<Vec<_>>())?)
}

fn floats(tensor: &HostTensor) -> impl Iterator<Item = f64> + '_ {
    tensor.bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
}

/// Biases that a batch norm takes out again, at once or after the predictor's first layer: their gradients are nothing
/// but rounding errors.
fn is_noise(name: &str) -> bool {
    name.ends_with("fc1.bias") || name.ends_with("projector.fc2.bias")
}

/// The largest distance of a tensor from its reference, relative to the reference's norm, and the tensor's name.
fn furthest(got: &[HostTensor], reference: &[HostTensor]) -> Result<(f64, String)> {
    ensure!(got.len() == reference.len(), "{} tensors beside {}", got.len(), reference.len());
    let mut worst = (0.0, "none".to_owned());
    for (a, b) in got.iter().zip(reference).filter(|(a, _)| !is_noise(&a.name)) {
        ensure!(a.name == b.name && a.bytes.len() == b.bytes.len(), "{} beside {}", a.name, b.name);
        let apart = floats(a).zip(floats(b)).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt();
        let norm = floats(b).map(|y| y * y).sum::<f64>().sqrt();
        let distance = apart / norm.max(1e-6);
        if distance.is_nan() || distance > worst.0 {
            worst = (distance, a.name.clone());
        }
    }
    Ok(worst)
}

fn relative(a: f64, b: f64) -> f64 {
    (a - b).abs() / b.abs().max(1e-12)
}

/// The state holds momentum, which after the first step is the learning rate times the gradient: it shows those too.
fn parity(row: &Row, arguments: &PartArguments) -> Result<Finding> {
    let mut outcomes = Vec::new();
    for device in [device(arguments.device)?, Device::cpu()] {
        let mut engine = engine(row, device, vec![0])?;
        let output = train(&mut engine, &row.scale, 0, 1, 1)?;
        outcomes.push((output, state(&mut engine)?));
    }
    let [(got, got_state), (cpu, cpu_state)] = &outcomes[..] else { bail!("two devices were compared") };
    let (distance, name) = furthest(got_state, cpu_state)?;
    let loss = relative(got.lanes[0].loss, cpu.lanes[0].loss);
    let gradient = relative(got.gradient_norm, cpu.gradient_norm);
    let masks = got.lanes[0].mask_digest == cpu.lanes[0].mask_digest;
    Ok(Finding {
        passed: masks && loss <= LOSS && gradient <= LOSS && distance <= STATE,
        figures: format!(
            "loss {loss:.1e}, gradient norm {gradient:.1e}, state {distance:.1e} ({name}), masks {}",
            if masks { "equal" } else { "differ" }
        ),
    })
}

fn group(row: &Row, arguments: &PartArguments) -> Result<Finding> {
    let place = device(arguments.device)?;
    let pg = form(row, arguments)?;
    let rank = arguments.rank;
    let mut member = engine(row, place, vec![u32::try_from(rank)?])?;
    member.attach(Some(pg.clone()))?;
    let started = Instant::now();
    let shared = train(&mut member, &row.scale, rank, 1, STEPS)?;
    pg.barrier()?;
    let seconds = started.elapsed().as_secs_f64();
    if rank > 0 {
        return Ok(Finding { passed: true, figures: String::new() });
    }
    let mut alone = engine(row, place, (0..u32::try_from(row.world)?).collect())?;
    let whole = train(&mut alone, &row.scale, 0, row.world, STEPS)?;
    let loss = relative(shared.lanes[0].loss, whole.lanes[0].loss);
    let gradient = relative(shared.gradient_norm, whole.gradient_norm);
    let (distance, name) = furthest(&state(&mut member)?, &state(&mut alone)?)?;
    Ok(Finding {
        passed: loss <= LOSS && gradient <= LOSS && distance <= STATE,
        figures: format!(
            "step {STEPS}: loss {loss:.1e}, gradient norm {gradient:.1e}, state {distance:.1e} ({name}); {seconds:.1} s"
        ),
    })
}

/// Rank 1 joins one collective and no other; rank 0 waits for it in the next and aborts.
fn abort(row: &Row, arguments: &PartArguments) -> Result<Finding> {
    let pg = form(row, arguments)?;
    let store = FolderStore(arguments.store.clone());
    pg.barrier()?;
    if arguments.rank > 0 {
        // Stays until rank 0 is done, with its sockets open.
        store.get("done", TIMEOUT).ok();
        return Ok(Finding { passed: true, figures: String::new() });
    }
    let waiting = {
        let pg = pg.clone();
        std::thread::spawn(move || pg.barrier())
    };
    // Long enough to be inside; an abort that comes earlier passes all the same.
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    pg.abort();
    let result = waiting.join().map_err(|_| anyhow::anyhow!("the waiting thread panicked"))?;
    let refused = result.is_err() || pg.check("barrier").is_err();
    let seconds = started.elapsed().as_secs_f64();
    store.set("done", b"").map_err(anyhow::Error::msg)?;
    Ok(Finding { passed: refused && seconds < 5.0, figures: format!("woke after {:.1} ms", seconds * 1e3) })
}

fn speed(row: &Row, arguments: &PartArguments, steps: u32) -> Result<Finding> {
    let mut engine = engine(row, device(arguments.device)?, vec![0])?;
    let images = Images::new(&row.scale, 0, 1, 0)?;
    let warm_up = if arguments.quick { 1 } else { 3 };
    let (mut started, mut timings) = (Instant::now(), Vec::new());
    for step in 0..warm_up + u64::from(steps) {
        if step == warm_up {
            started = Instant::now();
        }
        timings = engine.step_host(&images.batch(), &row.scale.ticket(step))?.timings;
    }
    let rate = f64::from(steps) * row.scale.samples as f64 / started.elapsed().as_secs_f64();
    let phases: Vec<_> = timings.iter().map(|(phase, seconds)| format!("{phase} {:.1}", seconds * 1e3)).collect();
    Ok(Finding { passed: rate.is_finite(), figures: format!("{rate:.1}; ms: {}", phases.join(", ")) })
}
