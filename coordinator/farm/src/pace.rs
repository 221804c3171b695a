//! Pace. Owns the look for black holes: a builder that fails jobs much faster
//! than jobs take, one after another, while the others do well, eats the
//! queue. It is taken out after three jobs. Never blames a builder for jobs
//! that fail everywhere: what it did well itself says nothing, what counts is
//! how the others are doing.
//!
//! | three or more fast failures in a row, and the others | |
//! |---|---|
//! | do well: such bad luck comes once in a thousand times | it is quarantined |
//! | have given too few results | it rests a minute, then they are asked again |
//! | fail fast as well now and then, or there are none | the jobs are bad: it goes on |

use std::ops::Bound;
use std::time::Duration;

use farmbell_protocol::id::{BuilderId, JobId};
use farmbell_protocol::outcome::{FailureKind, Outcome, Verdict};

use crate::builders::Builder;
use crate::effect::Link;
use crate::estimates::span_words;
use crate::farm::Farm;
use crate::ledger::About;
use crate::record::{AttemptRecord, Change, LedgerKind, Occupation, OperatorMode};

/// Fast failures of different jobs in a row that make a builder suspect.
const FAST_FAILURES: u8 = 3;
/// A failure is fast if it took less than this, where nobody knows how long
/// such a job takes.
const FAST: Duration = Duration::from_secs(30);
/// Good signs of the others that a comparison needs; of one builder no more
/// than this count.
const SIGNS_MIN: u8 = 3;

/// What counts as no chance, in millionths.
const NO_CHANCE: u64 = 1000;
/// Others that are asked, those numbered next to it: a sample says enough of a
/// large farm, and a day when everything fails must not cost a scan each time.
const OTHERS_MAX: usize = 256;

/// How a builder has done since this process began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Form {
    /// Jobs in a row that failed here suspiciously fast, and the last of them.
    fast_failures: u8,
    last: Option<(JobId, Duration)>,
    /// Results since then that any builder might have given.
    good: u8,
}

/// What a result says of the builder that gave it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Good,
    Fast,
    Nothing,
}

/// How the other builders are doing.
#[derive(Clone, Copy, Debug, Default)]
struct Others {
    /// Their last result was good, or they run something longer than [`FAST`].
    well: u64,
    /// It was a fast failure.
    failing: u64,
    /// They run something of which nobody can tell yet.
    working: u64,
    signs: u64,
}

/// What a streak of fast failures says of its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    None,
    /// The others have shown too little.
    Open,
    Proved,
}

impl Others {
    fn say_of(self, streak: u8) -> Suspicion {
        let alone = self.well + self.working == 0;
        if alone || streak < FAST_FAILURES {
            return Suspicion::None;
        }
        if self.signs < u64::from(SIGNS_MIN) && self.failing <= self.well {
            return Suspicion::Open;
        }
        let all = (self.well + self.failing).max(1);
        let chance = (0..streak).fold(1_000_000, |chance, _| chance * self.failing / all);
        if chance <= NO_CHANCE {
            Suspicion::Proved
        } else {
            Suspicion::None
        }
    }
}

impl Form {
    fn note(&mut self, sign: Sign, job: JobId, took: Duration) {
        match sign {
            Sign::Good => {
                *self = Self {
                    good: self.good.saturating_add(1).min(SIGNS_MIN),
                    ..Self::default()
                }
            }
            Sign::Fast => {
                let again = self.last.is_some_and(|(last, _)| last == job);
                self.fast_failures = self.fast_failures.saturating_add(u8::from(!again));
                self.last = Some((job, took));
                self.good = 0;
            }
            Sign::Nothing => {}
        }
    }
}

impl Farm {
    /// Compares an attempt that ended here with how the others do.
    pub(crate) fn watch_pace(&mut self, attempt: &AttemptRecord) {
        let took = run_time(attempt);
        let sign = sign(attempt.outcome.as_ref(), self.is_fast(attempt.id.job, took));
        let Some(builder) = self.builders.get_mut(&attempt.builder) else {
            return;
        };
        builder.form.note(sign, attempt.id.job, took);
        if sign == Sign::Fast && self.look_for_a_black_hole(attempt.builder) == Suspicion::Open {
            self.rest(attempt.builder);
        }
    }

    /// Less than a tenth of what is usual, or than half a minute; but what
    /// usually takes some seconds may fail in some seconds, too.
    fn is_fast(&self, job: JobId, took: Duration) -> bool {
        let usual = self.usual(job);
        took < usual.map_or(FAST, |usual| (usual / 10).max(FAST.min(usual / 2)))
    }

