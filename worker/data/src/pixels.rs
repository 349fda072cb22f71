//! A batch's images as numbers, in memory that somebody else may provide.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use half::bf16;
use half::slice::HalfFloatSliceExt;
use memmap2::MmapMut;
use r2o_types::Dtype;
use r2o_types::pixels::{DEVIATION, MEAN};

use crate::simd::Past;

/// Memory from whoever wants pixels to lie in a special place, such as one that a GPU reads by itself.
pub trait Memory: fmt::Debug + Send + Sync {
    /// `bytes` bytes of any content, aligned for float32 numbers; `None`: there are none left, ordinary memory will do.
    fn block(&self, bytes: usize) -> Option<Box<dyn Block>>;
}

/// A stretch of such memory.
pub trait Block: fmt::Debug + Send + Sync {
    /// Its bytes.
    fn bytes(&self) -> &[u8];
    /// Its bytes, to be written.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// Ordinary memory.
impl Block for Vec<f32> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }
}

/// Whole pages.
impl Block for MmapMut {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// Memory of this process, in large pages where the system has them: a batch would be tens of thousands of small ones, each
/// looked up anew for each image.
fn ordinary(bytes: usize) -> Box<dyn Block> {
    match MmapMut::map_anon(bytes) {
        Ok(pages) => {
            // Small ones do as well.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            Box::new(pages)
        }
        Err(_) => Box::new(vec![0_f32; bytes.div_ceil(size_of::<f32>())]),
    }
}

/// Numbers of one type, one after another.
#[derive(Debug)]
pub struct Pixels {
    dtype: Dtype,
    block: Option<Box<dyn Block>>,
    /// Numbers that count; the block may be longer.
    len: usize,
}

impl Pixels {
    /// No numbers.
    pub(crate) fn none(dtype: Dtype) -> Self {
        Self { dtype, block: None, len: 0 }
    }

    /// Makes room for `len` numbers of any value.
    pub(crate) fn resize(&mut self, len: usize, memory: Option<&Arc<dyn Memory>>) {
        let bytes = len * self.dtype.bytes();
        if self.block.as_ref().is_none_or(|block| block.bytes().len() < bytes) {
            let special = memory.and_then(|memory| memory.block(bytes)).filter(|block| block.bytes().len() >= bytes);
            self.block = Some(special.unwrap_or_else(|| ordinary(bytes)));
        }
        self.len = len;
    }

    /// Takes the numbers, and leaves none.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::none(self.dtype))
    }

    /// Their type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The numbers' bytes, in this machine's order.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes()[..self.len * self.dtype.bytes()])
    }

    /// The numbers as float32: normalised, or levels if they are uint8.
    #[must_use]
    pub fn to_float32(&self) -> Cow<'_, [f32]> {
        match self.dtype {
            Dtype::Float32 => Cow::Borrowed(bytemuck::cast_slice(self.bytes())),
            Dtype::Bfloat16 => Cow::Owned(bytemuck::cast_slice::<_, bf16>(self.bytes()).to_f32_vec()),
            Dtype::Uint8 => Cow::Owned(self.bytes().iter().map(|&level| f32::from(level)).collect()),
        }
    }

    /// Stretches of `len` numbers, to be written.
    pub(crate) fn sheets(&mut self, len: usize) -> Sheets<'_> {
        let bytes = self.len * self.dtype.bytes();
        let bytes = self.block.as_mut().map_or(&mut [][..], |block| &mut block.bytes_mut()[..bytes]);
        match self.dtype {
            Dtype::Float32 => Sheets::Float32(bytemuck::cast_slice_mut(bytes).chunks_exact_mut(len)),
            Dtype::Bfloat16 => Sheets::Bfloat16(bytemuck::cast_slice_mut(bytes).chunks_exact_mut(len)),
            Dtype::Uint8 => Sheets::Uint8(bytes.chunks_exact_mut(len)),
        }
    }
}

/// Equal when the numbers are, wherever they lie.
impl PartialEq for Pixels {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.bytes() == other.bytes()
    }
}

/// In ordinary memory.
impl Clone for Pixels {
    fn clone(&self) -> Self {
        let mut copy = Self::none(self.dtype);
        copy.resize(self.len, None);
        if let Some(block) = &mut copy.block {
            let bytes = self.bytes();
            block.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        }
        copy
    }
}

