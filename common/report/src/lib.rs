//! The report of a run: one HTML file that needs nothing else, and the figure of its masks as one PNG.
//!
//! [`render`] and [`figure_png`] are pure functions of a [`ReportInput`]; only [`collect`] reads, from a run's store.
//!
//! ```text
//! collect ──► ReportInput ──► render ──► page (maud) ── curves (plotters, SVG)
//!                        └──► figure_png ──┴── masks ── colours, pictures
//!                  pages ──► tiles ─────────┘
//! ```

mod collect;
mod colours;
mod curves;
mod figure;
mod glyphs;
mod input;
mod masks;
mod page;
mod pictures;
mod style;
mod tiles;
pub mod words;

pub use collect::{CollectError, collect};
pub use curves::{Curve, curve};
pub use figure::{FigureOptions, figure_png};
pub use input::{Checkpoint, ReportInput};
pub use page::{OVERLAP, render};
pub use pictures::PictureError;
pub use tiles::{Tiles, tiles};
