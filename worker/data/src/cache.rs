//! Chunks kept in memory, so that samples of one chunk cost one read.

use std::collections::HashMap;

use bytes::Bytes;

/// Memory for chunks. A window of one lane is some 128 MiB at the default of 16 chunks.
const BYTES_MAX: usize = 1 << 30;

/// The chunks used last, within a budget.
#[derive(Debug, Default)]
pub(crate) struct ChunkCache {
    chunks: HashMap<usize, (u64, Bytes)>,
    clock: u64,
    bytes: usize,
}

impl ChunkCache {
    pub(crate) fn get(&mut self, chunk: usize) -> Option<Bytes> {
        self.clock += 1;
        let (used, bytes) = self.chunks.get_mut(&chunk)?;
        *used = self.clock;
        Some(bytes.clone())
    }

    pub(crate) fn put(&mut self, chunk: usize, bytes: Bytes) {
        self.clock += 1;
        self.bytes += bytes.len();
        if let Some((_, before)) = self.chunks.insert(chunk, (self.clock, bytes)) {
            self.bytes -= before.len();
        }
        while self.bytes > BYTES_MAX && self.chunks.len() > 1 {
            let Some(oldest) = self.chunks.iter().min_by_key(|(_, (used, _))| *used).map(|(&chunk, _)| chunk) else {
                break;
            };
            if let Some((_, bytes)) = self.chunks.remove(&oldest) {
                self.bytes -= bytes.len();
            }
        }
    }
}
