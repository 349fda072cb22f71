//! The method: one Region-to-Object step on libtorch (METHOD.md in numbers), for all lanes of a worker at once.
//!
//! - [`Engine`]: weights, one [`Engine::step`] at a time, state in and out. A step that fails leaves no trace.
//! - [`host`]: the same with plain memory, for callers that know no tensors.
//! - [`golden`]: one step from files to a file, for comparison with other implementations.

mod backbone;
mod copy;
mod engine;
mod error;
pub mod golden;
mod heads;
pub mod host;
mod kmeans;
mod lanes;
mod loss;
mod masks;
mod model;
mod norm;
mod peers;
mod prior;
mod roi_align;
mod signals;
mod state;
mod step;
mod warm;
mod watch;
mod weights;

#[cfg(test)]
mod tests;

pub use copy::StateCopy;
pub use engine::{Engine, EngineOptions, MaskPrediction, StepOutput};
pub use error::{EngineError, StateError, StepError};
pub use peers::{LaneOutput, LaneWords};
pub use step::{StepBatch, StepTicket};
pub use weights::MemoryFormat;
