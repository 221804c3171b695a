//! The agent: performs a builder brain's effects on a host.

pub mod mask;
pub mod seal;
