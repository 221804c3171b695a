//! The ledger. Owns the numbered history of what happened and why. Never
//! decides anything. Invariant: numbers rise by one, and an entry is part of
//! the same batch as what it tells of.

use farmbell_protocol::bounded::Text;
use farmbell_protocol::id::{AgentId, AttemptId, BuilderId, JobId};

use crate::farm::Farm;
use crate::record::{Change, LedgerEntry, LedgerKind};

/// What an entry is about, and who did it.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) job: Option<JobId>,
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) builder: Option<BuilderId>,
    pub(crate) agent: Option<AgentId>,
    pub(crate) by: Text<128>,
}

impl About {
    pub(crate) fn job(job: JobId) -> Self {
        Self {
            job: Some(job),
            ..Self::default()
        }
    }

    pub(crate) fn attempt(attempt: AttemptId) -> Self {
        Self {
            job: Some(attempt.job),
            attempt: Some(attempt),
            ..Self::default()
        }
    }

    pub(crate) fn builder(builder: BuilderId) -> Self {
        Self {
            builder: Some(builder),
            ..Self::default()
        }
    }

    pub(crate) fn agent(agent: AgentId) -> Self {
        Self {
            agent: Some(agent),
            ..Self::default()
        }
    }

    pub(crate) fn on(mut self, builder: BuilderId) -> Self {
        self.builder = Some(builder);
        self
    }

    pub(crate) fn of(mut self, agent: AgentId) -> Self {
        self.agent = Some(agent);
        self
    }

    pub(crate) fn by(mut self, by: &Text<128>) -> Self {
        self.by = by.clone();
        self
    }
}

impl Farm {
    /// Writes one line of history.
    pub(crate) fn note(&mut self, kind: LedgerKind, about: About, why: impl Into<String>) {
        self.meta.ledger_floor += 1;
        self.step.meta = true;
        self.step.changes.push(Change::Ledger(LedgerEntry {
            seq: self.meta.ledger_floor,
            at: self.clock.wall(),
            kind,
            job: about.job,
            attempt: about.attempt,
            builder: about.builder,
            agent: about.agent,
            by: about.by,
            why: Text::cut(why),
        }));
    }
}
