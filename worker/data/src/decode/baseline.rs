//! Usual JPEGs, decoded by ourselves: baseline, whole, Huffman codes (ITU-T T.81), with libjpeg-turbo's pixels.
//!
//! Most of a JPEG's time goes into its Huffman codes. Here a code, the run before a coefficient and the coefficient itself are
//! one look into a table, and blocks lie in memory as the next stage wants them: many beside each other. What is not usual in
//! any way (progressive, other colours or samplings, damage) is left to libjpeg-turbo, so that nothing depends on this being
//! complete.

mod colour;
mod header;
mod huffman;
mod inverse;
#[cfg(test)]
mod tests;

use crate::decode::{Canvas, PIXELS_LARGE};
use crate::error::DecodeError;
use crate::simd::{Kernel, Level, Past, Registers, WORDS};

use colour::Rows;
use header::{COMPONENTS, Frame, Header};
use huffman::{Codes, Scan};
use inverse::Beyond;

/// Blocks that are worked on together, one beside the other.
const LANES: usize = WORDS;
/// Values of a block.
const VALUES: usize = 64;
/// Pixels of a block's side.
const SIDE: usize = 8;
/// Rows of blocks in an MCU at most: two of luma, and one of each chroma.
const GROUPS: usize = 4;

/// Coefficients of many blocks, or what they are turned into: each value of all blocks, one after another.
type Group = [[i16; LANES]; VALUES];

/// A component's samples.
#[derive(Default)]
struct Plane {
    samples: Vec<u8>,
    stride: usize,
}

/// A decoder with its buffers, one per thread.
#[derive(Default)]
pub(super) struct Baseline {
    codes: Codes,
    scan: Scan,
    groups: Vec<Group>,
    planes: [Plane; COMPONENTS],
    rows: Rows,
}

impl Baseline {
    /// Decodes a picture that is usual in all respects. `false`: it is not, and the canvas holds nothing.
    ///
    /// # Errors
    /// When it is too large by its header.
    pub(super) fn decode(&mut self, level: Level, bytes: &[u8], canvas: &mut Canvas) -> Result<bool, DecodeError> {
        let Some(header) = Header::read(bytes, &mut self.codes) else { return Ok(false) };
        let frame = &header.frame;
        if frame.width as u64 * frame.height as u64 > PIXELS_LARGE || !self.scan.read(header.scan) {
            return Ok(false);
        }
        // The header's sides have 16 bits.
        let pixels = canvas.take(frame.width as u32, frame.height as u32)?;
        let mut whole = false;
        level.run(Decode { baseline: self, header: &header, pixels, whole: &mut whole });
        Ok(whole)
    }
}

/// The work after the headers.
struct Decode<'a, 'b> {
    baseline: &'a mut Baseline,
    header: &'a Header<'b>,
    pixels: &'a mut [u8],
    whole: &'a mut bool,
}

impl Kernel for Decode<'_, '_> {
    #[inline(always)]
    fn run<R: Registers>(self, _: &Past) {
        let Self { baseline, header, pixels, whole } = self;
        let Baseline { codes, scan, groups, planes, rows } = baseline;
        *whole = planes_of::<R>(header, codes, scan, groups, planes).is_some();
        if *whole {
            rows.paint(&header.frame, planes, pixels);
        }
    }
}

/// Decodes all blocks into the components' planes. `None`: something is not as it should be.
#[inline(always)]
fn planes_of<R: Registers>(
    header: &Header<'_>,
    codes: &Codes,
    scan: &Scan,
    groups: &mut Vec<Group>,
    planes: &mut [Plane; COMPONENTS],
) -> Option<()> {
    let frame = &header.frame;
    let [across, down] = frame.mcus();
    // As many MCUs as have a group of luma in a row: more would not stay in the fastest cache.
    let chunk = LANES / frame.sampling()[0];
    for (plane, component) in planes.iter_mut().zip(frame.components()) {
        // Groups of chroma may be wider than what they hold.
        plane.stride = (across.div_ceil(chunk) * chunk * component.across + LANES) * SIDE;
        plane.samples.resize(plane.stride * down * component.down * SIDE, 0);
    }
    groups.resize(GROUPS, [[0; LANES]; VALUES]);
    let groups = groups.first_chunk_mut::<GROUPS>()?;
    let mut reader = scan.reader();
    let mut predictions = [0_i32; COMPONENTS];
    let (mut left, mut beyond) = (header.restart, Beyond::<R>::none());
    for row in 0..down {
        for first in (0..across).step_by(chunk) {
            groups.iter_mut().for_each(|group| *group = [[0; LANES]; VALUES]);
            for mcu in 0..chunk.min(across - first) {
                if header.restart > 0 {
                    if left == 0 {
                        reader.restart()?;
                        predictions = [0; COMPONENTS];
                        left = header.restart;
                    }
                    left -= 1;
                }
                let mut groups = groups.iter_mut();
                for (component, prediction) in frame.components().iter().zip(&mut predictions) {
                    let tables = codes.of(component)?;
                    for group in groups.by_ref().take(component.down) {
                        for x in 0..component.across {
                            reader.block(tables, prediction, group, mcu * component.across + x)?;
                        }
                    }
                }
            }
            let mut groups = groups.iter_mut();
            for (plane, component) in planes.iter_mut().zip(frame.components()) {
                let quantisation = header.quantisation(component)?;
                for (y, group) in groups.by_ref().take(component.down).enumerate() {
                    let at = ((row * component.down + y) * plane.stride + first * component.across) * SIDE;
                    inverse::transform(group, quantisation, &mut plane.samples[at..], plane.stride, &mut beyond);
                }
            }
        }
        if reader.beyond() {
            return None;
        }
    }
    (reader.ended() && beyond.is_none()).then_some(())
}

impl Frame {
    /// MCUs across and down.
    fn mcus(&self) -> [usize; 2] {
        let [across, down] = self.sampling();
        [self.width.div_ceil(SIDE * across), self.height.div_ceil(SIDE * down)]
    }
}
