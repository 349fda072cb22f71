//! The engine's face in plain memory, for callers that know no tensors.

use std::collections::HashMap;
use std::fmt;

pub use r2o_aten::Pinned;
use r2o_types::Dtype;
use r2o_types::pixels::{DEVIATION, MEAN};
use tch::{Kind, Tensor};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::engine::{Engine, StepOutput};
use crate::error::{EngineError, StateError, StepError};
use crate::peers::LaneWords;
use crate::step::{StepBatch, StepTicket};
use crate::watch::Stopwatch;

/// The one type of the state's tensors, in safetensors' words.
pub(crate) const F32: &str = "F32";

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device(tch::Device);

impl Device {
    /// The CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self(tch::Device::Cpu)
    }

    /// The first GPU, if libtorch sees one.
    #[must_use]
    pub fn cuda() -> Option<Self> {
        tch::Cuda::is_available().then_some(Self(tch::Device::Cuda(0)))
    }

    /// Which GPU; none for the CPU.
    #[must_use]
    pub fn cuda_index(self) -> Option<usize> {
        match self.0 {
            tch::Device::Cuda(index) => Some(index),
            _ => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            tch::Device::Cuda(index) => write!(f, "cuda:{index}"),
            _ => f.write_str("cpu"),
        }
    }
}

impl From<Device> for tch::Device {
    fn from(device: Device) -> Self {
        device.0
    }
}

/// A tensor of the state, copied out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTensor {
    /// Name, such as `online.backbone.conv1.weight`.
    pub name: String,
    /// safetensors' word for the type.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<u64>,
    /// Little-endian, contiguous.
    pub bytes: Vec<u8>,
}

/// Images of all local lanes, lane-major. See [`StepBatch`]. What lies in [`Pinned`] memory is copied while the caller goes
/// on, and must keep its content until the step has returned.
#[derive(Debug, Clone, Copy)]
pub struct HostBatch<'a> {
    /// N = lanes * samples per lane.
    pub images: usize,
    /// Side s in pixels.
    pub size: usize,
    /// Type of the images: float32, bfloat16 for a job of that precision, or uint8, which the device normalises.
    pub dtype: Dtype,
    /// (N, 3, s, s), the bytes of the numbers in this machine's order.
    pub raw: &'a [u8],
    /// (N, 3, s, s), likewise.
    pub view1: &'a [u8],
    /// (N, 3, s, s), likewise.
    pub view2: &'a [u8],
    /// (N, s, s)
    pub prior: &'a [u8],
    /// (N, 4)
    pub boxes1: &'a [f32],
    /// (N, 4)
    pub boxes2: &'a [f32],
    /// (N)
    pub flips1: &'a [bool],
    /// (N)
    pub flips2: &'a [bool],
    /// Hash the masks of each lane.
    pub audit: bool,
    /// What peers learn of each lane; may be empty.
    pub words: &'a [LaneWords],
}

impl HostBatch<'_> {
    /// # Errors
    /// When a slice is not as long as the shape says.
    fn tensors(&self, device: tch::Device) -> Result<StepBatch, String> {
        let (n, s) = (self.images as i64, self.size as i64);
        let kind = match self.dtype {
            Dtype::Float32 => Kind::Float,
            Dtype::Bfloat16 => Kind::BFloat16,
            Dtype::Uint8 => Kind::Uint8,
        };
        let large = |bytes: &[u8], shape: &[i64], kind, name: &str| {
            r2o_aten::upload(bytes, shape, kind, device).map_err(|e| format!("`{name}`: {}", e.reason))
        };
        let image = |bytes, name| {
            let image = large(bytes, &[n, 3, s, s], kind, name)?;
            Ok::<_, String>(if kind == Kind::Uint8 { normalised(&image) } else { image })
        };
        let place = |t: Tensor, shape: &[i64], name: &str| {
            let wanted = shape.iter().product::<i64>();
            if t.size() == [wanted] {
                Ok(t.view(shape).to_device(device))
            } else {
                Err(format!("`{name}` has {} values, its shape {shape:?} needs {wanted}", t.size()[0]))
            }
        };
        Ok(StepBatch {
            raw: image(self.raw, "raw")?,
            view1: image(self.view1, "view1")?,
            view2: image(self.view2, "view2")?,
            prior: large(self.prior, &[n, s, s], Kind::Uint8, "prior")?,
            boxes1: place(Tensor::from_slice(self.boxes1), &[n, 4], "boxes1")?,
            boxes2: place(Tensor::from_slice(self.boxes2), &[n, 4], "boxes2")?,
            flips1: place(Tensor::from_slice(self.flips1), &[n], "flips1")?,
            flips2: place(Tensor::from_slice(self.flips2), &[n], "flips2")?,
            centres: None,
            audit: self.audit,
        })
    }
}

