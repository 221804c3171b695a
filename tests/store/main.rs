//! The contract of every store, and what SQLite has to survive.
//!
//! [`contract`] judges the simulation's store and the real one by the same
//! stories; the rest is about files: processes killed, disks cut off, old and
//! foreign databases.
#![expect(
    clippy::unwrap_used,
    reason = "what these stories are told with is test code too"
)]

mod contract;
mod killed;
mod old;
mod opening;
mod queries;
mod records;
mod torn;
