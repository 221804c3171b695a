//! Farmbell's protocol: what both sides share, and what a stranger's builder
//! is built on.
#![forbid(unsafe_code)]

pub mod agent_to_coordinator;
pub mod bounded;
pub mod builder;
pub mod bulk;
#[cfg(feature = "client")]
pub mod client;
pub mod codec;
pub mod coordinator_to_agent;
pub mod digest;
pub mod id;
pub mod outcome;
pub mod spec;
pub mod time;
pub mod version;
