//! The end of a world: every job has its verdict, every spool is empty, every
//! builder is back in service. Owns what is said of what never came to it.

use farmbell_farm::record::{Cleanliness, Occupation, OperatorMode};

use super::checker::{Broken, broken};
use super::world::{END_WITHIN, World};

/// Steps between two looks at whether every builder is back.
const READY_EVERY: u64 = 256;

impl World {
    /// Every job has its verdict, and no spool holds anything any more.
    pub(super) fn ended(&self) -> bool {
        self.clients.submits_left == 0
            && self.coordinator.store.unfinished.is_empty()
            && self.agents.iter().all(|agent| {
                agent.up
                    && agent
                        .builders
                        .iter()
                        .all(|builder| builder.place.processes.is_empty())
            })
    }

    /// A builder that is not at its agent's and the farm's service again.
    /// Looked for now and then only: a farm has thousands.
    pub(super) fn not_ready(&self) -> Option<String> {
        if !self.steps.is_multiple_of(READY_EVERY) {
            return Some("nobody has looked".to_owned());
        }
        let store = &self.coordinator.store;
        let missing = (0..self.agents.len()).find_map(|agent| {
            let has = self.agents[agent].builders.len();
            let shown = self.row_of(agent).map_or(0, |row| store.builders_of(row));
            (shown < has).then(|| format!("agent {agent} has {has} builders, {shown} are known"))
        });
        missing.or_else(|| {
            let mut builders = store.builders.values();
            let out = builders.find(|builder| {
                builder.mode != OperatorMode::Enabled
                    || builder.cleanliness != Cleanliness::Clean
                    || builder.occupation != Occupation::Free
            });
            out.map(|builder| format!("a builder never came back: {builder:?}"))
        })
    }

    pub(super) fn unfinished(&mut self) -> Result<(), Broken> {
        let store = &self.coordinator.store;
        let job = store.unfinished.iter().next();
        if let Some(job) = job.and_then(|job| store.jobs.get(job)) {
            let what = format!(
                "{} of {} jobs have not ended {} h after the trouble; the first: {job:?}",
                store.unfinished.len(),
                store.jobs.len(),
                END_WITHIN.as_secs() / 3600
            );
            return broken("I9", what);
        }
        for agent in &self.agents {
            for builder in &agent.builders {
                if let Some(attempt) = builder.place.processes.keys().next() {
                    let record = store.attempts.get(attempt);
                    let what = format!("{attempt} was never released: {record:?}");
                    return broken("I9", what);
                }
            }
        }
        let left = self.clients.submits_left;
        if left > 0 {
            return broken("I9", format!("{left} submits were never answered"));
        }
        self.steps = 0;
        let what = self.not_ready();
        broken("I9", what.unwrap_or_else(|| "an agent is down".to_owned()))
    }
}
