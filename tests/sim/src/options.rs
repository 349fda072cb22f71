//! What a run of the simulation is asked for, and what it answers.

use std::fmt;

/// A defect that is put in on purpose, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The coordinator's shell does not wait for the journal.
    OpenGate,
    /// A journal record replaces the one that is there.
    JournalOverwrite,
    /// A journal record may take the number of one that was trimmed.
    TrimReopens,
    /// A worker reports a step when it has computed, not when it has applied it.
    ReportBeforeApply,
    /// A step that is aborted leaves half of itself in the state.
    HalfStep,
    /// The search for the newest checkpoint does not look at checksums.
    TrustDamaged,
    /// Storage that fails counts as storage without checkpoints.
    StartFromScratch,
    /// A coordinator's restart forgets generations that the journal knows of.
    ForgetGenerations,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::OpenGate,
        Self::JournalOverwrite,
        Self::TrimReopens,
        Self::ReportBeforeApply,
        Self::HalfStep,
        Self::TrustDamaged,
        Self::StartFromScratch,
        Self::ForgetGenerations,
    ];
}

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A defect to put in.
    pub plant: Option<Plant>,
    /// Whether to keep lines for people.
    pub readable: bool,
}

/// The promises, by the names of ARCHITECTURE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Same run, any fleet.
    SameRun,
    /// Exactly once.
    ExactlyOnce,
    /// The step in flight is all that a killed worker costs.
    StepInFlight,
    /// No half state.
    NoHalfState,
    /// One writer.
    OneWriter,
    /// Never silently wrong.
    NeverSilentlyWrong,
    /// It says why.
    SaysWhy,
    /// Once faults stop, everything ends well.
    Heals,
    /// What a core says of itself holds.
    Core,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameRun => "same run, any fleet",
            Self::ExactlyOnce => "exactly once",
            Self::StepInFlight => "the step in flight",
            Self::NoHalfState => "no half state",
            Self::OneWriter => "one writer",
            Self::NeverSilentlyWrong => "never silently wrong",
            Self::SaysWhy => "it says why",
            Self::Heals => "heals once faults stop",
            Self::Core => "a core's own invariants",
        })
    }
}

/// A promise that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// Virtual microseconds since the start.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {:.3} s): {}", self.promise, self.at as f64 / 1e6, self.what)
    }
}

/// What a seed came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// One number for everything that happened.
    pub hash: u64,
    /// The first promise that did not hold; the run ends there.
    pub violation: Option<Violation>,
    /// Virtual microseconds.
    pub lasted: u64,
    /// How often what happened, by its name.
    pub counts: std::collections::BTreeMap<&'static str, u64>,
    /// For people; empty unless asked for.
    pub lines: Vec<String>,
}
