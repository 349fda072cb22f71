//! Parameters and buffers: declared by name while a network is drawn, then laid out in one stretch of memory each.

use r2o_types::random::Keyed;
use tch::{Device, Kind, TchError, Tensor};

use crate::error::{EngineError, StepError};
use crate::lanes::by_lane;
use crate::norm::NormScope;

/// Values per cache line: where parameters begin.
const ALIGN: usize = 16;

/// How images and filters lie in memory. Results differ by rounding only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFormat {
    /// Channel by channel: PyTorch's default.
    Contiguous,
    /// Pixel by pixel: the faster one.
    ChannelsLast,
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    /// Normal with this deviation.
    Normal(f64),
    /// Uniform in [-x, x).
    Uniform(f64),
    /// The same everywhere.
    Constant(f32),
}

/// A parameter or buffer of a network.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Name inside the network, such as `backbone.conv1.weight`.
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    init: Init,
    offset: usize,
}

impl Slot {
    fn len(&self) -> usize {
        self.shape.iter().product::<i64>().unsigned_abs() as usize
    }
}

/// The parameters and buffers of a network, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    pub(crate) params: Vec<Slot>,
    pub(crate) buffers: Vec<Slot>,
}

impl Slots {
    /// Declares a parameter and returns its number.
    pub(crate) fn param(&mut self, name: String, shape: &[i64], init: Init) -> usize {
        push(&mut self.params, name, shape, init)
    }

    /// Declares a buffer and returns its number.
    pub(crate) fn buffer(&mut self, name: String, shape: &[i64], value: f32) -> usize {
        push(&mut self.buffers, name, shape, Init::Constant(value))
    }

    /// The first so many parameters and buffers.
    pub(crate) fn prefix(&self, params: usize, buffers: usize) -> Self {
        Self { params: self.params[..params].to_vec(), buffers: self.buffers[..buffers].to_vec() }
    }
}

fn push(slots: &mut Vec<Slot>, name: String, shape: &[i64], init: Init) -> usize {
    let offset = stretch(slots);
    slots.push(Slot { name, shape: shape.to_vec(), init, offset });
    slots.len() - 1
}

/// Values from the first slot to the end of the last, padding included.
fn stretch(slots: &[Slot]) -> usize {
    slots.last().map_or(0, |last| (last.offset + last.len()).next_multiple_of(ALIGN))
}

/// The values of one network.
#[derive(Debug)]
pub(crate) struct Weights {
    /// All parameters, one after another.
    pub(crate) flat: Tensor,
    /// All buffers, one after another.
    pub(crate) flat_buffers: Tensor,
    /// By number; they share memory with `flat`.
    pub(crate) params: Vec<Tensor>,
    /// By number; they share memory with `flat_buffers`.
    pub(crate) buffers: Vec<Tensor>,
    /// By parameter's number: float64 leaves (2, ...) in which lanes' gradients add up ([`r2o_aten::fan_out`]), where the job
    /// is reproducible and the network is trained. Otherwise empty.
    pub(crate) leaves: Vec<Tensor>,
}

impl Weights {
    /// Memory for all slots, zero.
    pub(crate) fn zeros(slots: &Slots, device: Device, format: MemoryFormat) -> Result<Self, EngineError> {
        let flat = |slots: &[Slot]| Tensor::f_zeros([stretch(slots) as i64], (Kind::Float, device));
        let last = format == MemoryFormat::ChannelsLast;
        let cut = |flat: &Tensor, slots: &[Slot]| {
            slots
                .iter()
                .map(|slot| r2o_aten::alias(flat, slot.offset, &slot.shape, last))
                .collect::<Result<Vec<_>, _>>()
        };
        let (flat, flat_buffers) = (flat(&slots.params)?, flat(&slots.buffers)?);
        let (params, buffers) = (cut(&flat, &slots.params)?, cut(&flat_buffers, &slots.buffers)?);
        Ok(Self { flat, flat_buffers, params, buffers, leaves: Vec::new() })
    }

    /// Fills everything with its first values: a function of the seed and the names.
    pub(crate) fn initialise(&mut self, slots: &Slots, seed: u64) -> Result<(), EngineError> {
        let all = slots.params.iter().zip(&mut self.params).chain(slots.buffers.iter().zip(&mut self.buffers));
        for (slot, tensor) in all {
            tch::no_grad(|| match slot.init {
                Init::Constant(value) => tensor.f_fill_(f64::from(value)).map(drop),
                init => tensor.f_copy_(&Tensor::from_slice(&draw(slot, init, seed)).view(slot.shape.as_slice())),
            })?;
        }
        Ok(())
    }

    /// Lets autograd compute gradients of the parameters.
    pub(crate) fn require_gradients(&mut self) {
        self.params = self.params.drain(..).map(|param| param.set_requires_grad(true)).collect();
    }

    /// Fresh leaves for the gradients of a step.
    pub(crate) fn renew_leaves(&mut self) {
        let leaf = |param: &Tensor| {
            let shape = [&[2], param.size().as_slice()].concat();
            Tensor::zeros([1], (Kind::Double, param.device())).expand(shape, false).set_requires_grad(true)
        };
        self.leaves = self.params.iter().map(leaf).collect();
    }

    /// A parameter, once for each lane if lanes are to have gradients of their own.
    fn copies(&self, slot: usize, lanes: usize) -> Result<Vec<Tensor>, r2o_aten::Error> {
        match self.leaves.get(slot) {
            Some(leaf) => r2o_aten::fan_out(leaf, &self.params[slot], lanes),
            None => Ok((0..lanes).map(|_| self.params[slot].shallow_clone()).collect()),
        }
    }

    /// A parameter (C) of a norm: (lanes, C) where lanes have gradients of their own.
    pub(crate) fn of_norm(&self, slot: usize, scope: &NormScope) -> Result<Tensor, StepError> {
        match scope.lanes_apart().filter(|_| !self.leaves.is_empty()) {
            Some(lanes) => Ok(Tensor::f_stack(&self.copies(slot, lanes)?, 0)?),
            None => Ok(self.params[slot].shallow_clone()),
        }
    }

    /// Applies an operation on lane-major rows with the parameters `slots`: to all lanes at once, or to each by itself.
    pub(crate) fn apply<const N: usize>(
        &self,
        x: &Tensor,
        slots: [usize; N],
        scope: &NormScope,
        operation: impl Fn(&Tensor, [&Tensor; N]) -> Result<Tensor, TchError>,
    ) -> Result<Tensor, StepError> {
        let lanes = scope.lanes_apart().unwrap_or(1);
        let copies = slots.map(|slot| self.copies(slot, lanes));
        let copies = copies.into_iter().collect::<Result<Vec<_>, _>>()?;
        by_lane(scope, [x], |lane, [x]| Ok(operation(x, std::array::from_fn(|at| &copies[at][lane]))?))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "float32 is what is wanted")]
fn draw(slot: &Slot, init: Init, seed: u64) -> Vec<f32> {
    let mut random = Keyed::new(&format!("weights {}", slot.name), &[seed]);
    (0..slot.len())
        .map(|_| match init {
            Init::Normal(deviation) => (random.normal() * deviation) as f32,
            Init::Uniform(limit) => random.uniform_in(-limit, limit) as f32,
            Init::Constant(value) => value,
        })
        .collect()
}
