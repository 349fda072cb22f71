//! One step of one lane from files to a file: an aid for debugging, and for comparison with other implementations.
//!
//! The state holds `online.backbone.*`, `online.projector.{fc1,bn,fc2}.*`, `predictor.{fc1,bn,fc2}.*`,
//! `target.backbone.*`, `target.projector.*` with torchvision's names inside the backbone (`conv1.weight`,
//! `layer1.0.bn1.running_mean`, ...), and optionally `momentum.<parameter>`. The batch holds `raw`, `view1`, `view2` (f32
//! B,3,H,W, normalised), `prior` (integers B,H,W), `boxes1`, `boxes2` (f32 B,4: y0, x0, y1, x1 in [0, 1]), `flips1`,
//! `flips2` (f32 or bool B), and optionally `centres` (f32 K,C: K-means' start).
//!
//! The output holds `loss`, `labels` (i64 B,S), `masks` (i64 B,M,M), `q` and `z` (f32 2B,K,D as they enter the loss, before
//! they are normalised; `q` is [view 1; view 2] and `z` [view 2; view 1], so that the same row of both belongs together),
//! `grad.<parameter>`, and the new state under its names.

mod files;

use std::path::PathBuf;

use r2o_types::{Prior, TrainJob};
use tch::{Device, Kind, Tensor};

use crate::engine::Engine;
use crate::error::{EngineError, StepError};
use crate::step::{StepBatch, StepTicket};
use crate::watch::Stopwatch;
use crate::weights::MemoryFormat;
pub use files::FileError;
use files::Tensors;

