//! Invariants. Owns what must hold after every step, in words: checked on what
//! a step touched in every build with assertions, on everything by the
//! simulation. Never changes anything.
//!
//! I4 to I7 speak of stores and bytes; the simulation and the ledger's checker
//! hold them. Here: I1, I2, I3, I8 and I9, as far as the books can tell.

use farmbell_protocol::id::{BuilderId, JobId};

use crate::builders::Builder;
use crate::deadlines::Deadline;
use crate::farm::Farm;
use crate::jobs::Job;
use crate::record::{AttemptRecord, Cleanliness, Occupation, Stage};

/// A broken invariant: a bug of the farm's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is broken: {what}")]
pub struct Breach {
    /// `I1` to `I9`, as ARCHITECTURE.md numbers them.
    pub invariant: &'static str,
    pub what: String,
}

fn holds(
    invariant: &'static str,
    holds: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Breach> {
    if holds {
        return Ok(());
    }
    Err(Breach {
        invariant,
        what: what(),
    })
}

impl Farm {
    /// Checks what the last step touched.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check_touched(&self) -> Result<(), Breach> {
        for id in &self.touched.jobs {
            if let Some(job) = self.jobs.get(id) {
                self.check_job(*id, job)?;
            }
        }
        for id in &self.touched.builders {
            if let Some(builder) = self.builders.get(id) {
                self.check_builder(*id, builder)?;
            }
        }
        Ok(())
    }

    /// Checks everything.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check_all(&self) -> Result<(), Breach> {
        for (id, job) in &self.jobs {
            self.check_job(*id, job)?;
        }
        for (id, builder) in &self.builders {
            self.check_builder(*id, builder)?;
        }
        for (id, agent) in &self.agents {
            for job in &agent.live {
                let holder = self
                    .jobs
                    .get(job)
                    .and_then(Job::live)
                    .map(|live| live.agent);
                holds("I1", holder == Some(*id), || {
                    format!("agent {id} is booked for job {job}, which is not its")
                })?;
            }
        }
        self.check_dispatched()
    }

    fn check_job(&self, id: JobId, job: &Job) -> Result<(), Breach> {
        let decided = self.decided.generation(id);
        holds(
            "I3",
            decided.is_none_or(|known| known < job.generation),
            || {
                format!(
                    "job {id} goes on in generation {}, which is decided",
                    job.generation
                )
            },
        )?;
        holds("I2", job.refunded <= job.number, || {
            format!(
                "job {id}: {} of {} attempts refunded",
                job.refunded, job.number
            )
        })?;
        holds("I3", self.dependencies.get(id).is_none(), || {
            format!("job {id} is unfinished and waits for dependencies too")
        })?;
        match job.live() {
            Some(live) => {
                self.check_live(id, job, live)?;
                self.check_comes_on(id, live)
            }
            None => self.check_waiting(id, job),
        }
    }

    fn check_waiting(&self, id: JobId, job: &Job) -> Result<(), Breach> {
        let queued = self.queue.contains(id, job.owner, job.class, job.rank());
        let held = job.suspended || job.braked;
        holds("I9", queued != held, || {
            format!("job {id} waits, held back: {held}, queued: {queued}")
        })?;
        holds("I9", job.cancel().is_none(), || {
            format!("job {id} waits although it was cancelled")
        })
    }

    fn check_live(&self, id: JobId, job: &Job, live: &AttemptRecord) -> Result<(), Breach> {
        let newest = live.id.job == id
            && live.id.generation == job.generation
            && live.id.number <= job.number;
        holds("I2", newest, || {
            format!(
                "job {id} is at attempt {}, its live one is {}",
                job.number, live.id
            )
        })?;
        holds("I1", live.id.number >= job.ran, || {
            format!("{} is live although attempt {} has run", live.id, job.ran)
        })?;
        let queued = self.queue.contains(id, job.owner, job.class, job.rank());
        holds("I1", !queued, || {
            format!("job {id} is queued while {} is live", live.id)
        })?;
        let agent = self.agents.get(&live.agent);
        holds(
            "I9",
            agent.is_some_and(|agent| agent.live.contains(&id)),
            || format!("no agent is booked for {}", live.id),
        )?;
        let awaited = agent.is_some_and(|agent| {
            agent.conn.is_some() || self.deadlines.at(Deadline::Lost(live.agent)).is_some()
        });
        holds("I9", awaited, || {
            format!("{} is unreachable without a deadline", live.id)
        })?;
        let wished = job.cancel().is_none() || self.deadlines.at(Deadline::Cancel(id)).is_some();
        holds("I9", wished, || {
            format!("the cancel of job {id} has no deadline")
        })?;
        let Some(builder) = self.builders.get(&live.builder) else {
            return holds("I1", false, || {
                format!("{} is on no known builder", live.id)
            });
        };
        if live.stage == Stage::Finishing {
            return holds("I9", builder.uploads.contains(&id), || {
                format!("nobody waits for the outputs of {}", live.id)
            });
        }
        holds(
            "I1",
            builder.record.occupation == (Occupation::Held { attempt: live.id }),
            || format!("{} does not hold its builder", live.id),
        )?;
        holds(
            "I8",
            builder.record.cleanliness == Cleanliness::Dirty,
            || {
                format!(
                    "builder {} works on {} and is not dirty",
                    live.builder, live.id
                )
            },
        )
    }

    /// What it waits for at this stage has a deadline while its agent is there.
    fn check_comes_on(&self, id: JobId, live: &AttemptRecord) -> Result<(), Breach> {
        let agent = self.agents.get(&live.agent);
        let awaited = agent.is_none_or(|agent| agent.conn.is_none())
            || self.patience(live.stage).is_none()
            || self.deadlines.at(Deadline::Progress(id)).is_some();
        holds("I9", awaited, || {
            format!("{} may stay {} for ever", live.id, live.stage.as_str())
        })
    }

    fn check_builder(&self, id: BuilderId, builder: &Builder) -> Result<(), Breach> {
        if let Occupation::Held { attempt } = builder.record.occupation {
            let live = self.jobs.get(&attempt.job).and_then(Job::live);
            let holds_it = live.is_some_and(|live| {
                live.id == attempt && live.builder == id && live.stage < Stage::Finishing
            });
            holds("I1", holds_it, || {
                format!("builder {id} is held by {attempt}, which is not live there")
            })?;
        }
        let hindrances = self.hindrances_of(builder);
        let free = self.queue.is_free(id);
        holds("I8", free == hindrances.is_empty(), || {
            format!("builder {id} is free: {free}, but {hindrances:?}")
        })?;
        let ordered = matches!(
            builder.record.cleanliness,
            Cleanliness::Resetting { .. } | Cleanliness::Probing { .. }
        );
        let awaited =
            builder.record.nonce.is_some() && self.deadlines.at(Deadline::Reset(id)).is_some();
        holds("I9", !ordered || awaited, || {
            format!("builder {id} resets without a challenge or a deadline")
        })
    }

    /// No job waits that a free builder could take, or one that sleeps once it
    /// is woken.
    fn check_dispatched(&self) -> Result<(), Breach> {
        if !self.unmatched.is_empty() {
            // More came free at once than one step may serve.
            return Ok(());
        }
        for (builder, profile) in self.queue.free_builders() {
            let job = self.queue.best_for(builder, profile);
            holds("I9", job.is_none(), || {
                format!("builder {builder} is free while {job:?} waits for it")
            })?;
        }
        for (profile, builder) in &self.dormant {
            let job = self.queue.best_unmet_for(*builder, *profile);
            holds("I9", job.is_none(), || {
                format!("builder {builder} sleeps while {job:?} waits for it")
            })?;
        }
        Ok(())
    }
}
