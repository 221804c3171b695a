//! What every refusal says: the cause, the fix, and a code for programs.

use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success; only `/healthz` tells its
/// state in one shape, well or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{cause}")]
pub struct Problem {
    pub code: Code,
    pub cause: String,
    /// What to do next.
    pub fix: String,
    /// The ids that a prefix could have meant.
    #[serde(default)]
    pub candidates: Vec<String>,
}

/// The kind of a problem: a closed set that programs may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    NotFound,
    /// An id's prefix names more than one.
    Ambiguous,
    /// It contradicts the present state.
    Conflict,
    Invalid,
    /// Bytes did not have the digest they were announced with.
    Corrupt,
    /// No known builder could ever do it.
    Unmatched,
    /// A limit of the farm is reached.
    Limit,
    /// Who asks is not known.
    Unauthorized,
    /// Who asks is known and may not.
    Forbidden,
    /// An operator has to accept a restored store first.
    Suspect,
    /// The store cannot make anything durable at present, so nothing is accepted.
    Stalled,
    /// The coordinator is stopping, or too much waits: try again in a moment.
    Unavailable,
    /// A fault of the coordinator's own.
    Internal,
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            code,
            cause: cause.into(),
            fix: fix.into(),
            candidates: Vec::new(),
        }
    }
}
