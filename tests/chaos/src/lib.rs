//! Chaos with real processes: faults from a seed, at random moments of a run, and an oracle that needs no luck: the run ends,
//! its history has every step once, its ledger proves each sample once, and its final weights are, bit by bit, those of an undisturbed run of one worker.
//!
//! ```text
//! fault (what can happen, drawn from a seed) ── run ── damage (does it, and undoes it) ── table (how long it took, by kind)
//!                                 ground (where: loopback and a small disk, or hosts and S3) ──┘└── watch (what the
//!                                                                     coordinator says of the job, all the time)
//! ```

mod damage;
mod fault;
mod ground;
mod run;
mod table;
mod watch;

pub use fault::{Fault, Kind, draw};
pub use ground::{Ground, Place};
pub use run::{Chaos, Outcome, Size, Trial, run};
pub use table::table;
