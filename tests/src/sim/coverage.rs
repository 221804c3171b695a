//! Which fault hit which state: what a run has really tried.

use std::collections::BTreeMap;

use farmbell_farm::record::{JobState, Stage};

use super::faults::Fault;
use super::world::World;

/// How far a job was when a fault struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Struck {
    Waiting,
    Assigned,
    Accepted,
    Running,
    Collecting,
    Finishing,
    Cancelling,
}

impl Struck {
    pub const ALL: &[Self] = &[
        Self::Waiting,
        Self::Assigned,
        Self::Accepted,
        Self::Running,
        Self::Collecting,
        Self::Finishing,
        Self::Cancelling,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Collecting => "collecting",
            Self::Finishing => "finishing",
            Self::Cancelling => "cancelling",
        }
    }
}

/// Times that a fault of one kind struck a job in one state.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<(Fault, Struck), u64>,
}

impl Coverage {
    #[must_use]
    pub fn get(&self, fault: Fault, struck: Struck) -> u64 {
        self.counts.get(&(fault, struck)).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (&key, count) in &other.counts {
            *self.counts.entry(key).or_default() += count;
        }
    }

    /// The pairs that were struck less often than `minimum`.
    #[must_use]
    pub fn below(&self, minimum: u64) -> Vec<(Fault, Struck)> {
        let pairs = Fault::ALL
            .iter()
            .flat_map(|&fault| Struck::ALL.iter().map(move |&struck| (fault, struck)));
        pairs
            .filter(|&(fault, struck)| self.get(fault, struck) < minimum)
            .collect()
    }
}

/// Unfinished jobs that are looked at for one fault, so that a world of
/// thousands does not spend its time counting.
const LOOKED_AT: usize = 512;

impl World {
    /// Counts what a fault is about to strike: for one agent its own attempts,
    /// else any job.
    pub(super) fn cover(&mut self, fault: Fault, agent: usize) {
        let store = &self.coordinator.store;
        let key = self.agents[agent].key;
        let row = store.agents.values().find(|row| row.key == key);
        let one_agent = !fault.strikes_coordinator();
        for job in store.unfinished.iter().take(LOOKED_AT) {
            let Some(job) = store.jobs.get(job) else {
                continue;
            };
            let (struck, its_agent) = match &job.state {
                JobState::Waiting { .. } => (Struck::Waiting, None),
                JobState::Live(live) => (
                    match live.stage {
                        Stage::Assigned => Struck::Assigned,
                        Stage::Accepted => Struck::Accepted,
                        Stage::Running => Struck::Running,
                        Stage::Collecting => Struck::Collecting,
                        Stage::Finishing => Struck::Finishing,
                    },
                    Some(live.agent),
                ),
                JobState::Done(_) => continue,
            };
            if one_agent && its_agent.is_some() && its_agent != row.map(|row| row.id) {
                continue;
            }
            let cancelling = job.cancel.is_some().then_some(Struck::Cancelling);
            for struck in [Some(struck), cancelling].into_iter().flatten() {
                *self.coverage.counts.entry((fault, struck)).or_default() += 1;
            }
        }
    }
}
