//! Jobs and images made up for the rows: the same on every machine.

use anyhow::Result;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use r2o_engine::StepTicket;
use r2o_engine::host::{HostBatch, Pinned};
use r2o_types::{Dtype, JobSpec, Keyed, TrainJob};

/// The size of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) backbone: &'static str,
    pub(crate) image_size: usize,
    pub(crate) hidden: usize,
    pub(crate) lanes: usize,
    pub(crate) samples: usize,
    pub(crate) precision: &'static str,
    /// K-means runs; otherwise masks are the prior.
    pub(crate) masks: bool,
    /// Regions along a side of the made-up prior.
    pub(crate) cells: usize,
    pub(crate) k: u32,
}

impl Scale {
    /// Small enough for a CPU.
    pub(crate) fn small() -> Self {
        Self {
            backbone: "resnet18",
            image_size: 64,
            hidden: 64,
            lanes: 1,
            samples: 8,
            precision: "float32",
            masks: false,
            cells: 4,
            k: 4,
        }
    }

    /// The paper's network at the paper's size.
    pub(crate) fn paper() -> Self {
        Self { backbone: "resnet50", image_size: 224, hidden: 4096, masks: true, cells: 10, ..Self::small() }
    }

    /// All lanes share batch statistics.
    pub(crate) fn job(&self) -> Result<JobSpec> {
        let Self { backbone, image_size, hidden, lanes, samples, precision, masks, k, .. } = self;
        let text = format!(
            "apiVersion: r2o.dev/v1\nkind: TrainJob\nmetadata: {{name: gpu-suite}}\nspec:\n  epochs: 10\n  \
             data: {{url: \"file:///nowhere\", imageSize: {image_size}}}\n  \
             batch: {{lanes: {lanes}, samplesPerLane: {samples}, normGroupLanes: {lanes}}}\n  \
             method:\n    prior: {{kind: slic, segments: {segments}}}\n    maskPrediction: {{enabled: {masks}}}\n    \
             curriculum: {{kind: constant, k: {k}}}\n  \
             model:\n    backbone: {backbone}\n    projector: {{hidden: {hidden}, output: 64}}\n    \
             predictor: {{hidden: {hidden}}}\n  \
             precision: {precision}\n",
            segments = self.cells * self.cells,
        );
        Ok(TrainJob::parse(&text)?.spec)
    }

    pub(crate) fn ticket(&self, step: u64) -> StepTicket {
        StepTicket { step, epoch: 0, k: self.k, tau: 0.99, learning_rate: 0.1 }
    }
}

fn nearest(values: &[f32]) -> Vec<bf16> {
    let mut nearest = vec![bf16::ZERO; values.len()];
    nearest.convert_from_f32_slice(values);
    nearest
}

/// Numbers' bytes, where a GPU reads them by itself if there is one, as the loader's lie.
enum Pixels {
    Ordinary(Vec<u64>, usize),
    Locked(Pinned),
}

impl Pixels {
    fn new(bytes: &[u8]) -> Self {
        match Pinned::new(bytes.len()) {
            Ok(mut pinned) => {
                pinned.bytes_mut().copy_from_slice(bytes);
                Self::Locked(pinned)
            }
            Err(_) => {
                let mut words = vec![0_u64; bytes.len().div_ceil(size_of::<u64>())];
                bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
                Self::Ordinary(words, bytes.len())
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Ordinary(words, length) => &bytemuck::cast_slice(words)[..*length],
            Self::Locked(pinned) => pinned.bytes(),
        }
    }
}

/// Images of some lanes.
pub(crate) struct Images {
    size: usize,
    images: usize,
    dtype: Dtype,
    raw: Pixels,
    view1: Pixels,
    view2: Pixels,
    prior: Vec<u8>,
    boxes1: Vec<f32>,
    boxes2: Vec<f32>,
    flips: Vec<bool>,
}

impl Images {
    /// The images of `lanes` lanes from `first` in a step.
    pub(crate) fn new(scale: &Scale, first: usize, lanes: usize, step: u64) -> Result<Self> {
        let (size, per_lane) = (scale.image_size, scale.samples);
        let images = lanes * per_lane;
        let numbers = |what: u64, each: usize| -> Vec<f32> {
            let lane = |lane: usize| {
                let mut keyed = Keyed::new("gpu-suite", &[what, step, lane as u64]);
                (0..per_lane * each).map(move |_| keyed.uniform() as f32).collect::<Vec<_>>()
            };
            (first..first + lanes).flat_map(lane).collect()
        };
        let dtype = scale.job()?.pixel_dtype();
        let pixels = |what| {
            let values: Vec<f32> = numbers(what, 3 * size * size).iter().map(|v| v * 4.0 - 2.0).collect();
            match dtype {
                Dtype::Float32 => Pixels::new(bytemuck::cast_slice(&values)),
                Dtype::Bfloat16 => Pixels::new(bytemuck::cast_slice(&nearest(&values))),
                Dtype::Uint8 => Pixels::new(&values.iter().map(|v| ((v + 2.0) * 63.75) as u8).collect::<Vec<u8>>()),
            }
        };
        let boxes = |what| -> Vec<f32> {
            let corners = numbers(what, 2);
            corners.chunks_exact(2).flat_map(|c| [c[0] * 0.4, c[1] * 0.4, c[0] * 0.4 + 0.6, c[1] * 0.4 + 0.6]).collect()
        };
        let cells = scale.cells;
        let cell = |at: usize| (at / size % size * cells / size * cells + at % size * cells / size) as u8;
        Ok(Self {
            size,
            images,
            dtype,
            raw: pixels(0),
            view1: pixels(1),
            view2: pixels(2),
            prior: (0..images * size * size).map(cell).collect(),
            boxes1: boxes(3),
            boxes2: boxes(4),
            flips: numbers(5, 1).iter().map(|v| *v < 0.5).collect(),
        })
    }

    pub(crate) fn batch(&self) -> HostBatch<'_> {
        HostBatch {
            words: &[],
            images: self.images,
            size: self.size,
            dtype: self.dtype,
            raw: self.raw.bytes(),
            view1: self.view1.bytes(),
            view2: self.view2.bytes(),
            prior: &self.prior,
            boxes1: &self.boxes1,
            boxes2: &self.boxes2,
            flips1: &self.flips,
            flips2: &self.flips,
            audit: true,
        }
    }
}