/// The stretches of [`Pixels::sheets`].
pub(crate) enum Sheets<'a> {
    Float32(std::slice::ChunksExactMut<'a, f32>),
    Bfloat16(std::slice::ChunksExactMut<'a, bf16>),
    Uint8(std::slice::ChunksExactMut<'a, u8>),
}

impl<'a> Iterator for Sheets<'a> {
    type Item = Sheet<'a>;

    fn next(&mut self) -> Option<Sheet<'a>> {
        match self {
            Self::Float32(sheets) => sheets.next().map(Sheet::Float32),
            Self::Bfloat16(sheets) => sheets.next().map(Sheet::Bfloat16),
            Self::Uint8(sheets) => sheets.next().map(Sheet::Uint8),
        }
    }
}

/// One image's place.
pub(crate) enum Sheet<'a> {
    Float32(&'a mut [f32]),
    Bfloat16(&'a mut [bf16]),
    Uint8(&'a mut [u8]),
}

/// Numbers that are laid into a sheet at a time, at most: those that are rounded pass through so many.
pub(crate) const STRIP: usize = 64;

impl Sheet<'_> {
    /// What values in [0, 1] of a channel are to be multiplied with, and what is to be added, before they are laid: to normalise
    /// them, or to make them levels that lie half a level too high.
    pub(crate) fn scale(&self, channel: usize) -> [f32; 2] {
        match self {
            Self::Float32(_) | Self::Bfloat16(_) => [1.0 / DEVIATION[channel], -MEAN[channel] / DEVIATION[channel]],
            Self::Uint8(_) => [255.0, 0.5],
        }
    }

    /// Lays at most [`STRIP`] scaled values into the sheet. bfloat16 numbers are the nearest, ties to even, as autocast makes
    /// them; levels are cut down, so that they are the nearest too.
    #[inline(always)]
    pub(crate) fn lay(&mut self, past: &Past, at: usize, values: &[f32]) {
        match self {
            Self::Float32(sheet) => past.write(&mut sheet[at..], values),
            Self::Bfloat16(sheet) => {
                let mut near = [bf16::ZERO; STRIP];
                near.iter_mut().zip(values).for_each(|(near, &value)| *near = bf16::from_f32(value));
                past.write(&mut sheet[at..], &near[..values.len()]);
            }
            Self::Uint8(sheet) => {
                let mut near = [0_u8; STRIP];
                near.iter_mut().zip(values).for_each(|(near, &value)| *near = value as u8);
                past.write(&mut sheet[at..], &near[..values.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Little(std::sync::atomic::AtomicUsize);

    impl Memory for Little {
        fn block(&self, bytes: usize) -> Option<Box<dyn Block>> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (bytes <= 64).then(|| Box::new(vec![9.0_f32; bytes.div_ceil(4)]) as Box<dyn Block>)
        }
    }

    struct Laid<'a, 'b>(&'a mut Sheet<'b>, &'a [f32]);

    impl crate::simd::Kernel for Laid<'_, '_> {
        #[inline(always)]
        fn run<R: crate::simd::Registers>(self, past: &Past) {
            self.0.lay(past, 0, self.1);
        }
    }

    #[test]
    fn numbers_are_the_nearest_of_their_type_wherever_they_lie() {
        let values = [1.0, -2.003_906_3, 0.1, 1e-30, 3.4e38, 254.9];
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Uint8] {
            let little = Arc::new(Little::default());
            let memory: Arc<dyn Memory> = little.clone();
            let mut pixels = Pixels::none(dtype);
            pixels.resize(6, Some(&memory));
            for (number, mut sheet) in pixels.sheets(3).enumerate() {
                crate::simd::Level::best().run(Laid(&mut sheet, &values[number * 3..][..3]));
            }
            let expected: Vec<f32> = match dtype {
                Dtype::Float32 => values.to_vec(),
                Dtype::Bfloat16 => values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect(),
                Dtype::Uint8 => values.iter().map(|v| v.trunc().clamp(0.0, 255.0)).collect(),
            };
            assert_eq!(pixels.to_float32()[..], expected[..]);
            assert_eq!(pixels.clone(), pixels);
            // Once there is room it stays; more than the memory has comes from elsewhere.
            pixels.resize(4, Some(&memory));
            assert_eq!(pixels.to_float32()[..], expected[..4]);
            pixels.resize(100, Some(&memory));
            assert_eq!((pixels.len(), little.0.load(std::sync::atomic::Ordering::Relaxed)), (100, 2));
        }
    }
}
