//! Times convolution and batch norm, forward and backward, by batch size, precision and memory format, and batch norm
//! over groups of lanes beside torch's own. Prints a Markdown table.
//!
//! `layers [cuda|cpu] [--quick]`; exit codes: 0 done, 1 failed, 3 not run: needs a GPU.

use std::process::ExitCode;
use std::time::Instant;

use r2o_c10d::{NormLayout, batch_norm};
use tch::{Cuda, Device, Kind, Tensor};

const CHANNELS: i64 = 64;

struct Setup {
    device: Device,
    batches: Vec<i64>,
    side: i64,
    steps: u32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|a| a == "--quick");
    let setup = if arguments.iter().any(|a| a == "cpu") {
        let side = if quick { 28 } else { 56 };
        Setup { device: Device::Cpu, batches: vec![8, 16], side, steps: if quick { 2 } else { 10 } }
    } else {
        let batches = if quick { vec![64] } else { vec![32, 64, 128, 256] };
        Setup { device: Device::Cuda(0), batches, side: 56, steps: if quick { 5 } else { 50 } }
    };
    if setup.device != Device::Cpu && !(r2o_c10d::CUDA && Cuda::is_available()) {
        println!("layers: not run: needs a GPU");
        return ExitCode::from(3);
    }
    println!("| layers: {CHANNELS} channels at {0}x{0} | batch | precision | memory format | images/s |", setup.side);
    println!("| --- | --- | --- | --- | --- |");
    for &batch in &setup.batches {
        for kind in [Kind::Float, Kind::BFloat16] {
            for channels_last in [false, true] {
                for norm in [Norm::Torch, Norm::OneGroup, Norm::TwoGroups] {
                    match time(&setup, batch, kind, channels_last, norm) {
                        Ok(rate) => print_row(batch, kind, channels_last, norm, rate),
                        Err(error) => {
                            eprintln!("{error}");
                            return ExitCode::from(1);
                        }
                    }
                }
            }
        }
    }
    ExitCode::SUCCESS
}

#[derive(Debug, Clone, Copy)]
enum Norm {
    /// torch's batch norm over everything.
    Torch,
    /// One group of lanes, wholly here.
    OneGroup,
    /// Two groups of lanes.
    TwoGroups,
}

fn print_row(batch: i64, kind: Kind, channels_last: bool, norm: Norm, rate: f64) {
    let what = match norm {
        Norm::Torch => "conv 3x3 + torch's batch norm",
        Norm::OneGroup => "conv 3x3 + one group of lanes",
        Norm::TwoGroups => "conv 3x3 + two groups of lanes",
    };
    let precision = if kind == Kind::Float { "float32" } else { "bfloat16" };
    let format = if channels_last { "channels_last" } else { "contiguous" };
    println!("| {what} | {batch} | {precision} | {format} | {rate:.0} |");
}

fn time(
    setup: &Setup,
    batch: i64,
    kind: Kind,
    channels_last: bool,
    norm: Norm,
) -> Result<f64, Box<dyn std::error::Error>> {
    let on = (Kind::Float, setup.device);
    let place = |t: Tensor| {
        let t = t.to_kind(kind);
        if channels_last { t.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]) } else { t }
    };
    let x = place(Tensor::randn([batch, CHANNELS, setup.side, setup.side], on));
    let filter = place(Tensor::randn([CHANNELS, CHANNELS, 3, 3], on) * 0.05).set_requires_grad(true);
    let weight = Tensor::ones([CHANNELS], on).set_requires_grad(true);
    let bias = Tensor::zeros([CHANNELS], on).set_requires_grad(true);
    let (mean, var) = (Tensor::zeros([CHANNELS], on), Tensor::ones([CHANNELS], on));
    let layout = NormLayout::new(2, if matches!(norm, Norm::TwoGroups) { 1 } else { 2 }, &[0, 1]);
    let step = || -> Result<(), Box<dyn std::error::Error>> {
        let y = x.f_conv2d(&filter, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)?;
        let y = match norm {
            Norm::Torch => {
                y.f_batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&var), true, 0.1, 1e-5, true)?
            }
            _ => batch_norm(&y, &weight, &bias, &mean, &var, &layout, None, 0.1, 1e-5)?,
        };
        y.f_relu()?.f_sum(Kind::Float)?.f_backward()?;
        Ok(())
    };
    // Reads a gradient, so that the device is done.
    let settle = || bias.grad().to_device(Device::Cpu);
    step()?;
    step()?;
    let _ = settle();
    let started = Instant::now();
    for _ in 0..setup.steps {
        step()?;
    }
    let _ = settle();
    Ok(f64::from(setup.steps) * batch as f64 / started.elapsed().as_secs_f64())
}
