//! Runs kernels compiled for the processor at hand: plainly, for AVX2 or for AVX-512.
//!
//! A kernel is written once, in plain loops that the compiler vectorises for each of the three. None fuses multiplications with
//! additions, and the order of sums is part of the code, so all give the same bytes.
#![allow(unsafe_code)]

/// Work whose `run`, and all that it calls, is inlined always: so it is compiled for the processor of whoever runs it.
pub(crate) trait Kernel {
    /// Does it.
    fn run(self);
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
            let avx2 = has!("avx2");
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
        match self.0 {
            Kind::Plain => kernel.run(),
            // SAFETY: a level beyond the plain one comes from `all`, which asked the processor.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86::avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { x86::avx512(kernel) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Kernel;

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(kernel: impl Kernel) {
        kernel.run();
    }

    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn avx512(kernel: impl Kernel) {
        kernel.run();
    }
}
