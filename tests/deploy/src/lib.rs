//! What the tests of `deploy/` share: the chart rendered by real Helms, and its objects as data.

mod chart;
mod objects;
mod podman;

pub use chart::{Helm, NEEDS, Release, chart, python, tool, values_files};
pub use objects::{containers, decoded, each, name, pod};
pub use podman::{NEEDS as PODMAN_NEEDS, Podman, hand_over};
