//! The state by name: parameters, buffers and momentum, in a fixed order.

use std::collections::{HashMap, HashSet};

use tch::{Kind, Tensor};

use crate::engine::Engine;
use crate::error::{EngineError, StateError, StepError};
use crate::model::Model;
use crate::weights::Slot;

/// torchvision's counter of batches, which nothing here needs: ignored on input, absent from the output.
const COUNTER: &str = ".num_batches_tracked";

impl Model {
    /// The public name of an online slot: `online.backbone.conv1.weight`, `predictor.fc1.weight`.
    #[expect(clippy::unused_self, reason = "a name of the model's")]
    pub(crate) fn online_name(&self, slot: &str) -> String {
        if slot.starts_with("predictor.") { slot.to_owned() } else { format!("online.{slot}") }
    }

    /// All tensors of the state by name; they share memory with the model.
    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        let mut push = |name: String, tensor: &Tensor| all.push((name, tensor.detach()));
        for (slot, tensor) in self.slots.params.iter().zip(&self.online.params) {
            push(self.online_name(&slot.name), tensor);
        }
        for (slot, tensor) in self.slots.buffers.iter().zip(&self.online.buffers) {
            push(self.online_name(&slot.name), tensor);
        }
        let target = self.target_slots.params.iter().zip(&self.target.params);
        for (slot, tensor) in target.chain(self.target_slots.buffers.iter().zip(&self.target.buffers)) {
            push(format!("target.{}", slot.name), tensor);
        }
        for (slot, tensor) in self.slots.params.iter().zip(&self.momentum.params) {
            push(format!("momentum.{}", self.online_name(&slot.name)), tensor);
        }
        all
    }
}

impl Engine {
    /// Everything that a checkpoint holds, by name, in a fixed order: `online.*`, `predictor.*`, `target.*`,
    /// `momentum.<parameter>`. The tensors share memory with the engine: copy them before the next step.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.model.tensors()
    }

    /// Gradients of the last step by name (`grad.<parameter>`).
    ///
    /// # Errors
    /// Where the job is reproducible, when a peer is lost: it is a collective then.
    pub fn gradients(&self) -> Result<Vec<(String, Tensor)>, StepError> {
        let name = |slot: &Slot| format!("grad.{}", self.model.online_name(&slot.name));
        Ok(self.model.slots.params.iter().map(name).zip(self.reduced_gradients()?).collect())
    }

    /// Replaces the state. Momentum may be absent altogether, and is then zero; batch counters are ignored.
    ///
    /// # Errors
    /// When a tensor is missing, unknown, or of another shape or type, by name; nothing has changed then.
    pub fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<(), EngineError> {
        let mut mine = self.model.tensors();
        let known: HashSet<&str> = mine.iter().map(|(name, _)| name.as_str()).collect();
        let mut unknown: Vec<&String> =
            state.keys().filter(|name| !known.contains(name.as_str()) && !name.ends_with(COUNTER)).collect();
        unknown.sort();
        if let Some(name) = unknown.first() {
            return Err(StateError::Unknown { name: (*name).clone() }.into());
        }
        let has_momentum = state.keys().any(|name| name.starts_with("momentum."));
        for (name, tensor) in &mine {
            match state.get(name) {
                Some(found) if found.size() != tensor.size() => {
                    let (name, found, expected) = (name.clone(), found.size(), tensor.size());
                    return Err(StateError::Shape { name, found, expected }.into());
                }
                Some(found) if found.kind() != Kind::Float => {
                    return Err(StateError::Type { name: name.clone(), found: format!("{:?}", found.kind()) }.into());
                }
                None if has_momentum || !name.starts_with("momentum.") => {
                    return Err(StateError::Missing { name: name.clone() }.into());
                }
                _ => {}
            }
        }
        self.settle();
        tch::no_grad(|| {
            for (name, tensor) in &mut mine {
                match state.get(name) {
                    Some(found) => tensor.f_copy_(found)?,
                    None => drop(tensor.f_zero_()?),
                }
            }
            Ok(())
        })
    }
}
