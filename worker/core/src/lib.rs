//! The pure lifecycle of a worker: what it does next, decided without IO, clocks or randomness.
//!
//! The shell (worker/agent) feeds [`Event`]s into [`Core::handle`] and carries out the [`Command`]s that come back. Work
//! of one generation runs strictly in the order in which the coordinator granted it, one item at a time, so that a
//! checkpoint always falls between two steps. Whatever belongs to another generation than the current one is dropped
//! (promise 5: one writer).
//!
//! A generation that ends leaves its state behind, parked, so that the next one can go on with it: that is why a lost peer
//! costs no more than the step in flight. A broken stream ends nothing by itself: the worker computes what was granted,
//! connects again, and says what it holds.

mod event;
mod machine;

pub use event::{Assignment, Command, Event, ExitReason, Failure, Held, Member, Start, Ticket};
pub use machine::{Core, Phase};

#[cfg(test)]
mod tests;
