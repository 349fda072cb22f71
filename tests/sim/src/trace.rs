//! What happened, as one number and, for people, as lines.

use std::fmt;

use crate::dice::mix;

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actor {
    World,
    /// The process of a coordinator.
    Coordinator(u64),
    /// A worker by its place in the fleet.
    Worker(usize),
    Storage,
}

impl Actor {
    fn number(self) -> u64 {
        match self {
            Self::World => 1,
            Self::Storage => 2,
            Self::Coordinator(process) => 1_000 + process,
            Self::Worker(slot) => 1_000_000 + slot as u64,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.write_str("world"),
            Self::Storage => f.write_str("storage"),
            Self::Coordinator(process) => write!(f, "coordinator {process}"),
            Self::Worker(slot) => write!(f, "w{slot}"),
        }
    }
}

/// The trace of one run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    /// Lines are made only where somebody reads them.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(readable: bool) -> Self {
        Self { hash: 0, lines: readable.then(Vec::new) }
    }

    /// Takes in that `actor` did `what` with these numbers; `text` says the rest to people.
    pub(crate) fn say(
        &mut self,
        now: u64,
        actor: Actor,
        what: &'static str,
        numbers: [u64; 2],
        text: impl FnOnce() -> String,
    ) {
        let word = what.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        for number in [now, actor.number(), word, numbers[0], numbers[1]] {
            self.hash = mix(self.hash, number);
        }
        if let Some(lines) = &mut self.lines {
            let actor = actor.to_string();
            lines.push(format!("{:>9.3} s  {actor:<14} {what} {}", now as f64 / 1e6, text()));
        }
    }

    /// One number for all that was said.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
