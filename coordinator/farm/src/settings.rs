//! What an operator may set about the farm's policy. Owns the defaults and
//! their reasons; fixed for the life of a process.

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_protocol::bounded::Name;

use crate::score::Scores;
use crate::seal::SealKey;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Policies and limits.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    /// Silence after which an agent's attempts count as lost. Gentle: a
    /// reboot of a switch must not cost a build.
    pub lost_after: Duration,
    /// How long a cancelled attempt's agent may take to answer. More than the
    /// grace between TERM and KILL.
    pub cancel_after: Duration,
    /// How long a reset and its probe may take.
    pub reset_after: Duration,
    /// How long inputs and sealed outputs may travel without a byte arriving.
    /// Gathering and hashing outputs, of which nothing is heard, may take six
    /// times as long.
    pub upload_after: Duration,
    /// How long an offer may stay unanswered on a live session.
    pub accept_after: Duration,
    /// Attempts of a generation where the job says nothing.
    pub attempts_max: u8,
    /// How long a finished job is kept; none: for ever.
    pub retire_jobs_after: Option<Duration>,
    /// How long the ledger's entries are kept; none: for ever.
    pub retire_events_after: Option<Duration>,
    /// Owners whose share of the farm is not everybody's.
    pub shares: BTreeMap<Name, Share>,
    /// What the parameters of Debian jobs add to their scores.
    pub scores: Scores,
    /// Not set by anybody: it follows from the coordinator's identity.
    pub seal: SealKey,
}

/// An owner's part of the farm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Against the others' weights; 0 and 1 are the usual share.
    pub weight: u32,
    /// Attempts under way at most; none: as many as there are builders.
    pub running_max: Option<u32>,
    /// Added to the score of each new job of its.
    pub bonus: i32,
}

impl Share {
    pub(crate) fn weight(self) -> u64 {
        u64::from(self.weight.max(1))
    }
}

/// Sizes that the farm refuses to exceed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Unfinished jobs. At 600 bytes each, a million are 600 MB at most.
    pub queued_jobs: u64,
    /// Join tokens that can still be used.
    pub tokens: u32,
    pub agents: u32,
    pub builders_per_agent: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            lost_after: Duration::from_secs(5 * 60),
            cancel_after: Duration::from_secs(3 * 60),
            reset_after: Duration::from_secs(10 * 60),
            upload_after: Duration::from_secs(10 * 60),
            accept_after: Duration::from_secs(2 * 60),
            attempts_max: 3,
            retire_jobs_after: Some(90 * DAY),
            retire_events_after: Some(365 * DAY),
            shares: BTreeMap::new(),
            scores: Scores::default(),
            seal: SealKey::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queued_jobs: 2_000_000,
            tokens: 10_000,
            agents: 100_000,
            builders_per_agent: 1024,
        }
    }
}
