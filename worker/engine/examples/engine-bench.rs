//! Measures the engine beside tests/parity/bench_step.py, bench_kmeans.py and bench_checkpoint.py: `engine-bench
//! step|kmeans|checkpoint` prints JSON lines `{"name", "value", "unit"}`.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use r2o_aten::{Start, kmeans};
use r2o_engine::{Engine, EngineOptions, StepBatch, StepTicket, host};
use r2o_types::{Keyed, Precision, TrainJob};
use tch::{Kind, Tensor};

const THREADS: i32 = 2;
const CASES: [(&str, i64, i64); 2] = [("resnet18", 96, 32), ("resnet50", 96, 16)];
const STEPS: usize = 3;
const K: u32 = 16;
const CELLS: i64 = 10;

const POINTS: i64 = 3200;
const CHANNELS: i64 = 1024;
const GROUPS: i64 = 60;
const RUNS: u64 = 5;

fn main() -> Result<()> {
    tch::set_num_threads(THREADS);
    match std::env::args().nth(1).as_deref() {
        Some("step") => steps(),
        Some("kmeans") => clusters(),
        Some("checkpoint") => checkpoint(),
        _ => bail!("usage: engine-bench step|kmeans|checkpoint"),
    }
}

fn print(name: &str, seconds: f64) {
    println!("{}", serde_json::json!({"name": name, "value": seconds, "unit": "s"}));
}

fn steps() -> Result<()> {
    for (backbone, size, images) in CASES {
        let precisions: &[_] = if r2o_aten::has_fast_bfloat16() {
            &[Precision::Float32, Precision::Bfloat16]
        } else {
            &[Precision::Float32]
        };
        for &precision in precisions {
            step(backbone, size, images, precision)?;
        }
    }
    Ok(())
}

/// The engine of one lane on the CPU.
fn engine(backbone: &str, size: i64, images: i64, precision: Precision) -> Result<Engine> {
    let text = serde_json::json!({
        "apiVersion": "r2o.dev/v1", "kind": "TrainJob", "metadata": {"name": "bench"},
        "spec": {
            "data": {"url": "unused", "imageSize": size},
            "batch": {"lanes": 1, "samplesPerLane": images},
            "model": {"backbone": backbone},
        },
    });
    let mut job = TrainJob::parse(&text.to_string())?.spec;
    job.precision = precision;
    let device = host::Device::cpu().into();
    Ok(Engine::new(EngineOptions { job, device, lanes: vec![0], threads: Some(THREADS) })?)
}

