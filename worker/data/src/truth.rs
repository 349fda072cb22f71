//! Ground truth: how well masks fit the objects that people drew. Training never reads it.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits};

use crate::dataset::Dataset;
use crate::decode::PIXELS_MAX;
use crate::error::{DataError, DecodeError};
use crate::resize::nearest;
use crate::stats::LoaderStats;

/// What is no object: the ground behind all of them.
const BACKGROUND: u8 = 0;
/// Pixels that nobody decided about, such as the borders of PASCAL VOC: they count for nothing.
const VOID: u8 = 255;
const LABELS: usize = 256;

/// The ground truth of some samples as label maps (side, side), the whole image squeezed into the square as the raw view is;
/// `None`: there is none, or none that can be read. Blocks; not for a runtime's thread.
///
/// # Errors
/// When the set cannot be read.
pub fn truth(dataset: &Dataset, samples: &[u64], side: u32) -> Result<Vec<Option<Vec<u8>>>, DataError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DataError::Threads)?;
    samples.iter().map(|&sample| runtime.block_on(one(dataset, sample, side))).collect()
}

async fn one(dataset: &Dataset, sample: u64, side: u32) -> Result<Option<Vec<u8>>, DataError> {
    let place = dataset.locate(sample)?;
    let Some(range) = place.entry.mask.and_then(|mask| place.range(mask)) else { return Ok(None) };
    let chunk = dataset.fetch(place.chunk, &LoaderStats::default()).await?;
    let size = (place.entry.width, place.entry.height);
    let read = label_map(&chunk[range]).and_then(|map| map.squeezed(size, side));
    let key = &place.entry.key;
    Ok(read.inspect_err(|error| tracing::warn!("the mask of sample {key} is left out: {error}")).ok())
}

/// A picture whose values are labels.
struct LabelMap {
    width: u32,
    height: u32,
    labels: Vec<u8>,
}

impl LabelMap {
    /// At the size of a square view, if it belongs to an image of this size.
    fn squeezed(&self, (width, height): (u32, u32), side: u32) -> Result<Vec<u8>, DecodeError> {
        if (self.width, self.height) != (width, height) {
            let reason = format!("it has {} x {} pixels, its image {width} x {height}", self.width, self.height);
            return Err(DecodeError::Broken(reason));
        }
        let mut squeezed = vec![0; side as usize * side as usize];
        nearest(&self.labels, [width, height], side, &mut squeezed);
        Ok(squeezed)
    }
}

/// A PNG of greys or of a palette, whose numbers are the labels.
fn label_map(bytes: &[u8]) -> Result<LabelMap, DecodeError> {
    let broken = |error: png::DecodingError| DecodeError::Broken(error.to_string());
    let decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: PIXELS_MAX as usize });
    let mut reader = decoder.read_info().map_err(broken)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(DecodeError::TooLarge { width, height, max: PIXELS_MAX });
    }
    let (colour, depth) = reader.output_color_type();
    let bits = match (colour, depth) {
        (
            ColorType::Grayscale | ColorType::Indexed,
            BitDepth::One | BitDepth::Two | BitDepth::Four | BitDepth::Eight,
        ) => depth as usize,
        _ => {
            let reason = format!("labels are greys or a palette of at most 8 bits, not {colour:?} of {depth:?}");
            return Err(DecodeError::Broken(reason));
        }
    };
    let size = reader.output_buffer_size().ok_or_else(|| DecodeError::Broken("it is too large".to_owned()))?;
    let mut packed = vec![0; size];
    let frame = reader.next_frame(&mut packed).map_err(broken)?;
    // Each row begins with a byte of its own, its first pixel in the highest bits.
    let labels = packed.chunks_exact(frame.line_size.max(1)).flat_map(|row| {
        (0..width as usize).map(move |x| (row[x * bits / 8] >> (8 - bits - x * bits % 8)) & (u8::MAX >> (8 - bits)))
    });
    Ok(LabelMap { width, height, labels: labels.collect() })
}

/// How well masks fit objects: for each object the best intersection over union that any mask has with it (Average Best
/// Overlap; Carreira and Sminchisescu, 2010; appendix A.8 of the paper).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overlap {
    /// Objects so far.
    pub objects: u64,
    best: f64,
}

