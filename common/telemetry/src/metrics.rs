//! Numbers for monitoring: declared once, in [`table`], kept in cheap handles, shown as text.
//!
//! The number of series is bounded whatever happens in a fleet: labels take their values from closed sets, all else becomes
//! `other`; names of jobs are taken up to a cap, and go when many have ended since.

mod declaration;
mod family;
mod histogram;
mod process;
mod registry;
pub mod table;

pub use declaration::{Declaration, Kind, Label, Unit, Values};
pub use family::{Counter, Gauge, Histogram, OTHER, Point, Reading};
pub use process::Process;
pub use registry::{CONTENT_TYPE, Registry};
