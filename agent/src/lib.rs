//! The agent: performs a builder brain's effects on a host.
//!
//! ```text
//! run ──▶ session ──▶ chain ──▶ driver (one per builder, round the brain)
//!                                 ├─▶ spool       what must not be forgotten
//!                                 ├─▶ attend ──▶ launcher ──▶ supervisor ──▶ recipe
//!                                 ├─▶ seal ──▶ uploads
//!                                 ├─▶ reset
//!                                 └─▶ tidy        what nobody waits for
//! ```

pub mod attempt;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod facts;
pub mod failpoint;
pub mod groups;
pub mod join;
pub mod mask;
pub mod recipes;
pub mod run;
pub mod seal;
pub mod spool;
pub mod supervisor;

mod attend;
mod canary;
mod chain;
mod driver;
mod health;
mod heat;
mod host;
mod launcher;
mod places;
mod reset;
mod script;
mod state;
mod tidy;
mod uploads;
