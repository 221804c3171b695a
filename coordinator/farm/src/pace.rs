//! Pace. Owns the look for black holes: a builder that fails jobs much faster
//! than jobs take, one after another, while the rest of the fleet does well,
//! eats the queue. It is taken out after three jobs. Never blames a builder
//! for jobs that fail everywhere.

use std::time::Duration;

use farmbell_protocol::id::JobId;
use farmbell_protocol::outcome::{Outcome, Verdict};

use crate::estimates::span_words;
use crate::farm::Farm;
use crate::ledger::About;
use crate::record::{AttemptRecord, Change, LedgerKind};

/// Fast failures of different jobs in a row that take a builder out.
const FAST_FAILURES: u8 = 3;
/// A failure is fast if it took less than this, or less than a tenth of what
/// the job usually takes.
const FAST: Duration = Duration::from_secs(30);
/// Results of the rest of the fleet that a comparison needs.
const OTHERS_MIN: u32 = 3;
/// Old results count half each time this many have come.
const REMEMBERED: u32 = 1000;

/// How the whole fleet's results are lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    results: u32,
    failures: u32,
}

impl Pace {
    fn count(&mut self, failed: bool) {
        if self.results >= REMEMBERED {
            self.results /= 2;
            self.failures /= 2;
        }
        self.results += 1;
        self.failures += u32::from(failed);
    }
}

impl Farm {
    /// Compares an attempt that ended here with the fleet.
    pub(crate) fn watch_pace(&mut self, attempt: &AttemptRecord) {
        let failed = match &attempt.outcome {
            Some(Outcome::Failed { .. } | Outcome::BuilderProblem { .. }) => true,
            Some(Outcome::Succeeded) => false,
            Some(Outcome::GivenBack { .. } | Outcome::Aborted | Outcome::SupervisorLost { .. })
            | None => return,
        };
        self.pace.count(failed);
        let took = run_time(attempt);
        let fast = took < FAST || self.usual(attempt.id.job).is_some_and(|u| took < u / 10);
        let Some(builder) = self.builders.get_mut(&attempt.builder) else {
            return;
        };
        let (count, last) = builder.fast_failures;
        let streak = match (failed && fast, last == Some(attempt.id.job)) {
            (false, _) => 0,
            (true, true) => count,
            (true, false) => count.saturating_add(1),
        };
        builder.fast_failures = (streak, (streak > 0).then_some(attempt.id.job));
        let others = self.pace.results.saturating_sub(u32::from(streak));
        let others_failed = self.pace.failures.saturating_sub(u32::from(streak));
        if streak < FAST_FAILURES || others < OTHERS_MIN || others_failed * 2 > others {
            return;
        }
        builder.fast_failures = (0, None);
        let why = format!("{streak} fast failures");
        let line = format!(
            "a black hole: {why} in a row, the last after {}, while {others_failed} of the \
             fleet's other {others} results failed",
            span_words(took)
        );
        let about = About::attempt(attempt.id).on(attempt.builder);
        self.note(LedgerKind::Blamed, about, line);
        self.soil(attempt.builder);
        self.quarantine(attempt.builder, &why);
    }

    /// How long a job like this usually takes.
    fn usual(&self, job: JobId) -> Option<Duration> {
        let job = self.jobs.get(&job)?;
        self.estimates
            .usual(&job.name, &job.needs(&self.queue).architecture)
    }

    /// Remembers how long a success took.
    pub(crate) fn learn(&mut self, job: JobId, verdict: &Verdict) {
        let Some(job) = self.jobs.get(&job) else {
            return;
        };
        if let (Verdict::Succeeded, Some(live)) = (verdict, job.live()) {
            let learnt = self.estimates.learn(job.like(&self.queue), run_time(live));
            let change = learnt.map(|record| Change::Duration(Box::new(record)));
            self.step.changes.extend(change);
        }
    }
}

fn run_time(attempt: &AttemptRecord) -> Duration {
    match (attempt.started, attempt.ended) {
        (Some(started), Some(ended)) => Duration::from_millis(ended.0.saturating_sub(started.0)),
        (Some(_) | None, _) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_results_count_half_when_many_have_come() {
        let mut pace = Pace::default();
        for _ in 0..REMEMBERED {
            pace.count(true);
        }
        assert_eq!((pace.results, pace.failures), (REMEMBERED, REMEMBERED));
        pace.count(false);
        assert_eq!((pace.results, pace.failures), (501, 500));
    }
}
