//! Tensors that are a function of their name, the same as tests/parity/tensors.py and reference.py make.

use std::collections::HashMap;

use r2o_engine::{Engine, EngineOptions};
use r2o_types::TrainJob;

use super::files::Values;

const SIZE: usize = 96;
const IMAGES: usize = 4;
const REGIONS: usize = 49;

/// 64-bit numbers of a name: SplitMix64 of FNV-1a.
fn hashes(name: &str, count: usize) -> impl Iterator<Item = u64> {
    let state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (1..=count as u64).map(move |index| {
        let mut z = state.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

pub(crate) fn uniform(name: &str, shape: &[usize], low: f64, high: f64) -> Vec<f32> {
    let fraction = |hash: u64| (hash >> 40) as f64 / f64::from(1 << 24);
    hashes(name, shape.iter().product()).map(|hash| (low + (high - low) * fraction(hash)) as f32).collect()
}

pub(crate) fn signs(name: &str, count: usize) -> Vec<f64> {
    hashes(name, count).map(|hash| if hash & 1 == 1 { -1.0 } else { 1.0 }).collect()
}

pub(crate) fn job(backbone: &str) -> String {
    serde_json::json!({
        "apiVersion": "r2o.dev/v1",
        "kind": "TrainJob",
        "metadata": {"name": "parity"},
        "spec": {
            "data": {"url": "unused", "imageSize": SIZE},
            "batch": {"lanes": 1, "samplesPerLane": IMAGES},
            "method": {"prior": {"kind": "slic", "segments": REGIONS}},
            "model": {
                "backbone": backbone,
                "projector": {"hidden": 64, "output": 16},
                "predictor": {"hidden": 64},
            },
        },
    })
    .to_string()
}

/// Parameters and buffers without momentum; names and shapes are the engine's. reference.py says why so.
pub(crate) fn state(backbone: &str) -> HashMap<String, Values> {
    let job = TrainJob::parse(&job(backbone)).unwrap().spec;
    let options = EngineOptions { job, device: r2o_engine::host::Device::cpu().into(), lanes: vec![0], threads: None };
    let shapes = Engine::new(options).unwrap().state();
    let closing = if backbone == "resnet50" { ".bn3." } else { ".bn2." };
    let parameters = shapes.into_iter().filter(|(name, _)| !name.starts_with("momentum."));
    parameters
        .map(|(name, tensor)| {
            let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
            let values = Values::f32(&shape, &values(&name, &shape, closing));
            (name, values)
        })
        .collect()
}

fn values(name: &str, shape: &[usize], closing: &str) -> Vec<f32> {
    let kept_away = name.starts_with("online.backbone.") && !(closing == ".bn2." && name.contains(".layer4."));
    let closes = name.contains(".layer") && (name.contains(closing) || name.contains(".downsample.1."));
    let between = |(low, high)| uniform(name, shape, low, high);
    if name.ends_with("running_mean") {
        between((-0.1, 0.1))
    } else if name.ends_with("running_var") {
        between((0.5, 1.5))
    } else if shape.len() > 1 {
        let limit = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        between((-limit, limit))
    } else if name.ends_with("weight") {
        between(match (kept_away, closes) {
            (true, true) => (0.2, 0.4),
            (true, false) => (0.1, 0.2),
            _ => (0.5, 1.5),
        })
    } else {
        let shift = |v: f32| match (kept_away, closes) {
            (true, true) => v.abs() + 0.4,
            (true, false) => v + 0.4_f32.copysign(v),
            _ => v,
        };
        between((-0.2, 0.2)).into_iter().map(shift).collect()
    }
}

/// Everything but the centres.
pub(crate) fn batch(salt: i64, step: i64) -> HashMap<String, Values> {
    let name = format!("salt {salt} step {step} ");
    let mut batch = HashMap::new();
    for view in ["raw", "view1", "view2"] {
        let coarse = uniform(&format!("{name}{view}"), &[IMAGES, 3, SIZE / 8, SIZE / 8], -2.0, 2.0);
        let mut values = uniform(&format!("{name}{view} noise"), &[IMAGES, 3, SIZE, SIZE], -0.5, 0.5);
        for (index, value) in values.iter_mut().enumerate() {
            let (plane, y, x) = (index / (SIZE * SIZE), index / SIZE % SIZE, index % SIZE);
            *value += coarse[(plane * (SIZE / 8) + y / 8) * (SIZE / 8) + x / 8];
        }
        batch.insert(view.to_owned(), Values::f32(&[IMAGES, 3, SIZE, SIZE], &values));
    }
    batch.insert("prior".to_owned(), Values::i64(&[IMAGES, SIZE, SIZE], &prior(&name)));
    for view in [1, 2] {
        let corner = uniform(&format!("{name}corner{view}"), &[IMAGES, 2], 0.0, 0.4);
        let extent = uniform(&format!("{name}extent{view}"), &[IMAGES, 2], 0.1, 0.6);
        let boxes: Vec<f32> = (0..IMAGES)
            .flat_map(|i| {
                let (c, e) = (&corner[2 * i..2 * i + 2], &extent[2 * i..2 * i + 2]);
                [c[0], c[1], c[0] + e[0], c[1] + e[1]]
            })
            .collect();
        batch.insert(format!("boxes{view}"), Values::f32(&[IMAGES, 4], &boxes));
        let flips = uniform(&format!("{name}flip{view}"), &[IMAGES], 0.0, 1.0);
        let flips: Vec<f32> = flips.iter().map(|&f| if f < 0.5 { 1.0 } else { 0.0 }).collect();
        batch.insert(format!("flips{view}"), Values::f32(&[IMAGES], &flips));
    }
    batch
}

/// Cells of a 7 x 7 grid whose lines are shifted image by image.
fn prior(name: &str) -> Vec<i64> {
    let edges = uniform(&format!("{name}prior"), &[IMAGES, 2, 6], -0.5, 0.5);
    let cell = |image: usize, axis: usize, pixel: usize| {
        let lines = &edges[(image * 2 + axis) * 6..][..6];
        let scale = (SIZE as f64 / 7.0) as f32;
        let beyond = |(i, edge): (usize, &f32)| pixel as f32 + 0.5 > ((i + 1) as f32 + edge) * scale;
        lines.iter().enumerate().filter(|line| beyond(*line)).count() as i64
    };
    let mut labels = Vec::with_capacity(IMAGES * SIZE * SIZE);
    for image in 0..IMAGES {
        let columns: Vec<i64> = (0..SIZE).map(|x| cell(image, 1, x)).collect();
        for y in 0..SIZE {
            let row = cell(image, 0, y);
            labels.extend(columns.iter().map(|column| row * 7 + column));
        }
    }
    labels
}
