//! The sweep. Owns the slow look behind the events: while anything is
//! unfinished, every few minutes, a bounded part at a time, it compares what
//! is indexed, booked and awaited with the records. It finds nothing unless
//! the farm has a bug; then it repairs what it found and says so loudly.
//! Never the way anything gets done: without a bug it changes nothing.

use std::ops::Bound;
use std::time::Duration;

use farmbell_protocol::id::{BuilderId, JobId};
use farmbell_protocol::time::Time;

use crate::deadlines::Deadline;
use crate::farm::Farm;
use crate::jobs::Job;
use crate::ledger::About;
use crate::record::{Cleanliness, LedgerKind, Occupation};

/// Between two sweeps. A bug costs a job some minutes, not a night.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// Jobs and builders of one step, and the pause before the next: a million
/// jobs in some minutes, without anybody noticing.
const PART: usize = 1000;
const PAUSE: Duration = Duration::from_millis(200);

/// How far the sweep is. Of this process only; no record asks for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sweep {
    /// None while nothing is unfinished: an idle farm sleeps.
    due: Option<Time>,
    job: Option<JobId>,
    builder: Option<BuilderId>,
}

impl Sweep {
    pub(crate) fn due(&self) -> Option<Time> {
        self.due
    }
}

impl Farm {
    pub(crate) fn keep_sweeping(&mut self) {
        if self.jobs.is_empty() {
            self.sweep = Sweep::default();
        } else if self.sweep.due.is_none() {
            self.sweep.due = Some(self.clock.now() + EVERY);
        }
    }

    /// One part of the sweep, if it is time.
    pub(crate) fn sweep(&mut self) {
        if self.sweep.due.is_none_or(|due| due > self.clock.now()) {
            return;
        }
        let jobs = self.jobs.range(behind(self.sweep.job)).take(PART);
        let jobs: Vec<JobId> = jobs.map(|(id, _)| *id).collect();
        let builders = self.builders.range(behind(self.sweep.builder)).take(PART);
        let builders: Vec<BuilderId> = builders.map(|(id, _)| *id).collect();
        for job in &jobs {
            self.sweep_job(*job);
        }
        for builder in &builders {
            self.sweep_builder(*builder);
        }
        self.sweep = if jobs.len() < PART && builders.len() < PART {
            // `keep_sweeping` begins the next, if there is anything to look at.
            Sweep::default()
        } else {
            Sweep {
                due: Some(self.clock.now() + PAUSE),
                job: jobs.last().copied().or(self.sweep.job),
                builder: builders.last().copied().or(self.sweep.builder),
            }
        };
    }

    fn sweep_job(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.is_waiting() {
            let queued = self.queue.contains(id, job.owner, job.class, job.rank());
            let least = self.least_score(&job.needs(&self.queue).architecture);
            let held = job.suspended || least.is_some_and(|least| job.priority < least);
            if queued == held {
                self.unqueue(id);
                self.enqueue(id);
                let was = if queued {
                    "queued although it is held back"
                } else {
                    "in no queue"
                };
                self.repaired(About::job(id), format!("it waited {was}"));
            }
            return;
        }
        let wish = job.cancel().map(|wish| wish.deadline);
        let agent = job.live().map(|live| live.agent);
        if let Some(at) = wish
            && self.deadlines.at(Deadline::Cancel(id)).is_none()
        {
            self.deadlines.arm(Deadline::Cancel(id), at);
            self.repaired(About::job(id), "its cancel had no deadline");
        }
        let Some(agent) = agent else { return };
        let awaited = self.deadlines.at(Deadline::Lost(agent)).is_some();
        if !awaited
            && self
                .agents
                .get(&agent)
                .is_none_or(|agent| agent.conn.is_none())
        {
            let at = self.clock.now() + self.settings.lost_after;
            self.deadlines.arm(Deadline::Lost(agent), at);
            self.repaired(
                About::job(id).of(agent),
                "nobody waited for its silent agent",
            );
        }
    }

    fn sweep_builder(&mut self, id: BuilderId) {
        let Some(builder) = self.builders.get(&id) else {
            return;
        };
        let record = &builder.record;
        let about = About::builder(id);
        if let Occupation::Held { attempt } = record.occupation {
            let live = self.jobs.get(&attempt.job).and_then(Job::live);
            if live.is_none_or(|live| live.id != attempt || live.builder != id) {
                self.free_builder(id, attempt);
                self.repaired(about, format!("it was held by {attempt}, which is over"));
            }
            return;
        }
        let ordered = matches!(
            record.cleanliness,
            Cleanliness::Resetting { .. } | Cleanliness::Probing { .. }
        );
        if ordered && self.deadlines.at(Deadline::Reset(id)).is_none() {
            self.soil(id);
            return self.repaired(about, "its reset had no deadline");
        }
        let free = self.hindrances_of(builder).is_empty();
        let profile = builder.profile;
        if free != self.queue.is_free(id) {
            self.step.touch_builder(id);
            return self.repaired(about, format!("free: {free}, and the index said otherwise"));
        }
        if free
            && !self.unmatched.contains(&id)
            && let Some(job) = self.queue.best_for(id, profile)
        {
            self.unmatched.push_back(id);
            self.repaired(about, format!("it was free while job {job} waited for it"));
        }
    }

    fn repaired(&mut self, about: About, what: impl Into<String>) {
        let line = format!("{}: a bug of the farm's, please report it", what.into());
        self.note(LedgerKind::Repaired, about, line);
    }
}

fn behind<T>(last: Option<T>) -> (Bound<T>, Bound<T>) {
    (
        last.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}
