//! One sample: from its members' bytes to its slot of a batch.

use std::cell::RefCell;
use std::time::Instant;

use crate::augment::{Recipe, Studio, View};
use crate::dataset::{Dataset, Place};
use crate::error::{DataError, DecodeError};
use crate::labels::Maps;
use crate::pixels::Sheet;
use crate::prior::PriorSource;
use crate::stats::{LoaderStats, Skip, Stage};
use crate::step::Members;

/// A sample's part of a batch's buffers.
pub(crate) struct Slot<'a> {
    pub(crate) sample: u64,
    pub(crate) raw: Sheet<'a>,
    pub(crate) view1: Sheet<'a>,
    pub(crate) view2: Sheet<'a>,
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
    pub(crate) stats: &'a LoaderStats,
}

/// What a decoding thread keeps from one sample to the next.
struct Desk {
    studio: Studio,
    maps: Maps,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk { studio: Studio::new(), maps: Maps::new() });
}

impl Setting<'_> {
    /// Decodes, augments and lays a sample into its slot.
    pub(crate) fn fill(&self, slot: &mut Slot<'_>, members: Members<'_>) -> Result<(), DataError> {
        self.fill_from(slot, slot.sample, members)
    }

    /// As [`Setting::fill`], with the members of the sample `from`, augmented as the slot's own would be.
    pub(crate) fn fill_from(&self, slot: &mut Slot<'_>, from: u64, members: Members<'_>) -> Result<(), DataError> {
        let place = self.dataset.locate(from)?;
        let failed = |member: &'static str, source: DecodeError| DataError::Decode {
            url: self.dataset.url().to_owned(),
            shard: self.dataset.shard_url(place.shard),
            key: place.entry.key.clone(),
            member,
            source,
        };
        let outside = || DecodeError::Broken("it lies outside its chunk".to_owned());
        let image = members.image.ok_or_else(|| failed(IMAGE, outside()))?;
        let stored = self.stored_map(&place, members)?;
        DESK.with_borrow_mut(|desk| {
            let done = self.draw(desk, slot, image, stored).map_err(|(member, source)| failed(member, source));
            desk.studio.decoder.rest();
            done
        })
    }

    fn draw(
        &self,
        desk: &mut Desk,
        slot: &mut Slot<'_>,
        image: &[u8],
        stored: &[u8],
    ) -> Result<(), (&'static str, DecodeError)> {
        let (stats, side) = (self.stats, self.side);
        let start = Instant::now();
        desk.studio.decoder.decode(image).map_err(|e| (IMAGE, e))?;
        let mut at = stats.spent(Stage::Decode, start);
        let mut easel = desk.studio.easel();
        let (width, height) = (easel.canvas.width, easel.canvas.height);
        let raw = easel.raw(side, Some(&mut slot.raw), self.prior.is_computed());
        at = stats.spent(Stage::Resize, at);
        self.prior.labels(&mut desk.maps, (stored, image), raw, side, slot.prior).map_err(|e| (LABEL_MAP, e))?;
        at = stats.spent(Stage::Prior, at);
        let views = [
            (View::First, &mut slot.view1, &mut *slot.box1, &mut *slot.flip1),
            (View::Second, &mut slot.view2, &mut *slot.box2, &mut *slot.flip2),
        ];
        for (view, out, corners, flip) in views {
            let recipe = Recipe::draw(self.seed, self.epoch, slot.sample, view, width, height);
            corners.copy_from_slice(&recipe.corners);
            *flip = recipe.flip;
            at = stats.spent(Stage::Augment, at);
            easel.resize(recipe.crop, recipe.flip, side);
            at = stats.spent(Stage::Resize, at);
            easel.paint(&recipe, side, out);
        }
        stats.spent(Stage::Augment, at);
        stats.image(image.len());
        Ok(())
    }

    fn stored_map<'a>(&self, place: &Place<'_>, members: Members<'a>) -> Result<&'a [u8], DataError> {
        if !self.prior.is_stored() {
            return Ok(&[]);
        }
        members.prior.ok_or_else(|| DataError::NoPrior {
            url: self.dataset.url().to_owned(),
            shard: self.dataset.shard_url(place.shard),
            key: place.entry.key.clone(),
        })
    }
}

const IMAGE: &str = "image";
const LABEL_MAP: &str = "label map";

/// Why the sample is left out, when its own bytes are at fault and not the set or the store.
pub(crate) fn skip_of(error: &DataError) -> Option<Skip> {
    match error {
        DataError::Decode { member, .. } if *member == LABEL_MAP => Some(Skip::LabelMap),
        DataError::Decode { source, .. } => Some(Skip::of_image(source)),
        _ => None,
    }
}
