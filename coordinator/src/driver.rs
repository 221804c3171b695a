//! The one task that owns the farm. Owns the order of everything: events in,
//! changes committed, effects out. Decides nothing (the farm does) and never
//! touches a socket (the [`Outbox`] does).
//!
//! Invariant: no effect of a batch is performed, and no reply given, before
//! its changes and those of every batch before it are durable.
//!
//! ```text
//!  agents lane ┐                    ┌ batch being gathered ─▶ batch in commit ┐
//!  HTTP lane   ├─▶ Farm::handle ──▶ │                        (store thread)   │
//!  deadline    ┘                    └ effects, replies, ledger ◀── committed ─┘
//! ```

mod batch;
mod clock;
mod guard;
mod handle;
mod health;
mod restore;
mod running;
mod turn;
mod writer;

pub use guard::{Guard, GuardError};
pub use handle::{DriverGone, FarmHandle, Lanes, Unavailable, lanes};
pub use health::{COMMIT_BOUNDS_US, CommitTimes, Health, Stall};
pub use running::{DriverError, Parts, Running, start};

use farmbell_farm::effect::Effect;

/// Performs what the farm asks for beside changes and replies. A full or
/// closed connection is the outbox's to deal with.
pub trait Outbox: Send {
    /// Never blocks.
    fn perform(&mut self, effect: Effect);
}

#[cfg(test)]
mod tests;
