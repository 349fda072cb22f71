//! Copies of the state that are made while training goes on.
//!
//! A step changes the state in two places: the target's parameters after the online pass, everything else at its end. A
//! thread copies in that order, and a step that gets there first waits. Buffers, which move all the time and are small, are
//! copied before anything goes on.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use tch::Tensor;

use crate::engine::Engine;
use crate::error::{EngineError, StateError};
use crate::host::{F32, HostTensor, bytes};

/// A copy that is being made. Dropping it lets the copy go.
#[derive(Debug)]
pub struct StateCopy(Receiver<Result<Vec<HostTensor>, EngineError>>);

impl StateCopy {
    /// Waits until it is whole, off the thread that trains. Tensors come in no particular order.
    ///
    /// # Errors
    /// When the device failed.
    pub fn wait(self) -> Result<Vec<HostTensor>, EngineError> {
        self.0.recv().map_err(|_| EngineError::CopyEnded)?
    }
}

/// The engine's end of a copy.
#[derive(Debug)]
pub(crate) struct Copying {
    target: Receiver<()>,
    rest: Receiver<()>,
    /// Seconds for which training was held.
    held: Cell<f64>,
}

impl Copying {
    /// Waits until the target's parameters may change.
    pub(crate) fn release_target(&self) {
        self.wait(&self.target);
    }

    /// Waits until everything may change. Returns for how many seconds training was held, over all.
    pub(crate) fn release(self) -> f64 {
        self.wait(&self.target);
        self.wait(&self.rest);
        self.held.get()
    }

    fn wait(&self, part: &Receiver<()>) {
        let start = Instant::now();
        // The thread says nothing, but goes away with its half.
        let _gone = part.recv();
        self.held.set(self.held.get() + start.elapsed().as_secs_f64());
    }
}

impl Engine {
    /// Begins to copy the named tensors of the state to host memory. Training may go on at once; the copy is of the state
    /// as it is now. The seconds for which the next step is held are its phase `checkpoint_hold`.
    ///
    /// # Errors
    /// When a name is unknown or the device fails.
    pub fn begin_copy(&mut self, names: &[&str]) -> Result<StateCopy, EngineError> {
        let start = Instant::now();
        self.settle();
        let wanted: HashSet<&str> = names.iter().copied().collect();
        let state = self.state();
        if let Some(name) = names.iter().find(|name| !state.iter().any(|(known, _)| known == **name)) {
            return Err(StateError::Missing { name: (*name).to_owned() }.into());
        }
        let chosen: Vec<(String, Tensor)> =
            state.into_iter().filter(|(name, _)| wanted.contains(name.as_str())).collect();
        let (buffers, params): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(name, _)| name.contains(".running_"));
        let mut copied = copy(&buffers)?;
        // On a GPU a copy beside the original takes less time than a step would wait for the way to the host.
        let apart = |(name, tensor): (String, Tensor)| {
            let tensor = if tensor.device().is_cuda() { tensor.copy() } else { tensor };
            (name, tensor)
        };
        let (targets, rest): (Vec<_>, Vec<_>) =
            params.into_iter().map(apart).partition(|(name, _)| name.starts_with("target."));
        let (target_done, target) = channel();
        let (rest_done, done) = channel();
        let (sender, receiver) = channel();
        let work = move || {
            let whole = || {
                copied.extend(copy(&targets)?);
                drop(target_done);
                copied.extend(copy(&rest)?);
                drop(rest_done);
                Ok(std::mem::take(&mut copied))
            };
            let _nobody_waits = sender.send(whole());
        };
        std::thread::Builder::new().name("state copy".to_owned()).spawn(work).map_err(EngineError::Thread)?;
        self.copying = Some(Copying { target, rest: done, held: Cell::new(start.elapsed().as_secs_f64()) });
        Ok(StateCopy(receiver))
    }

    /// Waits until the state may change.
    pub(crate) fn settle(&mut self) {
        if let Some(copying) = self.copying.take() {
            let _held = copying.release();
        }
    }

    /// Copies the named tensors of the state to host memory.
    ///
    /// # Errors
    /// As [`Engine::begin_copy`].
    pub fn copy_out(&mut self, names: &[&str]) -> Result<Vec<HostTensor>, EngineError> {
        let mut copied = self.begin_copy(names)?.wait()?;
        self.settle();
        let place = |tensor: &HostTensor| names.iter().position(|name| *name == tensor.name);
        copied.sort_by_key(place);
        Ok(copied)
    }
}

fn copy(tensors: &[(String, Tensor)]) -> Result<Vec<HostTensor>, EngineError> {
    let one = |(name, tensor): &(String, Tensor)| {
        let shape = tensor.size().iter().map(|&n| n.unsigned_abs()).collect();
        Ok(HostTensor { name: name.clone(), dtype: F32.to_owned(), shape, bytes: bytes(tensor)? })
    };
    tensors.iter().map(one).collect()
}
