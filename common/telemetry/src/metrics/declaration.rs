//! What a metric is, before it has a value.

use std::fmt;

/// How a value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up only, from 0 when the process starts; the name ends in `_total`.
    Counter,
    /// Up and down.
    Gauge,
    /// A distribution, counted in buckets.
    Histogram,
}

/// What a value is counted in: base units only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of something, or a number without a unit.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// Which values a label may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// These, and `other`.
    Of(&'static [&'static str]),
    /// Names of jobs, up to a cap.
    Jobs,
    /// A fact of the build: one value per process.
    Build,
}

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declaration {
    /// The whole name, as an expression says it.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it is counted in.
    pub unit: Unit,
    /// Its labels, in the order in which handles take their values.
    pub labels: &'static [Label],
    /// Upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
    /// What it says, in one sentence.
    pub help: &'static str,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl Unit {
    /// What a name of this unit ends in, apart from `_total`.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "_seconds",
            Self::Bytes => "_bytes",
        }
    }
}
