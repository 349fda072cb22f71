//! Where a span of a trace stands: ids that are functions of what they name, never of chance.
//!
//! Whoever knows the same words derives the same ids, so that spans of several processes meet in one trace although none
//! of them has seen the others.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// A span, and the trace that it is of. Only sampled ones are passed on: a trace that is not kept has no context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Not 0.
    pub trace_id: u128,
    /// Not 0.
    pub span_id: u64,
}

impl TraceContext {
    /// The first span of the trace that has this name.
    #[must_use]
    pub fn root(name: &str) -> Self {
        let trace_id = xxh3_128(name.as_bytes()).max(1);
        Self { trace_id, span_id: xxh3_64(name.as_bytes()).max(1) }
    }

    /// The span of this name under this one.
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        let words = [self.span_id.to_le_bytes().as_slice(), name.as_bytes()].concat();
        Self { span_id: xxh3_64(&words).max(1), ..self }
    }

    /// Whether a trace is kept where this share of all is, from 0 to 1. The lowest 56 bits of its id decide, as W3C Trace
    /// Context Level 2 and OpenTelemetry's consistent sampling have it, so that others can come to the same answer.
    #[must_use]
    pub fn is_kept(self, ratio: f64) -> bool {
        const RANGE: u64 = 1 << 56;
        let threshold = ((1.0 - ratio.clamp(0.0, 1.0)) * RANGE as f64) as u64;
        self.trace_id as u64 % RANGE >= threshold
    }
}

/// W3C `traceparent`, `00-TRACE-SPAN-01`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

/// The text is no `traceparent` of a sampled trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent of a sampled trace")]
pub struct NoContext;

impl FromStr for TraceContext {
    type Err = NoContext;

    /// Reads a `traceparent` of version 00, or the part of a later one that is as in 00.
    fn from_str(text: &str) -> Result<Self, NoContext> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(NoContext)?;
            let lower = part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            u128::from_str_radix(part, 16).ok().filter(|_| lower).ok_or(NoContext)
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)? as u64, hex(2)?);
        let known = version == 0 && parts.next().is_none() || (1..0xff).contains(&version);
        let sampled = trace_id != 0 && span_id != 0 && flags & 1 == 1;
        if known && sampled { Ok(Self { trace_id, span_id }) } else { Err(NoContext) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_one_place() {
        let root = TraceContext::root("imagenet 1 steps 3 0");
        assert_eq!(root, TraceContext::root("imagenet 1 steps 3 0"));
        assert_ne!(root.trace_id, TraceContext::root("imagenet 1 steps 3 1").trace_id);
        let (a, b) = (root.child("step 4"), root.child("step 5"));
        assert_eq!((a.trace_id, b.trace_id), (root.trace_id, root.trace_id));
        assert!(a.span_id != b.span_id && a.span_id != root.span_id);
        assert_ne!(a.child("worker"), b.child("worker"));
    }

    #[test]
    fn the_example_of_the_standard_is_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read: TraceContext = text.parse().unwrap();
        assert_eq!(read.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(read.to_string(), text);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like";
        assert_eq!(later.parse(), Ok(read));
    }

    #[test]
    fn what_is_no_sampled_context_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(NoContext), "{text}");
        }
    }

    #[test]
    fn about_the_asked_share_is_kept() {
        let kept = |ratio| (0..10_000).filter(|n| TraceContext::root(&format!("job {n}")).is_kept(ratio)).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 10_000));
        assert!((2_200..2_800).contains(&kept(0.25)), "{}", kept(0.25));
    }

    proptest! {
        #[test]
        fn any_context_is_read_back(trace_id in 1_u128.., span_id in 1_u64..) {
            let context = TraceContext { trace_id, span_id };
            prop_assert_eq!(context.to_string().parse(), Ok(context));
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC*") {
            let _read = text.parse::<TraceContext>();
        }
    }
}
