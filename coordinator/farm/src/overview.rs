//! The overview. Owns the picture of the farm at one moment, for pages and
//! commands. Never changes anything.

use farmbell_protocol::id::{BuilderId, JobId};
use farmbell_protocol::time::Wall;

use crate::deadlines::Deadline;
use crate::effect::{BuilderView, Overview, Reply};
use crate::farm::Farm;
use crate::jobs::State;
use crate::record::JobRecord;

/// Waiting jobs that an overview lists: what a page can show.
const QUEUE_SHOWN: usize = 100;

impl Farm {
    pub(crate) fn overview(&self) -> Reply {
        let record = |id: &JobId| -> Option<JobRecord> {
            let job = self.jobs.get(id)?;
            Some(job.record(*id, &self.queue, job.stored_state()))
        };
        let running: Vec<JobRecord> = self
            .agents
            .values()
            .flat_map(|agent| agent.live.iter())
            .filter_map(record)
            .collect();
        // Whatever has no live attempt waits, be it in the queue or held back.
        let waiting = number(self.jobs.len()).saturating_sub(number(running.len()));
        Reply::Overview(Box::new(Overview {
            epoch: self.meta.epoch,
            suspect: self.meta.suspect.is_some(),
            builders: self.builder_views(),
            queue: self
                .queue
                .first(QUEUE_SHOWN)
                .iter()
                .filter_map(record)
                .collect(),
            waiting,
            held: waiting.saturating_sub(self.queue.waiting()),
            brakes: self.meta.brakes.to_vec(),
            dependents: number(self.dependencies.len()),
            running,
            oldest_waiting_ms: self.oldest_waiting_ms(),
        }))
    }

    fn builder_views(&self) -> Vec<BuilderView> {
        self.builders
            .values()
            .filter_map(|builder| {
                let agent = self.agents.get(&builder.record.agent)?;
                Some(BuilderView {
                    record: builder.record.clone(),
                    agent: agent.record.name.clone(),
                    link: self.link_of(builder),
                    link_since_ms: agent.link_since.0,
                    drain_ends: self.drain_ends(builder.record.id),
                })
            })
            .collect()
    }

    /// By this host's clock, which may be set meanwhile: the farm's is what counts.
    fn drain_ends(&self, id: BuilderId) -> Option<Wall> {
        let left = self
            .deadlines
            .at(Deadline::Drain(id))?
            .since(self.clock.now());
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Some(Wall(self.clock.wall().0.saturating_add(millis)))
    }

    /// Numbers rise with time, so the first waiting one is nearly always the
    /// oldest; a retried job counts from its retry.
    fn oldest_waiting_ms(&self) -> u64 {
        self.jobs
            .values()
            .find_map(|job| match &job.state {
                State::Waiting { since } => Some(self.clock.wall().0.saturating_sub(since.0)),
                State::Live(_) => None,
            })
            .unwrap_or(0)
    }
}

fn number(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}
