//! Label maps as shards store them.
//!
//! ```text
//! 8 bytes   R2OSLIC1
//! 16 bytes  XXH3-128 of the definition, segments, size and the image's bytes
//! 2 bytes   side in pixels
//! 2 bytes   number of regions
//! the rest  side * side labels, zstd
//! ```
//!
//! Numbers are little-endian. The hash ties a map to the image and the definition that it was made from: one that was left
//! from another image, or made otherwise, is never used. It guards against mistakes, not against forgers: a shard's bytes are
//! under the BLAKE3 of their chunk. Sets of format 1 have 8-bit grey PNGs, which say no more than their size.

use xxhash_rust::xxh3::Xxh3Default;
use zstd::bulk::Decompressor;

use crate::error::DecodeError;

const MAGIC: [u8; 8] = *b"R2OSLIC1";
const HEAD: usize = 28;
/// Compresses well enough; packing spends its time on SLIC.
#[cfg(any(test, feature = "pack"))]
const LEVEL: i32 = 9;

/// What all label maps of a set have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Names the algorithm, its parameters, the resize and the decoder.
    pub(crate) definition: String,
    /// Segments asked of SLIC.
    pub(crate) segments: u32,
    /// Side in pixels.
    pub(crate) size: u32,
    /// The set's format.
    pub(crate) format: u32,
}

impl Binding {
    fn hash(&self, image: &[u8]) -> [u8; 16] {
        let mut hasher = Xxh3Default::new();
        hasher.update(&(self.definition.len() as u64).to_le_bytes());
        hasher.update(self.definition.as_bytes());
        hasher.update(&self.segments.to_le_bytes());
        hasher.update(&self.size.to_le_bytes());
        hasher.update(image);
        hasher.digest128().to_le_bytes()
    }
}

/// Reads label maps with buffers of its own, one per thread.
pub(crate) struct Maps {
    zstd: Option<Decompressor<'static>>,
    /// Room for a map of another size than the views'.
    pub(crate) room: Vec<u8>,
}

fn broken(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Broken(error.to_string())
}

impl Maps {
    pub(crate) fn new() -> Self {
        Self { zstd: None, room: Vec::new() }
    }

    /// Reads the map of `image` into `out`, size * size labels.
    pub(crate) fn read(
        &mut self,
        binding: &Binding,
        stored: &[u8],
        image: &[u8],
        out: &mut [u8],
    ) -> Result<(), DecodeError> {
        if binding.format == 1 {
            return png(stored, binding.size, out);
        }
        let Some((head, packed)) = stored.split_first_chunk::<HEAD>() else {
            return Err(broken(format_args!("a label map of {} bytes, which is too short for its head", stored.len())));
        };
        if head[..8] != MAGIC {
            return Err(broken("a label map without its mark: it was not made by this program"));
        }
        if head[8..24] != binding.hash(image) {
            return Err(broken("the label map belongs to another image or another definition"));
        }
        let side = u32::from(u16::from_le_bytes([head[24], head[25]]));
        if side != binding.size {
            return Err(wrong_side(side, side, binding.size));
        }
        let regions = u16::from_le_bytes([head[26], head[27]]);
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            empty => empty.insert(Decompressor::new().map_err(broken)?),
        };
        let length = zstd.decompress_to_buffer(packed, out).map_err(broken)?;
        if length != out.len() {
            return Err(broken(format_args!("the label map ends after {length} of {} labels", out.len())));
        }
        // By whole registers, which `max` does not.
        let label = out.iter().fold(0, |most, &label| label.max(most));
        if u16::from(label) >= regions {
            return Err(broken(format_args!("the label map has label {label}, its head says {regions} regions")));
        }
        Ok(())
    }
}

fn wrong_side(width: u32, height: u32, wanted: u32) -> DecodeError {
    broken(format_args!("a label map of {width} x {height} pixels, expected {wanted} x {wanted} in 8-bit grey"))
}

/// A label map of `image` as it is stored.
#[cfg(any(test, feature = "pack"))]
pub(crate) fn stored(binding: &Binding, labels: &[u8], image: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let regions = labels.iter().max().map_or(0, |&label| u16::from(label) + 1);
    let side = u16::try_from(binding.size).map_err(broken)?;
    let packed = zstd::bulk::Compressor::new(LEVEL).and_then(|mut zstd| zstd.compress(labels)).map_err(broken)?;
    let mut bytes = head(binding, side, regions, image);
    bytes.extend(packed);
    Ok(bytes)
}

