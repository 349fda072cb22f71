//! Memory for batches that a GPU reads by itself.

use r2o_data::{Block, Memory};
use r2o_engine::host::Pinned;
use r2o_telemetry::chain;

/// Page-locked memory, as long as the system gives any.
#[derive(Debug)]
pub(super) struct DeviceMemory;

#[derive(Debug)]
struct Locked(Pinned);

impl Memory for DeviceMemory {
    fn block(&self, bytes: usize) -> Option<Box<dyn Block>> {
        match Pinned::new(bytes) {
            Ok(pinned) => Some(Box::new(Locked(pinned))),
            Err(error) => {
                tracing::warn!(bytes, "no page-locked memory, batches take longer to the GPU: {}", chain(&error));
                None
            }
        }
    }
}

impl Block for Locked {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}
