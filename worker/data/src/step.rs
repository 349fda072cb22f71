//! A step's samples and the bytes of their members, taken out of their chunks: what decoding needs, and no more memory.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::dataset::{Dataset, Place};
use crate::disk::Entry;
use crate::error::DataError;

/// Which samples a batch consists of.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    pub(crate) step_in_epoch: u64,
    pub(crate) lanes: Vec<u32>,
    pub(crate) samples: Vec<u64>,
    pub(crate) first_positions: Vec<u64>,
}

/// Where a chunk's bytes are.
pub(crate) enum Source<'a> {
    Memory(&'a Bytes),
    Disk(&'a Entry),
}

/// A sample's members.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members<'a> {
    /// The image's file; `None`: the index places it outside its chunk.
    pub(crate) image: Option<&'a [u8]>,
    /// The label map, likewise, or there is none.
    pub(crate) prior: Option<&'a [u8]>,
}

/// A step that can be decoded.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) order: Order,
    bytes: Vec<u8>,
    members: Vec<[Option<Range<usize>>; 2]>,
}

impl Step {
    /// A step without bytes yet, which will lie in `bytes`.
    pub(crate) fn new(order: Order, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, members: vec![[None, None]; order.samples.len()], order }
    }

    /// Lays the members of the sample in `slot`, which is at `place`, beside the others. `room` is memory to work in.
    ///
    /// # Errors
    /// When an entry of the disk cache is damaged or cannot be read.
    pub(crate) fn lay(
        &mut self,
        slot: usize,
        place: &Place<'_>,
        from: &Source<'_>,
        room: &mut Vec<u8>,
    ) -> io::Result<()> {
        for (kind, member) in [Some(place.entry.image), place.entry.prior].into_iter().enumerate() {
            let Some(range) = member.and_then(|member| place.range(member)) else { continue };
            let start = self.bytes.len();
            match from {
                Source::Memory(chunk) => self.bytes.extend_from_slice(&chunk[range]),
                Source::Disk(entry) => entry.read(range, &mut self.bytes, room)?,
            }
            self.members[slot][kind] = Some(start..self.bytes.len());
        }
        Ok(())
    }

    pub(crate) fn members(&self, slot: usize) -> Members<'_> {
        let [image, prior] = &self.members[slot];
        let slice = |range: &Option<Range<usize>>| range.as_ref().map(|range| &self.bytes[range.clone()]);
        Members { image: slice(image), prior: slice(prior) }
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its memory, for another step.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads some samples, each chunk once and one after the other: for few samples.
pub(crate) async fn gather(dataset: &Dataset, order: Order) -> Result<Step, DataError> {
    let (stats, mut step) = (crate::LoaderStats::default(), Step::new(order, Vec::new()));
    let needs = dataset.needs(&step.order.samples)?;
    for group in needs.chunk_by(|a, b| a.chunk == b.chunk) {
        let chunk = dataset.fetch(group[0].chunk, &stats).await?;
        for need in group {
            let place = dataset.locate(step.order.samples[need.slot])?;
            // Memory cannot fail.
            let _ = step.lay(need.slot, &place, &Source::Memory(&chunk), &mut Vec::new());
        }
    }
    Ok(step)
}

/// A slot of a step, and the chunk that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    pub(crate) chunk: usize,
    pub(crate) slot: usize,
}