/// Files and clock of the step.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenArgs {
    /// A job; its lanes and samples per lane do not matter, the batch is one lane.
    pub config: PathBuf,
    /// The state before the step, safetensors.
    pub state: PathBuf,
    /// The batch, safetensors.
    pub batch: PathBuf,
    /// Clusters; above 128 the prior's regions are the masks.
    pub k: u32,
    /// EMA momentum of the target network.
    pub tau: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Where the results go, safetensors.
    pub out: PathBuf,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// A file cannot be read, written, or is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The job is not valid.
    #[error("{}", path.display())]
    Job {
        /// The file.
        path: PathBuf,
        /// Its faults.
        source: r2o_types::SpecErrors,
    },
    /// An argument is impossible.
    #[error("{name}: {reason}")]
    Argument {
        /// Its name.
        name: &'static str,
        /// What would be possible.
        reason: String,
    },
    /// The state does not fit the job's model.
    #[error("{}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: EngineError,
    },
    /// The engine cannot be made.
    #[error("cannot set up the model")]
    Engine(#[from] EngineError),
    /// The step failed.
    #[error("the step failed")]
    Step(#[from] StepError),
    /// libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] tch::TchError),
}

/// Runs the step.
///
/// # Errors
/// When a file or an argument is not as described above, by its name; or the step fails.
pub fn run(args: &GoldenArgs) -> Result<(), GoldenError> {
    check_clock(args)?;
    let text = files::read_text(&args.config)?;
    let job = TrainJob::parse(&text).map_err(|source| GoldenError::Job { path: args.config.clone(), source })?;
    let state = Tensors::read(&args.state)?;
    let mut input = Tensors::read(&args.batch)?;
    let batch = batch(&mut input, args)?;

    let mut spec = job.spec;
    let images = batch.raw.size();
    spec.batch.samples_per_lane = images[0] as u32;
    spec.data.image_size = images[2] as u32;
    if matches!(spec.method.prior, Prior::None {}) && batch.prior.max().int64_value(&[]) > 0 {
        let reason = "has several regions, but the job's prior is none".to_owned();
        return Err(FileError::tensor(&args.batch, "prior", reason).into());
    }
    // PyTorch's own format, so that rounding is alike: an activation near 0 that falls on the other side of a ReLU changes
    // gradients by more than any tolerance.
    let mut engine = Engine::single(spec, Device::Cpu, MemoryFormat::Contiguous)?;
    engine.load_state(&state.tensors).map_err(|source| GoldenError::State { path: args.state.clone(), source })?;
    let ticket = StepTicket { step: 0, epoch: 0, k: args.k, tau: args.tau, learning_rate: args.learning_rate };
    engine.check(&batch, &ticket)?;
    let (_, forward) = engine.advance(&batch, &[], &ticket, Stopwatch::new(batch.raw.device()))?;

    let rows = |t: &Tensor| {
        let size = t.size();
        t.detach().reshape([2 * size[2], size[3], size[4]])
    };
    let mut out = vec![
        ("loss".to_owned(), forward.losses.detach().squeeze()),
        ("labels".to_owned(), forward.masks.labels.shallow_clone()),
        ("masks".to_owned(), forward.masks.map.shallow_clone()),
        ("q".to_owned(), rows(&forward.predictions)),
        ("z".to_owned(), rows(&forward.projections)),
    ];
    out.extend(engine.gradients()?);
    out.extend(engine.state());
    Ok(files::write(&args.out, &out)?)
}

fn check_clock(args: &GoldenArgs) -> Result<(), GoldenError> {
    let refuse = |name, reason: &str| Err(GoldenError::Argument { name, reason: reason.to_owned() });
    if args.k == 0 {
        return refuse("--k", "must be 1 or more");
    }
    if !(0.0..=1.0).contains(&args.tau) {
        return refuse("--tau", "must be from 0 to 1");
    }
    if !(args.learning_rate.is_finite() && args.learning_rate >= 0.0) {
        return refuse("--lr", "must be 0 or more");
    }
    Ok(())
}

/// Takes the batch apart; every refusal names the tensor.
fn batch(input: &mut Tensors, args: &GoldenArgs) -> Result<StepBatch, GoldenError> {
    let raw = input.take("raw", &[Kind::Float])?;
    let size = raw.size();
    let wrong = |name: &str, reason: String| GoldenError::File(FileError::tensor(&args.batch, name, reason));
    if size.len() != 4 || size[0] == 0 || size[1] != 3 || size[2] != size[3] || size[2] == 0 || size[2] % 32 != 0 {
        return Err(wrong("raw", format!("is {size:?}, expected (B, 3, s, s) with s a multiple of 32")));
    }
    let integers = [Kind::Int64, Kind::Int, Kind::Int16, Kind::Uint8];
    let prior = input.take("prior", &integers)?.to_kind(Kind::Int64);
    if prior.size() != [size[0], size[2], size[2]] {
        return Err(wrong("prior", format!("is {:?}, expected {:?}", prior.size(), [size[0], size[2], size[2]])));
    }
    let (lowest, highest) = (prior.min().int64_value(&[]), prior.max().int64_value(&[]));
    if lowest < 0 || highest >= size[2] * size[2] {
        return Err(wrong(
            "prior",
            format!("has labels from {lowest} to {highest}, expected from 0 to below {}", size[2] * size[2]),
        ));
    }
    let centres = match input.tensors.contains_key("centres") {
        true => Some(input.take("centres", &[Kind::Float])?.unsqueeze(0)),
        false => None,
    };
    if let Some(centres) = &centres
        && (centres.dim() != 3 || centres.size()[1] != i64::from(args.k))
    {
        return Err(wrong(
            "centres",
            format!("is {:?}, expected (K = {}, channels of C4)", &centres.size()[1..], args.k),
        ));
    }
    let mut boxes = |name| {
        let boxes = input.take(name, &[Kind::Float])?;
        let (lowest, highest) = (boxes.min().double_value(&[]), boxes.max().double_value(&[]));
        if !(lowest >= 0.0 && highest <= 1.0) {
            return Err(wrong(name, format!("has values from {lowest} to {highest}, expected from 0 to 1")));
        }
        Ok(boxes)
    };
    let (boxes1, boxes2) = (boxes("boxes1")?, boxes("boxes2")?);
    let mut flips =
        |name| input.take(name, &[Kind::Float, Kind::Bool, Kind::Uint8, Kind::Int64]).map(|t| t.to_kind(Kind::Bool));
    let (flips1, flips2) = (flips("flips1")?, flips("flips2")?);
    let (view1, view2) = (input.take("view1", &[Kind::Float])?, input.take("view2", &[Kind::Float])?);
    Ok(StepBatch { raw, view1, view2, prior, boxes1, boxes2, flips1, flips2, centres, audit: false })
}