/// For how long an asynchronous checkpoint of the whole state holds training, and what a step takes meanwhile.
fn checkpoint() -> Result<()> {
    let (backbone, size, images) = CASES[1];
    let mut engine = engine(backbone, size, images, Precision::Float32)?;
    let batch = batch(size, images);
    let names: Vec<String> = engine.tensor_sizes().into_iter().map(|(name, _)| name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut holds, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..=2 * STEPS as u64 {
        let ticket = StepTicket { step, epoch: 0, k: K, tau: 0.99, learning_rate: 0.1 };
        let copies = step.is_multiple_of(2);
        let started = Instant::now();
        let copy = copies.then(|| engine.begin_copy(&names)).transpose()?;
        let output = engine.step(&batch, &ticket)?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(copy) = copy {
            let hold = output.timings.iter().find(|(phase, _)| *phase == "checkpoint_hold");
            holds.push(hold.context("the step does not say for how long it was held")?.1);
            with.push(seconds);
            drop(copy.wait()?);
        } else {
            without.push(seconds);
        }
    }
    // The first step makes its memory.
    (_, _) = (holds.remove(0), with.remove(0));
    print("checkpoint hold", median(holds));
    print("step with a checkpoint", median(with));
    print("step without", median(without));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn step(backbone: &str, size: i64, images: i64, precision: Precision) -> Result<()> {
    let mut engine = engine(backbone, size, images, precision)?;
    let batch = batch(size, images);
    let mut measured = Vec::new();
    for step in 0..=STEPS as u64 {
        let ticket = StepTicket { step, epoch: 0, k: K, tau: 0.99, learning_rate: 0.1 };
        let started = Instant::now();
        let output = engine.step(&batch, &ticket)?;
        measured.push((started.elapsed().as_secs_f64(), output.timings));
    }
    measured.remove(0);
    measured.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (seconds, phases) = measured.get(STEPS / 2).context("no step")?;
    let word = if precision == Precision::Float32 { "float32" } else { "bfloat16" };
    print(&format!("step {backbone}@{size} {word}"), *seconds);
    for (phase, seconds) in phases {
        print(&format!("{backbone}@{size} {phase}"), *seconds);
    }
    Ok(())
}

fn batch(size: i64, images: i64) -> StepBatch {
    let image = |name| uniform(name, &[images, 3, size, size], -2.0, 2.0);
    let cell = (Tensor::arange(size, (Kind::Int64, tch::Device::Cpu)) * CELLS).divide_scalar_mode(size, "floor");
    let prior = cell.unsqueeze(1) * CELLS + cell.unsqueeze(0);
    let boxes = |view: u32| {
        let corner = uniform(&format!("corner{view}"), &[images, 2], 0.0, 0.4);
        let extent = uniform(&format!("extent{view}"), &[images, 2], 0.1, 0.6);
        Tensor::cat(&[&corner, &(&corner + extent)], 1)
    };
    let flips = |view: u32| uniform(&format!("flip{view}"), &[images], 0.0, 1.0).lt(0.5);
    StepBatch {
        raw: image("raw"),
        view1: image("view1"),
        view2: image("view2"),
        prior: prior.expand([images, size, size], false).contiguous(),
        boxes1: boxes(1),
        boxes2: boxes(2),
        flips1: flips(1),
        flips2: flips(2),
        centres: None,
        audit: false,
    }
}

fn clusters() -> Result<()> {
    let which = Tensor::arange(POINTS, (Kind::Int64, tch::Device::Cpu)).remainder(GROUPS);
    let points = uniform("groups", &[GROUPS, CHANNELS], 0.0, 1.0).index_select(0, &which)
        + uniform("noise", &[POINTS, CHANNELS], -1.0, 1.0);
    let points = (&points / points.norm_scalaropt_dim(2.0, [1], true)).view([1, 32, POINTS / 32, CHANNELS]);
    let regions = Tensor::from_slice(&[POINTS / 32]);
    for clusters in [128_i64, 4] {
        let candidates = 2 + (clusters as f64).ln() as i64;
        let mut total = 0.0;
        for run in 0..=RUNS {
            let mut random = Keyed::new("bench", &[run]);
            let uniforms: Vec<f64> = (0..clusters * candidates).map(|_| random.uniform()).collect();
            let uniforms = Tensor::from_slice(&uniforms).view([1, clusters, candidates]);
            let started = Instant::now();
            let found = kmeans(&points, &regions, Start::PlusPlus(&uniforms), clusters, 200, 1e-6)?;
            if run > 0 {
                total += started.elapsed().as_secs_f64();
                eprintln!("K={clusters}: {} iterations", found.iterations.int64_value(&[0]));
            }
        }
        print(&format!("kmeans k{clusters}"), total / RUNS as f64);
    }
    Ok(())
}

/// Values that are a function of the name, as tests/parity/tensors.py makes them.
fn uniform(name: &str, shape: &[i64], low: f64, high: f64) -> Tensor {
    let state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let values: Vec<f32> = (1..=shape.iter().product::<i64>().unsigned_abs())
        .map(|index| {
            let mut z = state.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let fraction = ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24);
            (low + (high - low) * fraction) as f32
        })
        .collect();
    Tensor::from_slice(&values).view(shape)
}
