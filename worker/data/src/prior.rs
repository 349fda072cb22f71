//! The prior's label map at the size of the views.

use r2o_types::Prior;

use crate::error::DecodeError;
use crate::labels::{Binding, Maps};
use crate::resize::nearest;

/// Where a sample's label map comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PriorSource {
    /// The map in the shard.
    Stored(Binding),
    /// SLIC on the raw view, with so many segments.
    Computed(u32),
    /// A grid of cells.
    Grid(u32),
    /// One region.
    Whole,
}

impl PriorSource {
    /// What a job's prior means on a set whose stored maps are `packed`.
    pub(crate) fn choose(prior: &Prior, packed: Binding) -> Self {
        match prior {
            Prior::Slic { segments: wanted } if *wanted == packed.segments => Self::Stored(packed),
            Prior::Slic { segments } => Self::Computed(*segments),
            Prior::Grid { cells } => Self::Grid(*cells),
            Prior::None {} => Self::Whole,
        }
    }

    /// Whether the shard's label map is read.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// Whether the raw view's RGB bytes are read.
    pub(crate) fn is_computed(&self) -> bool {
        matches!(self, Self::Computed(_))
    }

    /// Labels (side, side) from the stored map of this image, or from the raw view's RGB bytes.
    pub(crate) fn labels(
        &self,
        maps: &mut Maps,
        (stored, image): (&[u8], &[u8]),
        raw: &[u8],
        side: u32,
        out: &mut [u8],
    ) -> Result<(), DecodeError> {
        match self {
            Self::Stored(binding) if binding.size == side => maps.read(binding, stored, image, out)?,
            Self::Stored(binding) => {
                let mut labels = std::mem::take(&mut maps.room);
                labels.resize((binding.size * binding.size) as usize, 0);
                let read = maps.read(binding, stored, image, &mut labels);
                nearest(&labels, [binding.size; 2], side, out);
                maps.room = labels;
                read?;
            }
            Self::Computed(segments) => {
                let options = r2o_slic::Options { segments: *segments, ..r2o_slic::Options::default() };
                let found = r2o_slic::segment(raw, side as usize, side as usize, &options);
                for (target, label) in out.iter_mut().zip(&found.labels) {
                    *target = u8::try_from(*label).map_err(|_| {
                        DecodeError::Broken(format!("SLIC found {} regions, at most 256 fit", found.count))
                    })?;
                }
            }
            Self::Grid(cells) => {
                for (index, target) in out.iter_mut().enumerate() {
                    let (y, x) = (index as u32 / side, index as u32 % side);
                    *target = (y * cells / side * cells + x * cells / side) as u8;
                }
            }
            Self::Whole => out.fill(0),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Binding {
        Binding { definition: "test".to_owned(), segments: 100, size: 224, format: 2 }
    }

    #[test]
    fn a_grid_counts_its_cells_row_by_row() {
        let mut out = vec![9; 64];
        PriorSource::Grid(2).labels(&mut Maps::new(), (&[], &[]), &[], 8, &mut out).unwrap();
        assert_eq!((out[0], out[7], out[56], out[63]), (0, 1, 2, 3));
        assert_eq!(out.iter().filter(|&&l| l == 2).count(), 16);
    }

    #[test]
    fn the_stored_map_serves_only_its_own_segments() {
        let choose = |prior| PriorSource::choose(&prior, packed());
        assert_eq!(choose(Prior::Slic { segments: 100 }), PriorSource::Stored(packed()));
        assert_eq!(choose(Prior::Slic { segments: 50 }), PriorSource::Computed(50));
        assert_eq!(choose(Prior::Grid { cells: 14 }), PriorSource::Grid(14));
        assert_eq!(choose(Prior::None {}), PriorSource::Whole);
    }
}
