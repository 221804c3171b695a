//! The figures: what is measured, beside what the machine could do at best.
//!
//! Each figure is a [`Row`]. Beside it stands its *floor*: a small reference
//! program that does the unavoidable work and nothing else, run in turn with
//! the measurement, so that a noisy machine slows both. A mark is a ratio to
//! the floor; absolute values are information. Nothing here decides anything
//! in a test: speed lives in `bench`, which prints a table.

pub mod chain;
pub mod disk;
pub mod machine;
pub mod quic;
pub mod row;
pub mod sample;
