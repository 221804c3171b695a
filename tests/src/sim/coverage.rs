//! Which trouble struck which state: what a run has really tried, and how
//! often it has to.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_farm::record::{Cleanliness, JobRecord, JobState, Stage};
use farmbell_protocol::id::{BuilderId, JobId};

use super::faults::Fault;
use super::store::SimStore;
use super::world::World;

/// What a job, or the builder under it, was at when trouble struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Struck {
    Waiting,
    Assigned,
    Accepted,
    Running,
    Collecting,
    Finishing,
    Cancelling,
    /// An attempt fell silent and may come back.
    Lost,
    /// A builder is being reset.
    Resetting,
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
        Self::Lost,
        Self::Resetting,
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
            Self::Lost => "lost",
            Self::Resetting => "resetting",
        }
    }

    /// What a job's record says of it.
    fn of(job: &JobRecord) -> Vec<Self> {
        let state = match &job.state {
            JobState::Waiting { .. } => Self::Waiting,
            JobState::Live(live) => match live.stage {
                Stage::Assigned => Self::Assigned,
                Stage::Accepted => Self::Accepted,
                Stage::Running => Self::Running,
                Stage::Collecting => Self::Collecting,
                Stage::Finishing => Self::Finishing,
            },
            JobState::Done(_) => return Vec::new(),
        };
        let mut all = vec![state];
        if job.cancel.is_some() {
            all.push(Self::Cancelling);
        }
        if !job.lost.is_empty() {
            all.push(Self::Lost);
        }
        all
    }
}

/// Times that trouble of one kind struck something in one state.
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
            .filter(|&(fault, struck)| fault.can_strike(struck))
            .filter(|&(fault, struck)| self.get(fault, struck) < minimum)
            .collect()
    }

    fn count(&mut self, fault: Fault, struck: Struck) {
        *self.counts.entry((fault, struck)).or_default() += 1;
    }

    fn count_job(&mut self, fault: Fault, store: &SimStore, job: JobId) {
        let job = store.jobs.get(&job);
        for struck in job.map(Struck::of).unwrap_or_default() {
            self.count(fault, struck);
        }
    }
}

/// Jobs and builders that are looked at for one fault, so that a world of
/// thousands does not spend its time counting.
const LOOKED_AT: usize = 512;

impl World {
    /// Trouble for the coordinator or for the whole farm: whatever is there.
    pub(super) fn strike_all(&mut self, fault: Fault) {
        let store = &self.coordinator.store;
        let looked_at = store.unfinished.iter().take(LOOKED_AT);
        let all: BTreeSet<JobId> = looked_at
            .chain(store.lost.iter().take(4))
            .copied()
            .collect();
        for job in all {
            self.coverage.count_job(fault, store, job);
        }
        let builders = store.builders.values().take(LOOKED_AT);
        for _ in builders.filter(|builder| is_resetting(builder.cleanliness)) {
            self.coverage.count(fault, Struck::Resetting);
        }
    }

    /// Trouble for one agent: its attempts and builders, and the jobs that
    /// wait for it.
    pub(super) fn strike_agent(&mut self, fault: Fault, agent: usize) {
        let Some(row) = self.row_of(agent) else {
            return;
        };
        let store = &self.coordinator.store;
        for job in store.live_of(row) {
            self.coverage.count_job(fault, store, job);
        }
        for job in self.idle_jobs() {
            self.coverage.count_job(fault, &self.coordinator.store, job);
        }
        let builders = self.coordinator.store.builders.values();
        let its = builders.filter(|builder| builder.agent == row);
        for _ in its.filter(|builder| is_resetting(builder.cleanliness)) {
            self.coverage.count(fault, Struck::Resetting);
        }
    }

    pub(super) fn strike_builder(&mut self, fault: Fault, builder: BuilderId) {
        let store = &self.coordinator.store;
        let Some(record) = store.builders.get(&builder) else {
            return;
        };
        let on_it = |job: &JobId| {
            store.jobs.get(job).is_some_and(|job| match &job.state {
                JobState::Live(live) => live.builder == builder,
                JobState::Waiting { .. } | JobState::Done(_) => false,
            })
        };
        for job in store.live_of(record.agent).into_iter().filter(on_it) {
            self.coverage.count_job(fault, store, job);
        }
        if is_resetting(record.cleanliness) {
            self.coverage.count(fault, Struck::Resetting);
        }
        for job in self.idle_jobs() {
            self.coverage.count_job(fault, &self.coordinator.store, job);
        }
    }

    pub(super) fn strike_job(&mut self, fault: Fault, job: JobId) {
        self.coverage.count_job(fault, &self.coordinator.store, job);
    }

    /// A few of the jobs that no builder has, and of those whose lost attempt
    /// may come back.
    fn idle_jobs(&self) -> Vec<JobId> {
        let store = &self.coordinator.store;
        let waits = |job: &&JobId| {
            let job = store.jobs.get(*job);
            job.is_some_and(|job| matches!(job.state, JobState::Waiting { .. }))
        };
        let few = store.unfinished.iter().take(LOOKED_AT).filter(waits);
        let lost = store.lost.iter().take(4);
        let both: BTreeSet<JobId> = few.take(8).chain(lost).copied().collect();
        both.into_iter().collect()
    }
}

fn is_resetting(cleanliness: Cleanliness) -> bool {
    match cleanliness {
        Cleanliness::Resetting { .. } | Cleanliness::Probing { .. } => true,
        Cleanliness::Dirty | Cleanliness::Clean => false,
    }
}
