//! SLIC superpixels (Achanta et al., 2012) with scikit-image's definition.
//!
//! The same regions as `skimage.segmentation.slic(image, n_segments, compactness, start_label=0)` up to the rounding of
//! float32 beside float64: image stretched to [0, 1] jointly over channels, CIE Lab, centres on a regular grid, each pixel
//! compared with the centres within two steps, ten iterations, then connectivity enforced. The window of two steps is part of
//! the definition: one step is twice as fast and gives other regions.

mod colour;
mod connect;
mod grid;
mod iterate;
mod simd;
mod tile;

/// What to ask of SLIC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Segments asked for; about so many come back.
    pub segments: u32,
    /// Weight of nearness beside colour.
    pub compactness: f32,
    /// Rounds of assignment and update.
    pub iterations: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { segments: 100, compactness: 10.0, iterations: 10 }
    }
}

/// Name of the definition, for whoever stores label maps: another name means other regions.
pub const DEFINITION: &str = "slic-skimage-0.26";

/// A label map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// (height, width), row-major, labels 0..count; each label is one connected region.
    pub labels: Vec<u16>,
    /// Number of regions.
    pub count: u16,
}

/// Segments a picture of `width` x `height` RGB bytes, row-major.
///
/// A picture whose buffer is too short, or that has no pixels, gives an empty map.
#[must_use]
pub fn segment(rgb: &[u8], width: usize, height: usize, options: &Options) -> Labels {
    let pixels = width * height;
    if pixels == 0 || rgb.len() < 3 * pixels {
        return Labels { labels: Vec::new(), count: 0 };
    }
    let grid = grid::centres(width, height, options.segments.max(1));
    let (rgb, weight, iterations) = (&rgb[..3 * pixels], 1.0 / options.compactness, options.iterations);
    let labels = simd::Task { rgb, width, height, weight, grid: &grid, iterations }.run();
    let segment_size = pixels as f64 / grid.centres.len() as f64;
    connect::enforce(&labels, width, height, (0.5 * segment_size) as usize, (3.0 * segment_size) as usize)
}

#[cfg(test)]
mod tests;
