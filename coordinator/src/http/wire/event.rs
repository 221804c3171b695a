//! A line of the farm's history.

use serde::{Deserialize, Serialize};

use super::Stamp;

/// One ledger entry. `seq` has no gaps: whoever remembers the last one read
/// can go on after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    pub seq: u64,
    pub at: Stamp,
    /// For example `job.verdict`.
    pub kind: String,
    pub job: Option<String>,
    /// `JOB.GENERATION.NUMBER`.
    pub attempt: Option<String>,
    pub builder: Option<u32>,
    pub agent: Option<u32>,
    /// Who did it; empty where the farm did.
    pub by: String,
    pub why: String,
}
