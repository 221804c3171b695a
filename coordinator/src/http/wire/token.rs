//! Tokens that let agents join.

use serde::{Deserialize, Serialize};

use super::{EnvelopeView, Stamp};

/// Asks for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// How many agents may join with it.
    pub uses: u32,
    pub ttl_ms: u64,
    #[serde(default)]
    pub envelope: EnvelopeView,
}

/// The token itself, shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// What `farmbell-agent join` takes.
    pub token: String,
    pub view: TokenView,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    pub id: u64,
    pub uses: u32,
    pub used: u32,
    pub created: Stamp,
    pub created_by: String,
    pub expires: Stamp,
    pub revoked: bool,
    pub envelope: EnvelopeView,
}
