//! One step of the farm. Owns what an event has produced so far: changes,
//! effects, and which records were touched. A touched record is written once,
//! at the end of the step, as it is then; changes come before all else.

use farmbell_protocol::id::{AgentId, BuilderId, JobId};

use crate::effect::Effect;
use crate::queue::ClassId;
use crate::record::Change;

#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) changes: Vec<Change>,
    pub(crate) effects: Vec<Effect>,
    jobs: Vec<JobId>,
    builders: Vec<BuilderId>,
    agents: Vec<AgentId>,
    /// Classes that got a waiting job: somebody may be free for it.
    pub(crate) wanting: Vec<ClassId>,
    pub(crate) meta: bool,
}

impl Step {
    pub(crate) fn touch_job(&mut self, job: JobId) {
        self.jobs.push(job);
    }

    pub(crate) fn touch_builder(&mut self, builder: BuilderId) {
        self.builders.push(builder);
    }

    pub(crate) fn touch_agent(&mut self, agent: AgentId) {
        self.agents.push(agent);
    }

    pub(crate) fn touched_jobs(&mut self) -> Vec<JobId> {
        sorted(&mut self.jobs)
    }

    pub(crate) fn touched_builders(&mut self) -> Vec<BuilderId> {
        sorted(&mut self.builders)
    }

    pub(crate) fn touched_agents(&mut self) -> Vec<AgentId> {
        sorted(&mut self.agents)
    }

    /// Changes first, then the effects that have to wait for them.
    pub(crate) fn finish(self) -> Vec<Effect> {
        let mut all: Vec<Effect> = self.changes.into_iter().map(Effect::Change).collect();
        all.extend(self.effects);
        all
    }
}

fn sorted<T: Ord + Copy>(items: &mut Vec<T>) -> Vec<T> {
    let mut items = std::mem::take(items);
    items.sort_unstable();
    items.dedup();
    items
}