impl Overlap {
    /// One image's objects and masks, square label maps of which the second may have another size. Objects are the labels but 0
    /// and 255; pixels of 255 count for nothing.
    ///
    /// ```
    /// let mut overlap = r2o_data::Overlap::default();
    /// // An object of two pixels, one of them in mask 8, which covers two that count.
    /// overlap.add(&[1, 1, 0, 255], &[7, 8, 8, 8]);
    /// assert_eq!(overlap.average(), Some(0.5));
    /// ```
    pub fn add(&mut self, truth: &[u8], masks: &[u8]) {
        let side = |labels: &[u8]| labels.len().isqrt() as u32;
        let mut laid = vec![0; truth.len()];
        nearest(masks, [side(masks); 2], side(truth), &mut laid);
        let mut shared = vec![[0_u32; LABELS]; LABELS];
        let mut area = [0_u32; LABELS];
        for (&object, &mask) in truth.iter().zip(&laid).filter(|&(&object, _)| object != VOID) {
            shared[usize::from(object)][usize::from(mask)] += 1;
            area[usize::from(mask)] += 1;
        }
        for shared in &shared[usize::from(BACKGROUND) + 1..usize::from(VOID)] {
            let object: u32 = shared.iter().sum();
            if object == 0 {
                continue;
            }
            let overlap = |(&both, &mask): (&u32, &u32)| f64::from(both) / f64::from(object + mask - both);
            self.objects += 1;
            self.best += shared.iter().zip(&area).map(overlap).fold(0.0, f64::max);
        }
    }

    /// From 0 to 1; none without objects.
    #[must_use]
    pub fn average(&self) -> Option<f64> {
        (self.objects > 0).then(|| self.best / self.objects as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(colour: ColorType, depth: BitDepth, (width, height): (u32, u32), rows: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette(&[9; 48]);
        }
        encoder.write_header().unwrap().write_image_data(rows).unwrap();
        bytes
    }

    #[test]
    fn labels_are_the_numbers_of_the_file_at_any_depth() {
        let rows = [0b0110_0000, 0b1100_0000];
        let two = label_map(&picture(ColorType::Indexed, BitDepth::Two, (3, 2), &rows)).unwrap();
        assert_eq!((two.width, two.height, two.labels), (3, 2, vec![1, 2, 0, 3, 0, 0]));
        let eight = label_map(&picture(ColorType::Grayscale, BitDepth::Eight, (2, 1), &[7, 255])).unwrap();
        assert_eq!(eight.labels, [7, 255]);
    }

    #[test]
    fn a_picture_of_colours_is_no_label_map() {
        let error = label_map(&picture(ColorType::Rgb, BitDepth::Eight, (1, 1), &[1, 2, 3])).err().unwrap();
        assert!(error.to_string().contains("not Rgb of Eight"), "{error}");
        let whole = picture(ColorType::Grayscale, BitDepth::Eight, (64, 64), &[5; 4096]);
        assert!((0..whole.len() - 12).all(|cut| label_map(&whole[..cut]).is_err()));
    }

    #[test]
    fn a_map_is_squeezed_by_centres_and_must_fit_its_image() {
        let map = LabelMap { width: 4, height: 2, labels: vec![1, 2, 3, 4, 5, 6, 7, 8] };
        assert_eq!(map.squeezed((4, 2), 2).unwrap(), [2, 4, 6, 8]);
        assert!(map.squeezed((2, 4), 2).unwrap_err().to_string().contains("4 x 2 pixels, its image 2 x 4"));
    }

    #[test]
    fn one_mask_for_each_object_is_perfect_and_one_for_all_is_not() {
        let truth = [0, 0, 1, 1, 2, 2, 2, 0, 255];
        let mut perfect = Overlap::default();
        perfect.add(&truth, &[9, 9, 0, 0, 4, 4, 4, 9, 0]);
        assert_eq!((perfect.objects, perfect.average()), (2, Some(1.0)));
        let mut whole = Overlap::default();
        whole.add(&truth, &[3]);
        let expected = (2.0 / 8.0 + 3.0 / 8.0) / 2.0;
        assert!((whole.average().unwrap() - expected).abs() < 1e-12, "{whole:?}");
        let mut none = Overlap::default();
        none.add(&[0, 255, 0, 0], &[1, 2, 3, 4]);
        assert_eq!(none.average(), None);
    }
}
