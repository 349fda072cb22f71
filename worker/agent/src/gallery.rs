//! Pictures for the report: the same few images, their prior and their predicted masks as training goes on.

use anyhow::{Context, Result};
use r2o_data::{Batch, Dataset, Overlap};
use r2o_storage::gallery::{Base64, GalleryImage, GalleryPage};
use r2o_types::JobSpec;
use r2o_types::pixels::{DEVIATION, MEAN};

/// Rows of the figure.
const IMAGES: u64 = 8;
/// Columns of the figure at most: a long run is sampled evenly.
const PAGES_MAX: u64 = 24;

/// The samples to show: spread evenly over the set, so that classes mix.
pub(crate) fn choose(samples: u64) -> Vec<u64> {
    let count = IMAGES.min(samples);
    (0..count).map(|i| i * samples / count).collect()
}

/// Whether a page is due once `done` of `epochs` epochs are finished.
pub(crate) fn due(done: u64, epochs: u64) -> bool {
    let every = epochs.div_ceil(PAGES_MAX).max(1);
    done.is_multiple_of(every) || done == epochs
}

/// The images to show.
#[derive(Debug)]
pub(crate) struct Probe {
    /// As one lane.
    pub(crate) batch: Batch,
    /// Objects, labels (side, side), of those with ground truth.
    truth: Vec<Option<Vec<u8>>>,
}

impl Probe {
    /// Reads them.
    ///
    /// # Errors
    /// When a sample cannot be read or decoded.
    pub(crate) fn read(dataset: &Dataset, spec: &JobSpec) -> Result<Self> {
        let (chosen, side) = (choose(dataset.samples()), spec.data.image_size);
        let batch = r2o_data::probe(dataset, &chosen, side, &spec.method.prior, spec.seed)
            .context("cannot read the gallery's images")?;
        let truth = r2o_data::truth(dataset, &chosen, side).context("cannot read the gallery's ground truth")?;
        Ok(Self { batch, truth })
    }

    /// How well label maps (N, S, S) of any side fit the objects of all images.
    fn overlap(&self, maps: &[u8]) -> Option<f64> {
        let mut overlap = Overlap::default();
        let maps = maps.chunks((maps.len() / self.batch.images.max(1)).max(1));
        for (truth, map) in self.truth.iter().zip(maps) {
            truth.iter().for_each(|truth| overlap.add(truth, map));
        }
        overlap.average()
    }
}

/// One page of the gallery. `masks` are (N, M, M) labels.
///
/// # Errors
/// When a picture cannot be encoded.
pub(crate) fn page(
    dataset: &Dataset,
    shown: &Probe,
    masks: &[u8],
    epoch: u64,
    step: u64,
    k: u32,
) -> Result<GalleryPage> {
    let probe = &shown.batch;
    let side = probe.size;
    let pixels = (side * side) as usize;
    let mask_pixels = masks.len() / probe.images.max(1);
    let mask_side = (mask_pixels as f64).sqrt() as u32;
    let images = (0..probe.images)
        .map(|i| {
            let planes = |all: &[f32]| colour_png(&all[i * 3 * pixels..(i + 1) * 3 * pixels], side);
            let labels = &masks[i * mask_pixels..(i + 1) * mask_pixels];
            Ok(GalleryImage {
                sample: probe.samples[i],
                key: dataset.key(probe.samples[i]),
                // Views and images never change: only the first page carries them.
                raw_png: if epoch == 0 { planes(&probe.raw.to_float32())? } else { Base64(Vec::new()) },
                view1_png: if epoch == 0 { planes(&probe.view1.to_float32())? } else { Base64(Vec::new()) },
                view2_png: if epoch == 0 { planes(&probe.view2.to_float32())? } else { Base64(Vec::new()) },
                prior_png: if epoch == 0 {
                    grey_png(&probe.prior[i * pixels..(i + 1) * pixels], side)?
                } else {
                    Base64(Vec::new())
                },
                mask_png: grey_png(labels, mask_side)?,
                mask_count: distinct(labels),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(GalleryPage {
        epoch,
        step,
        k,
        average_best_overlap: shown.overlap(masks),
        prior_average_best_overlap: shown.overlap(&probe.prior),
        images,
    })
}

fn distinct(labels: &[u8]) -> u32 {
    let mut seen = [false; 256];
    for &label in labels {
        seen[usize::from(label)] = true;
    }
    seen.iter().filter(|s| **s).count() as u32
}

/// Normalised planes (3, side, side) back to an 8-bit picture.
fn colour_png(planes: &[f32], side: u32) -> Result<Base64> {
    let pixels = (side * side) as usize;
    let mut rgb = vec![0_u8; pixels * 3];
    for channel in 0..3 {
        for pixel in 0..pixels {
            let value = planes[channel * pixels + pixel] * DEVIATION[channel] + MEAN[channel];
            rgb[pixel * 3 + channel] = (value * 255.0).round().clamp(0.0, 255.0) as u8;
        }
    }
    encode(&rgb, side, png::ColorType::Rgb)
}

fn grey_png(labels: &[u8], side: u32) -> Result<Base64> {
    encode(labels, side, png::ColorType::Grayscale)
}

fn encode(bytes: &[u8], side: u32, colour: png::ColorType) -> Result<Base64> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().context("cannot start a picture of the gallery")?;
    writer.write_image_data(bytes).context("cannot encode a picture of the gallery")?;
    writer.finish().context("cannot finish a picture of the gallery")?;
    Ok(Base64(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_start_with_the_untrained_network_and_end_with_the_last_epoch() {
        assert!(due(0, 300) && due(300, 300) && due(7, 7));
        assert!((0..=300).filter(|&done| due(done, 300)).count() <= PAGES_MAX as usize + 2);
        assert!((0..=5).all(|done| due(done, 5)), "a short run shows every epoch");
    }

    #[test]
    fn chosen_samples_are_spread_and_exist() {
        assert_eq!(choose(134).len(), 8);
        assert!(choose(134).iter().all(|&s| s < 134));
        assert_eq!(choose(3), [0, 1, 2]);
        assert!(choose(0).is_empty());
    }

    #[test]
    fn labels_survive_the_picture() {
        let Base64(bytes) = grey_png(&[0, 7, 255, 3], 2).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut out = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut out).unwrap();
        assert_eq!(out, [0, 7, 255, 3]);
    }
}
