//! Deadlines. Owns when what is due. Never decides what follows (each concept
//! does), and stores nothing: records carry their deadlines, and `restore`
//! arms them again.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_protocol::id::{AgentId, BuilderId, JobId};
use farmbell_protocol::time::Time;

/// What will be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// A silent agent's attempts count as lost.
    Lost(AgentId),
    /// An offer stayed unanswered.
    Accept(JobId),
    /// The agent did not answer a wish to cancel.
    Cancel(JobId),
    /// An attempt came no further: its inputs or sealed outputs stopped
    /// travelling, or nobody said that its outputs are gathered.
    Progress(JobId),
    /// A reset took too long.
    Reset(BuilderId),
    /// A failed reset is tried again.
    ResetRetry(BuilderId),
    /// Some builder is not passed over for this job any more.
    Avoid(JobId),
    /// A builder that refused work may be asked again.
    Rest(BuilderId),
    /// A draining builder's attempt is taken from it.
    Drain(BuilderId),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines {
    at: BTreeMap<Deadline, Time>,
    order: BTreeSet<(Time, Deadline)>,
}

impl Deadlines {
    /// Arms or moves it.
    pub(crate) fn arm(&mut self, deadline: Deadline, at: Time) {
        if let Some(before) = self.at.insert(deadline, at) {
            self.order.remove(&(before, deadline));
        }
        self.order.insert((at, deadline));
    }

    pub(crate) fn disarm(&mut self, deadline: Deadline) {
        if let Some(at) = self.at.remove(&deadline) {
            self.order.remove(&(at, deadline));
        }
    }

    pub(crate) fn at(&self, deadline: Deadline) -> Option<Time> {
        self.at.get(&deadline).copied()
    }

    /// Takes the earliest one that is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Deadline> {
        let (at, deadline) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.disarm(deadline);
        Some(deadline)
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.order.first().map(|(at, _)| *at)
    }
}
