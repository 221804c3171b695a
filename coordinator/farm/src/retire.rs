//! Retiring. Owns when finished jobs and the ledger's entries are old enough
//! to go, by the operator's policy, and that nothing goes which is not over.
//! Never reads the store: the coordinator looks there, a bounded step at a
//! time, and tells what it found; the farm decides, and asks for the next look.
//!
//! ```text
//! due ─► look (effect) ─► aged (event) ─► retired (changes) ─► look … ─► prune
//! ```
//! Invariant: a submission goes as a whole, when all its jobs have been over
//! for long enough; what the farm still works on stays.

use std::time::Duration;

use farmbell_protocol::id::{JobId, SubmissionId};
use farmbell_protocol::time::{Time, Wall};

use crate::effect::{Effect, Look};
use crate::event::Aged;
use crate::farm::Farm;
use crate::ledger::About;
use crate::record::{Change, LedgerKind};
use crate::settings::Settings;

/// Jobs, and ledger entries, that one step looks at.
const STEP: u32 = 1000;
/// Between two rounds: a tenth of the shortest age, within these.
const ROUND_MIN: Duration = Duration::from_secs(1);
const ROUND_MAX: Duration = Duration::from_secs(24 * 3600);
/// The first round comes soon after a start, or a farm that restarts every day
/// would keep everything; but not while agents find their way back.
const FIRST: Duration = Duration::from_secs(10 * 60);

#[derive(Clone, Debug, Default)]
pub(crate) struct Retiring {
    /// When the next round begins; none: nothing is ever retired.
    next: Option<Time>,
    /// Counts the rounds of this process, so that a late answer to one is told
    /// from the next one's.
    round: u64,
    /// Jobs that finished before this may be gone.
    jobs_before: Wall,
}

impl Retiring {
    pub(crate) fn from(settings: &Settings, now: Time) -> Self {
        Self {
            next: pause(settings).map(|pause| now + pause.min(FIRST)),
            ..Self::default()
        }
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.next
    }

    /// Whether a job that finished then may be gone from the store.
    pub(crate) fn may_have_taken(&self, finished: Wall) -> bool {
        finished < self.jobs_before
    }
}

impl Farm {
    pub(crate) fn retire_if_due(&mut self) {
        let now = self.clock.now();
        if self.retiring.next.is_none_or(|next| next > now) {
            return;
        }
        self.retiring.next = pause(&self.settings).map(|pause| now + pause);
        self.retiring.round += 1;
        self.look_for_aged(SubmissionId(0));
    }

    fn look_for_aged(&mut self, after: SubmissionId) {
        let wall = self.clock.wall();
        let before = |age: Duration| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Wall(wall.0.saturating_sub(age))
        };
        let jobs_before = self.settings.retire_jobs_after.map(before);
        if let Some(before) = jobs_before {
            self.retiring.jobs_before = self.retiring.jobs_before.max(before);
        }
        self.step.effects.push(Effect::Look(Look {
            round: self.retiring.round,
            jobs_before,
            after,
            entries_before: self.settings.retire_events_after.map(before),
            most: STEP,
        }));
    }

    /// What a look at the store found.
    pub(crate) fn aged(&mut self, aged: Aged) {
        if aged.round != self.retiring.round {
            return;
        }
        let mut jobs = 0;
        for submission in aged.submissions {
            let generations = &submission.jobs;
            if !generations.iter().all(|(job, of)| self.is_over(*job, *of)) {
                continue;
            }
            jobs += generations.len();
            self.forget_submission(submission.id);
            let jobs: Vec<JobId> = generations.iter().map(|(job, _)| *job).collect();
            let newest = jobs.iter().map(|job| job.0).max().unwrap_or_default();
            self.meta.retired = self.meta.retired.max(newest);
            self.step.changes.push(Change::SubmissionRetired {
                submission: submission.id,
                jobs,
            });
        }
        if aged.entries > 0 {
            let up_to = aged.entries_up_to;
            self.step.changes.push(Change::LedgerRetired { up_to });
        }
        if jobs > 0 || aged.entries > 0 {
            let line = format!("{jobs} jobs and {} events, grown old", aged.entries);
            self.note(LedgerKind::HistoryRetired, About::default(), line);
        }
        match aged.next {
            Some(after) => self.look_for_aged(after),
            None => self.step.effects.push(Effect::Prune),
        }
    }

    /// Whether this generation of the job is its last, and over: nothing will
    /// wake it.
    fn is_over(&self, job: JobId, generation: u16) -> bool {
        let decided = self.decided.generation(job);
        !self.jobs.contains_key(&job)
            && self.dependencies.get(job).is_none()
            && decided.is_none_or(|known| known == generation)
    }
}

fn pause(settings: &Settings) -> Option<Duration> {
    let ages = [settings.retire_jobs_after, settings.retire_events_after];
    let shortest = ages.into_iter().flatten().min()?;
    Some((shortest / 10).clamp(ROUND_MIN, ROUND_MAX))
}
