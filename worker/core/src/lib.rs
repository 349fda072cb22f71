//! The pure lifecycle of a worker: what it does next, decided without IO, clocks or randomness.
//!
//! The shell (worker/agent) feeds [`Event`]s into [`Core::handle`] and carries out the [`Command`]s that come back. Work
//! of one generation runs strictly in the order in which the coordinator granted it, one item at a time, so that a
//! checkpoint always falls between two steps. Whatever belongs to another generation than the current one is dropped
//! (promise 5: one writer).

mod event;
mod machine;

pub use event::{Assignment, Command, Event, ExitReason, Failure, Member, Ticket};
pub use machine::{Core, Phase};

#[cfg(test)]
mod tests;
