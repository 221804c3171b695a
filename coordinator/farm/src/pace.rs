//! Pace. Owns the look for black holes: a builder that fails jobs much faster
//! than jobs take, one after another, while the others do well, eats the
//! queue. It is taken out after three jobs. Never blames a builder for jobs
//! that fail everywhere: what it did well itself says nothing, what counts is
//! how the others are doing.
//!
//! | the others | three fast failures in a row |
//! |---|---|
//! | do well | it is quarantined |
//! | have given too few results | it rests a minute, then they are asked again |
//! | fail as fast, or there are none | the jobs are bad: it goes on |

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    Well { well: usize, failing: usize },
    TooFewResults,
    NoBetter,
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
        if sign == Sign::Fast
            && self.look_for_a_black_hole(attempt.builder) == Others::TooFewResults
        {
            self.rest(attempt.builder);
        }
    }

    /// Less than a tenth of what is usual, or than half a minute; but what
    /// usually takes some seconds may fail in some seconds, too.
    fn is_fast(&self, job: JobId, took: Duration) -> bool {
        let usual = self.usual(job);
        took < usual.map_or(FAST, |usual| (usual / 10).max(FAST.min(usual / 2)))
    }

    /// Takes a builder that is suspect out if the others do well; says how
    /// they do.
    pub(crate) fn look_for_a_black_hole(&mut self, id: BuilderId) -> Others {
        let form = self.builders.get(&id).map(|builder| builder.form);
        let Some((form, (_, took))) = form
            .filter(|form| form.fast_failures >= FAST_FAILURES)
            .and_then(|form| Some((form, form.last?)))
        else {
            return Others::NoBetter;
        };
        let others = self.others(id);
        let why = format!("{} fast failures", form.fast_failures);
        let took = span_words(took);
        let line = match others {
            Others::NoBetter => return others,
            Others::TooFewResults => format!(
                "suspect: {why} in a row, the last after {took}; the others have given too few \
                 results to tell whether the jobs are to blame"
            ),
            Others::Well { well, failing } => format!(
                "a black hole: {why} in a row, the last after {took}, while {well} of the {} \
                 others at work do well",
                well + failing
            ),
        };
        self.note(LedgerKind::Blamed, About::builder(id), line);
        if let (Others::Well { .. }, Some(builder)) = (others, self.builders.get_mut(&id)) {
            builder.form = Form::default();
            self.soil(id);
            self.quarantine(id, &why);
        }
        others
    }

    fn others(&self, not: BuilderId) -> Others {
        let (mut well, mut failing, mut working, mut signs) = (0, 0, 0, 0);
        let others = self.builders.iter().filter(|(id, builder)| {
            **id != not
                && self.link_of(builder) == Link::Online
                && match builder.record.mode {
                    OperatorMode::Enabled | OperatorMode::Manual | OperatorMode::Draining => true,
                    OperatorMode::Quarantined | OperatorMode::Disabled => false,
                }
        });
        for (_, builder) in others {
            if builder.form.fast_failures > 0 {
                failing += 1;
                continue;
            }
            working += u32::from(builder.is_held());
            let runs = self.runs_longer_than(builder, FAST);
            let shows = u32::from(builder.form.good) + u32::from(runs);
            well += usize::from(shows > 0);
            signs += shows;
        }
        if failing > well || (well == 0 && working == 0) {
            Others::NoBetter
        } else if signs >= u32::from(SIGNS_MIN) && well > failing {
            Others::Well { well, failing }
        } else {
            Others::TooFewResults
        }
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
