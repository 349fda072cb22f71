//! A fleet in virtual time: the real cores of coordinator and workers, and a model of everything around them, driven by a
//! seed. The same seed gives the same run, so a run that breaks a promise can be looked at again as often as needed.
//!
//! ```text
//! scenario, fault (what a seed decides) ── world (virtual time: what happens next) ── oracle, reasons (the promises)
//!    ├── coordinator (core, gate, journal, lease)   ├── worker (core, computing thread, forming)
//!    └── network (streams)     storage, effects (object store)     group (collectives)     course (the undisturbed run)
//! ```
//!
//! What is real: both cores, the gate, the journal's records and their replay, the job spec, schedules, epoch plan and
//! deal of lanes. What is modelled after the shells (coordinator/server, worker/agent), in one thread and without IO:
//!
//! - streams with their delays, that break, half-open, at each end at another time; partitions; in some seeds messages of
//!   one stream that come twice or out of order;
//! - rendezvous, process groups and collectives: nobody leaves one before all have entered it, some die before they leave;
//!   aborts that do not wake a thread; groups that do not form; engines that are parked, and the state that the member with
//!   the most steps hands to the others;
//! - storage that fails, is slow, loses answers, and damages a checkpoint;
//! - processes that are killed, stopped, drained once and twice, lost with their machines; coordinators that start anew, or
//!   beside each other, with clocks that jump;
//! - people who submit, pause, resume, requeue and cancel jobs and ask for checkpoints.
//!
//! A worker's state is a hash over all tickets' values and all lanes' samples that were applied to it, in order. An
//! undisturbed run has one such state after each step, and every state that exists anywhere is compared with it.
//!
//! A flipped bit that nobody could compare with another replica, or that came between a comparison and a copy, is counted
//! and not held against anybody. While messages of one stream lose their order, reasons and progress are not judged, and
//! those streams end with the faults.
//!
//! Not modelled: numbers (a loss is always finite), devices, the history's files, retention's leases, log lines.

mod coordinator;
mod course;
mod dice;
mod effects;
mod fault;
mod group;
mod happening;
mod network;
mod options;
mod oracle;
mod reasons;
mod scenario;
mod storage;
mod trace;
mod worker;
mod world;

pub use options::{Options, Plant, Promise, Report, Violation};

/// Runs one seed to its end, or to the first promise that does not hold.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    world::World::new(seed, options).run(seed)
}