impl Engine {
    /// [`Engine::step`] from plain memory.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn step_host(&mut self, batch: &HostBatch<'_>, ticket: &StepTicket) -> Result<StepOutput, StepError> {
        let input = |reason| StepError::Input { step: ticket.step, reason };
        let mut watch = Stopwatch::new(self.device);
        let tensors = watch.time("to_device", || batch.tensors(self.device).map_err(input))?;
        self.step_with(&tensors, batch.words, ticket, watch)
    }

    /// [`Engine::predict_masks`] from the raw views and priors of a batch: (N, M, M) labels.
    ///
    /// # Errors
    /// As [`Engine::predict_masks`].
    pub fn predict_masks_host(&mut self, batch: &HostBatch<'_>, k: u32) -> Result<Vec<u8>, StepError> {
        let batch = batch.tensors(self.device).map_err(|reason| StepError::Input { step: 0, reason })?;
        let masks = self.predict_masks(&batch.raw, &batch.prior, k)?;
        let labels = masks.map.to_kind(Kind::Uint8).to_device(tch::Device::Cpu).contiguous();
        Ok(Vec::<u8>::try_from(labels.view(-1))?)
    }

    /// Names and bytes of the state's tensors, in [`Engine::state`]'s order.
    #[must_use]
    pub fn tensor_sizes(&self) -> Vec<(String, usize)> {
        self.state().into_iter().map(|(name, tensor)| (name, tensor.numel() * size_of::<f32>())).collect()
    }

    /// Replaces the state; see [`Engine::load_state`].
    ///
    /// # Errors
    /// When a tensor is missing, unknown, or of another shape or type, by name; nothing has changed then.
    pub fn load(&mut self, tensors: Vec<HostTensor>) -> Result<(), EngineError> {
        let state = tensors.into_iter().map(tensor).collect::<Result<HashMap<_, _>, _>>()?;
        self.load_state(&state)
    }

    /// XXH3 of all names and values of the state: equal on replicas that are equal bit by bit, and lie alike in memory.
    ///
    /// # Errors
    /// When the device fails.
    pub fn digest(&self) -> Result<u64, EngineError> {
        let mut hasher = Xxh3Default::new();
        for (name, digest) in self.digests()? {
            hasher.update(name.as_bytes());
            hasher.update(&digest.to_le_bytes());
        }
        Ok(hasher.digest())
    }

    /// XXH3 of each tensor's values, by name, in the order of [`Engine::state`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn digests(&self) -> Result<Vec<(String, u64)>, EngineError> {
        // In the order of memory, which is that of all replicas: to put filters into another takes longer than to hash them.
        let hash = |tensor: &Tensor| match r2o_aten::with_memory(&tensor.detach().to_device(tch::Device::Cpu), xxh3_64)
        {
            Some(hash) => Ok(hash),
            None => bytes(tensor).map(|bytes| xxh3_64(&bytes)),
        };
        self.state().into_iter().map(|(name, tensor)| Ok((name, hash(&tensor)?))).collect()
    }

    /// Flips the lowest bit of the first value of the state, as a faulty memory would: for tests of what finds it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn flip_bit(&mut self) -> Result<(), EngineError> {
        self.settle();
        let Some((_, tensor)) = self.state().into_iter().next() else { return Ok(()) };
        // One value in place, whatever the memory format.
        let first = |tensor: Tensor| (0..tensor.dim()).fold(tensor, |tensor, _| tensor.get(0));
        let mut value = tch::no_grad(|| first(tensor.view_dtype(Kind::Int)));
        let flipped = value.f_bitwise_xor(1)?;
        value.f_copy_(&flipped)?;
        Ok(())
    }
}

/// Levels (N, 3, H, W) as float32 numbers of mean 0 and deviation 1, as the loader's: each a function of its level alone, wherever
/// in the batch it stands.
fn normalised(levels: &Tensor) -> Tensor {
    let of = |value: fn(f32, f32) -> f32| {
        let values: Vec<f32> = MEAN.iter().zip(DEVIATION).map(|(&mean, deviation)| value(mean, deviation)).collect();
        Tensor::from_slice(&values).view([1, 3, 1, 1]).to_device(levels.device())
    };
    let (scale, shift) = (of(|_, deviation| 1.0 / (255.0 * deviation)), of(|mean, deviation| -mean / deviation));
    // In place: a batch's numbers are some 150 MB.
    let mut numbers = levels.to_kind(Kind::Float);
    numbers *= scale;
    numbers += shift;
    numbers
}

/// Little-endian bytes of a float32 tensor, contiguous in its shape's order.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>, EngineError> {
    let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut bytes = vec![0; tensor.numel() * size_of::<f32>()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

fn tensor(host: HostTensor) -> Result<(String, Tensor), EngineError> {
    let HostTensor { name, dtype, shape, bytes } = host;
    if dtype != F32 {
        return Err(StateError::Type { name, found: dtype }.into());
    }
    let shape: Vec<i64> = shape.iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect();
    let expected = shape.iter().fold(size_of::<f32>(), |product, &n| product.saturating_mul(n.unsigned_abs() as usize));
    if bytes.len() != expected {
        return Err(StateError::Length { name, found: bytes.len(), expected }.into());
    }
    let tensor = Tensor::f_from_data_size(&bytes, &shape, Kind::Float)?;
    Ok((name, tensor))
}