    /// Takes a builder out if the others show that it, and not its jobs, is to
    /// blame for its fast failures.
    pub(crate) fn look_for_a_black_hole(&mut self, id: BuilderId) -> Suspicion {
        let form = self.builders.get(&id).map(|builder| builder.form);
        let Some((form, (_, took))) = form
            .filter(|form| form.fast_failures >= FAST_FAILURES)
            .and_then(|form| Some((form, form.last?)))
        else {
            return Suspicion::None;
        };
        let others = self.others(id);
        let suspicion = others.say_of(form.fast_failures);
        let why = format!("{} fast failures", form.fast_failures);
        let streak = format!("{why} in a row, the last after {}", span_words(took));
        let line = match suspicion {
            Suspicion::None => return suspicion,
            Suspicion::Open => format!(
                "suspect: {streak}; the others have given too few results to tell whether the \
                 jobs are to blame"
            ),
            Suspicion::Proved => format!(
                "a black hole: {streak}, while {} of the {} others that were asked do well",
                others.well,
                others.well + others.failing
            ),
        };
        self.note(LedgerKind::Blamed, About::builder(id), line);
        if let (Suspicion::Proved, Some(builder)) = (suspicion, self.builders.get_mut(&id)) {
            builder.form = Form::default();
            self.soil(id);
            self.quarantine(id, &why);
        }
        suspicion
    }

    fn others(&self, not: BuilderId) -> Others {
        let after = self
            .builders
            .range((Bound::Excluded(not), Bound::Unbounded));
        let around = after.chain(self.builders.range(..not)).take(OTHERS_MAX);
        let others = around.filter(|(_, builder)| {
            self.link_of(builder) == Link::Online
                && match builder.record.mode {
                    OperatorMode::Enabled | OperatorMode::Manual | OperatorMode::Draining => true,
                    OperatorMode::Quarantined | OperatorMode::Disabled => false,
                }
        });
        others.fold(Others::default(), |mut all, (_, builder)| {
            if builder.form.fast_failures > 0 {
                all.failing += 1;
                return all;
            }
            all.working += u64::from(builder.is_held());
            let runs = self.runs_longer_than(builder, FAST);
            let signs = u64::from(builder.form.good) + u64::from(runs);
            all.well += u64::from(signs > 0);
            all.signs += signs;
            all
        })
    }

    fn runs_longer_than(&self, builder: &Builder, span: Duration) -> bool {
        let Occupation::Held { attempt } = builder.record.occupation else {
            return false;
        };
        let live = self.jobs.get(&attempt.job).and_then(|job| job.live());
        let started = live.and_then(|live| live.started);
        started.is_some_and(|started| {
            let ran = self.clock.wall().0.saturating_sub(started.0);
            Duration::from_millis(ran) > span
        })
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

fn sign(outcome: Option<&Outcome>, fast: bool) -> Sign {
    match outcome {
        Some(Outcome::Succeeded) => Sign::Good,
        Some(Outcome::Failed { .. }) if !fast => Sign::Good,
        Some(Outcome::BuilderProblem { .. }) if fast => Sign::Fast,
        Some(Outcome::Failed { kind, .. }) => match kind {
            FailureKind::Build | FailureKind::ChrootProblem => Sign::Fast,
            // These lie in the job, however fast they are found.
            FailureKind::Outputs | FailureKind::DependencyWait | FailureKind::Limit => {
                Sign::Nothing
            }
        },
        Some(
            Outcome::BuilderProblem { .. }
            | Outcome::GivenBack { .. }
            | Outcome::Aborted
            | Outcome::SupervisorLost { .. },
        )
        | None => Sign::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(well: u64, failing: u64, streak: u8) -> Suspicion {
        let others = Others {
            well,
            failing,
            working: 0,
            signs: 3 * well,
        };
        others.say_of(streak)
    }

    #[test]
    fn the_more_the_others_fail_the_longer_a_streak_proves_nothing() {
        use Suspicion::{None, Proved};
        assert_eq!(after(10, 0, 2), None, "two are none");
        assert_eq!(after(10, 0, 3), Proved);
        assert_eq!(after(9, 1, 3), Proved, "one in ten, three times");
        assert_eq!(after(7, 3, 3), None, "that happens");
        assert_eq!(after(7, 3, 6), Proved);
        assert_eq!(after(1, 1, 9), None);
        assert_eq!(after(1, 1, 10), Proved);
        assert_eq!(after(0, 10, 255), None, "everything fails");
        assert_eq!(after(0, 0, 255), None, "nobody else is there");
    }
}
