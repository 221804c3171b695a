//! The agent: performs a builder brain's effects on a host.

pub mod attempt;
pub mod failpoint;
pub mod groups;
pub mod mask;
pub mod recipes;
pub mod seal;
pub mod supervisor;
