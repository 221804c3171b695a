//! Unfinished jobs in compact form, and the memory of which generations are
//! decided. Owns how a job is kept and how its record is written. Never
//! decides a job's fate (verdicts.rs, leases.rs and cancel.rs do).
//!
//! ```text
//! waiting ─► assigned(n) ─► running(n) ─► collecting(n) ─► finishing(n) ─► verdict
//!    ▲────────── refused, returned, lost, withdrawn ─────────┘
//! ```
//! Invariant: a job is in the queue's index exactly while it waits and is not
//! suspended; its live attempt is part of it, so there is at most one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::id::{AttemptId, BuilderId, JobId, SubmissionId};
use farmbell_protocol::time::{Time, Wall};

use crate::estimates::Like;
use crate::queue::{ClassId, OwnerId, Queue, Rank};
use crate::record::{AttemptRecord, CancelWish, JobRecord, JobState, Needs};

/// How many decided jobs are remembered beyond what the store knows: more than
/// finish while a request or a report is under way.
const DECIDED_MAX: usize = 1 << 18;

/// An unfinished job. Small: a farm has a million of them.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) submission: SubmissionId,
    pub(crate) name: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) submitted: Time,
    pub(crate) submitted_wall: Wall,
    pub(crate) class: ClassId,
    /// All its inputs together: what a first estimate goes by.
    pub(crate) input_bytes: u64,
    pub(crate) owner: OwnerId,
    /// One text for all jobs of a suite.
    pub(crate) suite: Arc<str>,
    pub(crate) priority: i32,
    pub(crate) generation: u16,
    pub(crate) number: u16,
    /// The newest attempt of this generation that is known to have run.
    pub(crate) ran: u16,
    pub(crate) refunded: u16,
    pub(crate) strikes: u16,
    pub(crate) attempts_max: u8,
    pub(crate) private: bool,
    pub(crate) priority_frozen: bool,
    pub(crate) suspended: bool,
    /// Its score is below the brake.
    pub(crate) braked: bool,
    /// What few jobs have.
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) state: State,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    pub(crate) avoids: Vec<Avoid>,
    pub(crate) cancel: Option<CancelWish>,
    pub(crate) lost: Vec<AttemptRecord>,
}

/// A builder that is passed over for a job for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avoid {
    pub(crate) builder: BuilderId,
    pub(crate) until: Time,
    /// It failed the job; otherwise it only refused it, which ends with the
    /// builder's next Hello or change of condition.
    pub(crate) failed: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    Waiting { since: Wall },
    Live(Box<AttemptRecord>),
}

impl Job {
    pub(crate) fn rank(&self) -> Rank {
        Rank::new(self.priority, self.submitted)
    }

    pub(crate) fn live(&self) -> Option<&AttemptRecord> {
        match &self.state {
            State::Live(attempt) => Some(attempt),
            State::Waiting { .. } => None,
        }
    }

