//! Collectives, reducer and norm over real groups: threads with groups of their own, and real processes.
#![allow(clippy::unwrap_used, unsafe_code)]

mod collectives;
mod norm;
mod processes;
mod reducer;
mod support;
mod tcp_store;
