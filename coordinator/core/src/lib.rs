//! The coordinator's decisions, without IO, clocks or randomness.
//!
//! The shell (coordinator/server) feeds [`Event`]s into [`Core::handle`] with the time, and carries out the [`Command`]s
//! that come back, in order, each one once [`Gate`] lets it pass. Between events it wakes the core at [`Core::next_deadline`] with [`Event::Tick`]. The same
//! core runs in simulations with any number of workers.
//!
//! ```text
//! machine ── ask ── place, claim, grow (who trains what) ── run (tickets, reports) ── save (checkpoints) ── end (generations and jobs)
//!    ├── record (what the journal says), gate (what waits for it)
//!    └── event, command, reason: closed enums      state: jobs, generations, workers      view: what others may see
//! ```
//!
//! Invariants, checked by [`Core::check_invariants`] after every step of the random tests:
//! a worker is in at most one generation; generation numbers are never reused; the lanes of a generation are dealt
//! exactly once; committed steps never pass granted ones, granted ones never pass the window; an ended job has no workers.

mod ask;
mod claim;
mod command;
mod end;
mod event;
mod gate;
mod grow;
mod invariants;
mod machine;
mod parity;
mod place;
mod reason;
mod record;
mod run;
mod save;
mod state;
mod version;
mod view;

pub use command::{Assignment, Command, CommittedStep, Member, Notice, Start, Ticket};
pub use event::{Event, Held, LaneReport, NewJob, Resume, StepReport, Tensor, WorkerInfo};
pub use gate::Gate;
pub use machine::{Budgets, Config, Core};
pub use reason::{Outcome, Reason, Refusal};
pub use record::{End, Fold, JobFacts, Record, UnknownRecord};
pub use view::{JobState, JobView, WorkerState, WorkerView};

/// Milliseconds since 1970 that never go back.
pub type Millis = u64;

/// A worker's stream. A worker that reconnects has a new one, so that nothing late can be taken for new.
pub type Session = u64;

#[cfg(test)]
mod tests;
