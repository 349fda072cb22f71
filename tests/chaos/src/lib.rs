//! Chaos with real processes: faults from a seed, at random moments of a run, and an oracle that needs no luck: the run ends,
//! its history has every step once, and its final weights are, bit by bit, those of an undisturbed run of one worker.
//!
//! ```text
//! fault (what can happen, drawn from a seed) ── run (does it, and waits until the fleet has recovered) ── watch (what the
//! coordinator says of the job, all the time) ── table (how long it took, by kind)
//! ```

mod fault;
mod run;
mod table;
mod watch;

pub use fault::{Fault, Kind, draw};
pub use run::{Chaos, Outcome};
pub use table::table;
