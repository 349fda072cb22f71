//! What the process tests share: real programs on free loopback ports, conditions to wait for, the photographs packed.
//!
//! Nothing here waits by the clock: [`wait_until`] asks again until a condition holds or its deadline passes. Every
//! process runs in its own group, which is killed when its handle is dropped.

mod binary;
mod certificates;
mod fixture;
mod fleet;
mod network;
mod port;
mod process;
mod skip;
mod wait;

pub use binary::{binary, repository, run};
pub use certificates::Authority;
pub use fixture::{packed_photos, packed_photos_with_objects, photos};
pub use fleet::{Coordinator, Fleet, FleetOptions, Worker, WorkerOptions};
pub use network::{Host, NEEDS as NETWORK_NEEDS, Network};
pub use port::free_port;
pub use process::{Process, Signal};
pub use skip::{not_run, python};
pub use wait::wait_until;