    pub(crate) fn live_mut(&mut self) -> Option<&mut AttemptRecord> {
        match &mut self.state {
            State::Live(attempt) => Some(attempt),
            State::Waiting { .. } => None,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    pub(crate) fn cancel(&self) -> Option<&CancelWish> {
        self.rare.as_ref()?.cancel.as_ref()
    }

    pub(crate) fn avoids(&self) -> &[Avoid] {
        self.rare.as_ref().map_or(&[], |rare| &rare.avoids)
    }

    pub(crate) fn lost(&self) -> &[AttemptRecord] {
        self.rare.as_ref().map_or(&[], |rare| &rare.lost)
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Attempts that count towards the cap.
    pub(crate) fn attempts_used(&self) -> u16 {
        self.number.saturating_sub(self.refunded)
    }

    /// Whether the generation has had all its attempts.
    pub(crate) fn is_worn_out(&self) -> bool {
        self.attempts_used() >= u16::from(self.attempts_max)
    }

    /// The whole record, as the store wants it.
    pub(crate) fn record(&self, id: JobId, queue: &Queue, state: JobState) -> JobRecord {
        let excluded = self
            .avoids()
            .iter()
            .filter(|avoid| avoid.failed)
            .map(|avoid| avoid.builder)
            .collect();
        JobRecord {
            id,
            submission: self.submission,
            name: Text::cut(&*self.name),
            version: Text::cut(&*self.version),
            needs: self.needs(queue).clone(),
            suite: Text::cut(&*self.suite),
            input_bytes: self.input_bytes,
            owner: queue.owners.name(self.owner).clone(),
            private: self.private,
            priority: self.priority,
            submitted: self.submitted,
            submitted_wall: self.submitted_wall,
            generation: self.generation,
            attempt_number: self.number,
            attempts_max: self.attempts_max,
            refunded: self.refunded,
            strikes: self.strikes,
            priority_frozen: self.priority_frozen,
            suspended: self.suspended,
            excluded: bounded(excluded),
            cancel: self.cancel().cloned(),
            lost: bounded(self.lost().to_vec()),
            state,
        }
    }

    pub(crate) fn needs<'a>(&self, queue: &'a Queue) -> &'a Needs {
        &queue.classes.get(self.class).needs
    }

    /// The job as estimates look at it.
    pub(crate) fn like<'a>(&'a self, queue: &'a Queue) -> Like<'a> {
        Like {
            name: &self.name,
            architecture: &self.needs(queue).architecture,
            input_bytes: self.input_bytes,
        }
    }

    /// The job's own state as a record has it.
    pub(crate) fn stored_state(&self) -> JobState {
        match &self.state {
            State::Waiting { since } => JobState::Waiting { since: *since },
            State::Live(attempt) => JobState::Live(attempt.clone()),
        }
    }
}

/// The newest of these, as many as a record has room for.
pub(crate) fn bounded<T: Clone, const MAX: usize>(mut items: Vec<T>) -> List<T, MAX> {
    let surplus = items.len().saturating_sub(MAX);
    items.drain(..surplus);
    List::new(items).expect("the surplus was cut off")
}

/// The suites that jobs are built for: few, and each kept once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suites(BTreeSet<Arc<str>>);

impl Suites {
    pub(crate) fn intern(&mut self, suite: &Name) -> Arc<str> {
        if let Some(known) = self.0.get(suite.as_str()) {
            return Arc::clone(known);
        }
        let suite: Arc<str> = suite.as_str().into();
        self.0.insert(Arc::clone(&suite));
        suite
    }
}

/// Which generations were decided lately, and by which attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decided {
    jobs: BTreeMap<JobId, (u16, Option<AttemptId>)>,
}

impl Decided {
    pub(crate) fn note(&mut self, job: JobId, generation: u16, attempt: Option<AttemptId>) {
        self.jobs.insert(job, (generation, attempt));
        if self.jobs.len() > DECIDED_MAX {
            self.jobs.pop_first();
        }
    }

    pub(crate) fn generation(&self, job: JobId) -> Option<u16> {
        self.jobs.get(&job).map(|(generation, _)| *generation)
    }

    /// Whether this very attempt decided its generation.
    pub(crate) fn by(&self, attempt: AttemptId) -> bool {
        self.jobs
            .get(&attempt.job)
            .is_some_and(|(_, decider)| *decider == Some(attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_decided_jobs_the_oldest_is_forgotten_when_there_is_no_more_room() {
        let mut decided = Decided::default();
        let newest = u64::try_from(DECIDED_MAX).unwrap();
        for job in 1..=newest {
            decided.note(JobId(job), 2, None);
        }
        assert_eq!(decided.generation(JobId(1)), Some(2));
        decided.note(JobId(newest + 1), 1, None);
        assert_eq!(decided.generation(JobId(1)), None);
        assert_eq!(decided.generation(JobId(2)), Some(2));
        assert_eq!(decided.generation(JobId(newest + 1)), Some(1));
    }
}
