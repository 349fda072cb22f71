//! Jobs and images made up for the rows: the same on every machine.

use anyhow::Result;
use r2o_engine::StepTicket;
use r2o_engine::host::HostBatch;
use r2o_types::{JobSpec, Keyed, TrainJob};

/// Regions along a side of the made-up prior.
const CELLS: usize = 4;

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
        }
    }

    /// All lanes share batch statistics.
    pub(crate) fn job(&self) -> Result<JobSpec> {
        let Self { backbone, image_size, hidden, lanes, samples, precision, masks } = self;
        let text = format!(
            "apiVersion: r2o.dev/v1\nkind: TrainJob\nmetadata: {{name: gpu-suite}}\nspec:\n  epochs: 10\n  \
             data: {{url: \"file:///nowhere\", imageSize: {image_size}}}\n  \
             batch: {{lanes: {lanes}, samplesPerLane: {samples}, normGroupLanes: {lanes}}}\n  \
             method:\n    prior: {{kind: slic, segments: 16}}\n    maskPrediction: {{enabled: {masks}}}\n    \
             curriculum: {{kind: constant, k: {k}}}\n  \
             model:\n    backbone: {backbone}\n    projector: {{hidden: {hidden}, output: 64}}\n    \
             predictor: {{hidden: {hidden}}}\n  \
             precision: {precision}\n",
            k = Self::k(),
        );
        Ok(TrainJob::parse(&text)?.spec)
    }

    pub(crate) fn k() -> u32 {
        4
    }

    pub(crate) fn ticket(step: u64) -> StepTicket {
        StepTicket { step, epoch: 0, k: Self::k(), tau: 0.99, learning_rate: 0.1 }
    }
}

/// Images of some lanes.
pub(crate) struct Images {
    size: usize,
    images: usize,
    raw: Vec<f32>,
    view1: Vec<f32>,
    view2: Vec<f32>,
    prior: Vec<u8>,
    boxes1: Vec<f32>,
    boxes2: Vec<f32>,
    flips: Vec<bool>,
}

impl Images {
    /// The images of `lanes` lanes from `first` in a step.
    pub(crate) fn new(scale: &Scale, first: usize, lanes: usize, step: u64) -> Self {
        let (size, per_lane) = (scale.image_size, scale.samples);
        let images = lanes * per_lane;
        let numbers = |what: u64, each: usize| -> Vec<f32> {
            let lane = |lane: usize| {
                let mut keyed = Keyed::new("gpu-suite", &[what, step, lane as u64]);
                (0..per_lane * each).map(move |_| keyed.uniform() as f32).collect::<Vec<_>>()
            };
            (first..first + lanes).flat_map(lane).collect()
        };
        let pixels = |what| -> Vec<f32> { numbers(what, 3 * size * size).iter().map(|v| v * 4.0 - 2.0).collect() };
        let boxes = |what| -> Vec<f32> {
            let corners = numbers(what, 2);
            corners.chunks_exact(2).flat_map(|c| [c[0] * 0.4, c[1] * 0.4, c[0] * 0.4 + 0.6, c[1] * 0.4 + 0.6]).collect()
        };
        let cell = |at: usize| (at / size % size * CELLS / size * CELLS + at % size * CELLS / size) as u8;
        Self {
            size,
            images,
            raw: pixels(0),
            view1: pixels(1),
            view2: pixels(2),
            prior: (0..images * size * size).map(cell).collect(),
            boxes1: boxes(3),
            boxes2: boxes(4),
            flips: numbers(5, 1).iter().map(|v| *v < 0.5).collect(),
        }
    }

    pub(crate) fn batch(&self) -> HostBatch<'_> {
        HostBatch {
            words: &[],
            images: self.images,
            size: self.size,
            raw: &self.raw,
            view1: &self.view1,
            view2: &self.view2,
            prior: &self.prior,
            boxes1: &self.boxes1,
            boxes2: &self.boxes2,
            flips1: &self.flips,
            flips2: &self.flips,
            audit: true,
        }
    }
}
