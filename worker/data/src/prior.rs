//! The prior's label map at the size of the views.

use r2o_types::Prior;

use crate::error::DecodeError;
use crate::resize::nearest;

/// Where a sample's label map comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PriorSource {
    /// The map in the shard, of this side.
    Stored(u32),
    /// SLIC on the raw view, with so many segments.
    Computed(u32),
    /// A grid of cells.
    Grid(u32),
    /// One region.
    Whole,
}

impl PriorSource {
    /// What a job's prior means on a set whose stored maps have `segments` segments and side `size`.
    pub(crate) fn choose(prior: &Prior, segments: u32, size: u32) -> Self {
        match prior {
            Prior::Slic { segments: wanted } if *wanted == segments => Self::Stored(size),
            Prior::Slic { segments } => Self::Computed(*segments),
            Prior::Grid { cells } => Self::Grid(*cells),
            Prior::None {} => Self::Whole,
        }
    }

    /// Whether the shard's label map is read.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// Labels (side, side) from the stored map's PNG or from the raw view's RGB bytes.
    pub(crate) fn labels(&self, stored: &[u8], raw: &[u8], side: u32, out: &mut [u8]) -> Result<(), DecodeError> {
        match *self {
            Self::Stored(size) => nearest(&label_map(stored, size)?, size, side, out),
            Self::Computed(segments) => {
                let options = r2o_slic::Options { segments, ..r2o_slic::Options::default() };
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

/// A stored label map: an 8-bit grey PNG of a known side.
pub(crate) fn label_map(bytes: &[u8], side: u32) -> Result<Vec<u8>, DecodeError> {
    let broken = |e: &dyn std::fmt::Display| DecodeError::Broken(e.to_string());
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().map_err(|e| broken(&e))?;
    let info = reader.info();
    let grey = info.color_type == png::ColorType::Grayscale && info.bit_depth == png::BitDepth::Eight;
    if (info.width, info.height) != (side, side) || !grey {
        return Err(DecodeError::Broken(format!(
            "a label map of {} x {} pixels, expected {side} x {side} in 8-bit grey",
            info.width, info.height
        )));
    }
    let mut labels = vec![0; (side * side) as usize];
    reader.next_frame(&mut labels).map_err(|e| broken(&e))?;
    Ok(labels)
}

/// A label map as an 8-bit grey PNG.
pub(crate) fn label_png(labels: &[u8], side: u32) -> Result<Vec<u8>, DecodeError> {
    let broken = |e: png::EncodingError| DecodeError::Broken(e.to_string());
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(broken)?;
    writer.write_image_data(labels).map_err(broken)?;
    writer.finish().map_err(broken)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_counts_its_cells_row_by_row() {
        let mut out = vec![9; 64];
        PriorSource::Grid(2).labels(&[], &[], 8, &mut out).unwrap();
        assert_eq!((out[0], out[7], out[56], out[63]), (0, 1, 2, 3));
        assert_eq!(out.iter().filter(|&&l| l == 2).count(), 16);
    }

    #[test]
    fn a_label_map_survives_its_png_and_another_size_is_refused() {
        let labels: Vec<u8> = (0..=255).collect();
        let bytes = label_png(&labels, 16).unwrap();
        assert_eq!(label_map(&bytes, 16).unwrap(), labels);
        assert!(label_map(&bytes, 32).unwrap_err().to_string().contains("16 x 16"));
    }

    #[test]
    fn the_stored_map_serves_only_its_own_segments() {
        let choose = |prior| PriorSource::choose(&prior, 100, 224);
        assert_eq!(choose(Prior::Slic { segments: 100 }), PriorSource::Stored(224));
        assert_eq!(choose(Prior::Slic { segments: 50 }), PriorSource::Computed(50));
        assert_eq!(choose(Prior::Grid { cells: 14 }), PriorSource::Grid(14));
        assert_eq!(choose(Prior::None {}), PriorSource::Whole);
    }
}
