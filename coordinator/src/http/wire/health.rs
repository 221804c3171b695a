//! How the coordinator is.

use serde::{Deserialize, Serialize};

use super::Stamp;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    pub ok: bool,
    /// Since when the store takes nothing, and why.
    pub stalled_since: Option<Stamp>,
    pub stalled_why: Option<String>,
    /// Reports of agents and requests that wait for the farm.
    pub agents_waiting: u64,
    pub http_waiting: u64,
    /// Since the start of the process.
    pub events: u64,
    pub changes: u64,
}
