//! Builders and agents as people see them.

use serde::{Deserialize, Serialize};

use super::{JobView, SetBrake, Stamp};

/// Everything the builders page shows, from one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverviewView {
    /// Which start of the coordinator this is.
    pub epoch: String,
    /// Agents know more than the store: nothing starts until an operator accepts.
    pub suspect: bool,
    pub builders: Vec<BuilderView>,
    /// Waiting jobs in the order they would start, the first of them.
    pub queue: Vec<JobView>,
    pub waiting: u64,
    /// Of these, what is suspended or below the brake.
    #[serde(default)]
    pub held: u64,
    #[serde(default)]
    pub brakes: Vec<SetBrake>,
    pub oldest_waiting_ms: u64,
    pub running: Vec<JobView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuilderView {
    pub id: u32,
    pub name: String,
    pub agent: String,
    /// What it does now, in plain words.
    pub status: String,
    /// `online`, `unreachable` or `offline`.
    pub link: String,
    pub link_since: Stamp,
    /// `dirty`, `resetting`, `probing` or `clean`.
    pub cleanliness: String,
    pub held: Option<Occupant>,
    /// `enabled`, `manual`, `draining`, `quarantined` or `disabled`.
    pub mode: String,
    pub mode_why: String,
    pub mode_by: String,
    pub mode_since: Stamp,
    /// When what it holds is taken from it, while it drains with a time limit.
    #[serde(default)]
    pub drain_ends: Option<Stamp>,
    /// `fit`, or why it can take nothing.
    pub fitness: String,
    pub fitness_why: String,
    pub strikes: u16,
    pub recipes: Vec<String>,
    pub architectures: Vec<String>,
    pub open_tags: Vec<String>,
    pub restricted_tags: Vec<String>,
    pub virtualized: bool,
    pub rung: String,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub reset: ResetView,
    /// What its host lacks, what that costs and what mends it; told only where
    /// one builder is asked for.
    #[serde(default)]
    pub host_lacks: Vec<String>,
}

/// The attempt that occupies a builder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupant {
    pub job: String,
    pub attempt: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetView {
    /// `workspace`, `guest` or `host`.
    pub scope: String,
    pub spool_survives: bool,
    /// `after` each attempt, `before` one, or `by-hand`.
    #[serde(default)]
    pub when: String,
    /// Who besides the agent reports the end of a reset.
    #[serde(default)]
    pub reporter: Option<String>,
    /// The challenge of the reset that stands.
    #[serde(default)]
    pub nonce: Option<String>,
    /// The last failed reset, with the script's output.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    pub id: u32,
    pub name: String,
    pub connected: bool,
    /// `active`, `frozen` or `revoked`.
    pub standing: String,
    pub standing_why: String,
    pub address: String,
    pub software: String,
    pub key: String,
    pub joined: Stamp,
    pub last_seen: Stamp,
    pub envelope: EnvelopeView,
    /// What the host says of itself, `name: value`.
    pub facts: Vec<String>,
}

/// What an identity was granted; an empty list grants everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvelopeView {
    /// Builder names, a trailing `*` for any ending.
    pub names: Vec<String>,
    pub architectures: Vec<String>,
    pub tags: Vec<String>,
    /// `null`: both.
    pub virtualized: Option<bool>,
}

/// The body of an operator's act, a cancel or a retry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Act {
    /// Stands in the history and beside the builder.
    pub reason: String,
}

/// The query of an act on a builder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActQuery {
    /// `remove`: even while it holds an attempt.
    pub abandon: bool,
    /// `drain`: after this time its attempt is taken from it.
    pub within_ms: Option<u64>,
    /// `reset-rule`: `after` each attempt, `before` one, or `by-hand`.
    pub when: Option<String>,
    /// `reset-rule`: who besides the agent reports the end of each reset.
    pub reporter: Option<String>,
    /// `reset-over`: the challenge of the reset that is over.
    pub nonce: Option<String>,
    /// `reset-over`: why it failed; nothing if it did not.
    pub failed: Option<String>,
}
