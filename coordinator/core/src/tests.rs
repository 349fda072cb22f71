//! The core under hand-written and random events.

mod grow;
mod kit;
mod large;
mod life;
mod queue;
mod random;
mod rare;
mod versions;
