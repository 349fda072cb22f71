//! One sample: from its members' bytes to its slot of a batch.

use std::cell::RefCell;

use bytes::Bytes;

use crate::augment::{Recipe, Studio, View};
use crate::dataset::{Dataset, Place};
use crate::decode::decode;
use crate::error::{DataError, DecodeError};
use crate::prior::PriorSource;

/// A sample's part of a batch's buffers.
pub(crate) struct Slot<'a> {
    pub(crate) sample: u64,
    pub(crate) raw: &'a mut [f32],
    pub(crate) view1: &'a mut [f32],
    pub(crate) view2: &'a mut [f32],
    pub(crate) prior: &'a mut [u8],
    pub(crate) box1: &'a mut [f32],
    pub(crate) box2: &'a mut [f32],
    pub(crate) flip1: &'a mut bool,
    pub(crate) flip2: &'a mut bool,
}

/// What all samples of a batch share.
pub(crate) struct Setting<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
    pub(crate) side: u32,
    pub(crate) prior: &'a PriorSource,
}

thread_local! {
    /// Buffers that live as long as the decoding thread.
    static STUDIO: RefCell<Studio> = RefCell::new(Studio::new());
}

impl Setting<'_> {
    /// Decodes, augments and lays a sample into its slot.
    pub(crate) fn fill(&self, slot: &mut Slot<'_>, chunk: &Bytes) -> Result<(), DataError> {
        let place = self.dataset.locate(slot.sample)?;
        let failed = |member: &'static str, source: DecodeError| DataError::Decode {
            url: self.dataset.url().to_owned(),
            shard: self.dataset.shard_url(place.shard),
            key: place.entry.key.clone(),
            member,
            source,
        };
        let outside = || DecodeError::Broken("it lies outside its chunk".to_owned());
        let image = place.member(chunk, place.entry.image).ok_or_else(|| failed("image", outside()))?;
        let stored = self.stored_map(&place, chunk)?;
        let picture = decode(&image).map_err(|e| failed("image", e))?;
        STUDIO.with_borrow_mut(|studio| {
            let raw = studio.raw(&picture, self.side, slot.raw).map_err(|e| failed("image", e))?;
            self.prior.labels(&stored, raw, self.side, slot.prior).map_err(|e| failed("label map", e))?;
            let views = [
                (View::First, &mut *slot.view1, &mut *slot.box1, &mut *slot.flip1),
                (View::Second, &mut *slot.view2, &mut *slot.box2, &mut *slot.flip2),
            ];
            for (view, out, corners, flip) in views {
                let recipe = Recipe::draw(self.seed, self.epoch, slot.sample, view, picture.width, picture.height);
                corners.copy_from_slice(&recipe.corners);
                *flip = recipe.flip;
                studio.view(&picture, &recipe, self.side, out).map_err(|e| failed("image", e))?;
            }
            Ok(())
        })
    }

    fn stored_map(&self, place: &Place<'_>, chunk: &Bytes) -> Result<Bytes, DataError> {
        if !self.prior.is_stored() {
            return Ok(Bytes::new());
        }
        place.entry.prior.and_then(|member| place.member(chunk, member)).ok_or_else(|| DataError::NoPrior {
            url: self.dataset.url().to_owned(),
            shard: self.dataset.shard_url(place.shard),
            key: place.entry.key.clone(),
        })
    }
}