fn head(binding: &Binding, side: u16, regions: u16, image: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD);
    bytes.extend(MAGIC);
    bytes.extend(binding.hash(image));
    bytes.extend(side.to_le_bytes());
    bytes.extend(regions.to_le_bytes());
    bytes
}

/// Reads made-up label maps of `size` pixels: `bytes` as one of format 1, and as one of today's behind a head that fits, which
/// nothing made up would have. For fuzzing; gives back how many could be read.
#[doc(hidden)]
#[must_use]
pub fn read_made_up(bytes: &[u8], size: u16) -> usize {
    let mut labels = vec![0; usize::from(size) * usize::from(size)];
    let readable = [1, 2].into_iter().filter(|&format| {
        let binding = Binding { definition: String::new(), segments: 1, size: u32::from(size), format };
        let mut map = if format == 1 { Vec::new() } else { head(&binding, size, 200, &[]) };
        map.extend(bytes);
        Maps::new().read(&binding, &map, &[], &mut labels).is_ok()
    });
    readable.count()
}

/// A label map of format 1.
fn png(bytes: &[u8], side: u32, out: &mut [u8]) -> Result<(), DecodeError> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().map_err(broken)?;
    let info = reader.info();
    let grey = info.color_type == png::ColorType::Grayscale && info.bit_depth == png::BitDepth::Eight;
    if (info.width, info.height) != (side, side) || !grey {
        return Err(wrong_side(info.width, info.height, side));
    }
    reader.next_frame(out).map_err(broken)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Binding {
        Binding { definition: "test".to_owned(), segments: 100, size: 16, format: 2 }
    }

    fn read(binding: &Binding, stored: &[u8], image: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = vec![0; (binding.size * binding.size) as usize];
        Maps::new().read(binding, stored, image, &mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    fn labels() -> Vec<u8> {
        (0..=255).map(|label| label / 2).collect()
    }

    #[test]
    fn a_label_map_comes_back_with_its_own_image_and_definition_only() {
        let bytes = stored(&binding(), &labels(), b"image").unwrap();
        assert_eq!(read(&binding(), &bytes, b"image").unwrap(), labels());
        let others = [
            Binding { definition: "other".to_owned(), ..binding() },
            Binding { segments: 99, ..binding() },
            Binding { size: 32, ..binding() },
        ];
        for other in others {
            assert!(read(&other, &bytes, b"image").unwrap_err().contains("another"), "{other:?}");
        }
        assert!(read(&binding(), &bytes, b"another image").unwrap_err().contains("another image"));
    }

    #[test]
    fn what_fuzzing_makes_up_can_be_read_when_it_is_sound() {
        let packed = zstd::bulk::compress(&labels(), 3).unwrap();
        assert_eq!((read_made_up(&packed, 16), read_made_up(&packed, 8), read_made_up(&packed[1..], 16)), (1, 0, 0));
    }

    #[test]
    fn damaged_label_maps_are_refused() {
        let bytes = stored(&binding(), &labels(), b"image").unwrap();
        for length in [0, 7, HEAD, bytes.len() - 1] {
            assert!(read(&binding(), &bytes[..length], b"image").is_err(), "{length} bytes");
        }
        let mut wild = bytes.clone();
        wild[24..26].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(read(&binding(), &wild, b"image").unwrap_err().contains("65535 x 65535"));
        let mut few = bytes.clone();
        few[26..28].copy_from_slice(&3_u16.to_le_bytes());
        assert!(read(&binding(), &few, b"image").unwrap_err().contains("3 regions"));
        // More labels than there is room for: a bomb.
        let mut bomb = bytes[..HEAD].to_vec();
        bomb.extend(zstd::bulk::compress(&vec![0; 1 << 24], 3).unwrap());
        assert!(read(&binding(), &bomb, b"image").is_err());
        assert!(read(&binding(), b"\x89PNG\r\n\x1a\n and so on, long enough for a head", b"image").is_err());
    }

    #[test]
    fn format_1_has_pngs_and_another_size_is_refused() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 16, 16);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&labels()).unwrap();
        let old = Binding { format: 1, ..binding() };
        assert_eq!(read(&old, &bytes, b"any image").unwrap(), labels());
        assert!(read(&Binding { size: 32, ..old }, &bytes, b"").unwrap_err().contains("16 x 16"));
        assert!(read(&binding(), &bytes, b"any image").is_err(), "a PNG says nothing of its image");
    }
}
