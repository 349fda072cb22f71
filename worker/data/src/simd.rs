//! Runs kernels compiled for the processor at hand: plainly, for AVX2 or for AVX-512.
//!
//! A kernel is written once. Simple loops are left to the compiler, which vectorises them for each of the three; those that sum
//! up in registers name [`Registers`], because the compiler keeps such sums in memory. None fuses multiplications with
//! additions, and the order of sums is part of the code, so all give the same bytes.
#![allow(unsafe_code)]

mod dot;
mod registers;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::marker::PhantomData;

use bytemuck::Pod;

pub(crate) use dot::Dot;
use registers::Plain;
pub(crate) use registers::{LANES, Numbers, Registers, WORDS, Words};

/// Bytes that processors read and write memory by.
const LINE: usize = 64;

/// Has the line of a byte fetched that is read soon.
#[inline(always)]
pub(crate) fn fetch(from: Option<&u8>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(from) = from {
        x86::fetch(from);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// Work whose `run`, and all that it calls, is inlined always: so it is compiled for the processor of whoever runs it.
pub(crate) trait Kernel {
    /// Does it.
    fn run<R: Registers>(self, past: &Past);
}

/// Writes past the caches: what nobody reads soon leaves them to what is worked on. Only a kernel has it, and what it wrote is
/// there when the kernel has run.
pub(crate) struct Past(PhantomData<*const ()>);

impl Past {
    /// Copies `values` to the front of `target`, which is as long or longer.
    #[inline(always)]
    pub(crate) fn write<T: Pod>(&self, target: &mut [T], values: &[T]) {
        let target = &mut target[..values.len()];
        #[cfg(target_arch = "x86_64")]
        let (target, values) = x86::stream(target, values);
        target.copy_from_slice(values);
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Past {
    fn drop(&mut self) {
        x86::fence();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Instructions that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(Kind);

impl Level {
    /// What every processor has.
    pub(crate) const PLAIN: Self = Self(Kind::Plain);

    /// All levels of this processor, the best one last.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let plain = std::iter::once(Self::PLAIN);
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("bmi1") && has!("bmi2");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            let vector = [(avx2, Kind::Avx2), (avx512, Kind::Avx512)];
            plain.chain(vector.into_iter().filter(|(there, _)| *there).map(|(_, kind)| Self(kind)))
        }
        #[cfg(not(target_arch = "x86_64"))]
        plain
    }

    pub(crate) fn best() -> Self {
        Self::all().last().unwrap_or(Self::PLAIN)
    }

    pub(crate) fn run(self, kernel: impl Kernel) {
        let past = Past(PhantomData);
        match self.0 {
            Kind::Plain => kernel.run::<Plain>(&past),
            // SAFETY: a level beyond the plain one comes from `all`, which asked the processor.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86::avx2(kernel, &past) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { x86::avx512(kernel, &past) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Copy<'a>(&'a mut [u16], &'a [u16]);

    impl Kernel for Copy<'_> {
        #[inline(always)]
        fn run<R: Registers>(self, past: &Past) {
            past.write(self.0, self.1);
        }
    }

    #[test]
    fn what_is_written_past_the_caches_is_there_and_no_more_wherever_lines_begin() {
        let values: Vec<u16> = (1..=200).collect();
        let mut memory = vec![0; 400];
        let line = memory.as_ptr().align_offset(LINE);
        for level in Level::all() {
            for (from, count) in [(line, 200), (line, 31), (line, 32), (line + 32, 97), (line + 1, 200), (line + 8, 0)]
            {
                memory.fill(0);
                level.run(Copy(&mut memory[from..], &values[..count]));
                assert_eq!(memory[from..][..count], values[..count], "{level:?}, {from}, {count}");
                assert!(
                    memory[..from].iter().chain(&memory[from + count..]).all(|&v| v == 0),
                    "{level:?}, {from}, {count}"
                );
            }
        }
    }
}
