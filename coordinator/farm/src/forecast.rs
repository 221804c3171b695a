//! Forecast. Owns when a waiting job will start: the first builder to come
//! free, and what those before it take. Says nothing where that is unknown,
//! and decides nothing.
//!
//! Before it are jobs of every class that could have one of its builders. Those
//! of its own class all come to its builders. Those of another class are shared
//! out evenly among the builders at work that this class can have; where that is
//! not looked at, they count as if they had no others than this job's.

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_protocol::id::{BuilderId, JobId};

use crate::effect::Why;
use crate::estimates::span_words;
use crate::farm::Farm;
use crate::jobs::Job;
use crate::queue::{ClassId, Place, TURN};

/// Jobs before it that are counted: who has more before him waits for long,
/// and nobody is held up by the counting.
const AHEAD_MAX: usize = 100_000;
/// Other classes whose builders are looked at, those with most jobs before it:
/// each is a question to every builder.
const SHARED_MAX: usize = 16;

/// What is known of a waiting job's start.
pub(crate) struct Forecast {
    /// Jobs for the same builders that start before it.
    ahead: usize,
    pub(crate) starts_in: Option<Duration>,
}

impl Forecast {
    /// What the builders' own state does not say already.
    pub(crate) fn words(&self) -> Option<String> {
        let starts = self.starts_in.map_or_else(
            || "start unknown".to_owned(),
            |span| format!("starts in {}", span_words(span)),
        );
        match self.ahead {
            0 => None,
            AHEAD_MAX.. => Some(format!("more than {AHEAD_MAX} before it, {starts}")),
            ahead => Some(format!("{ahead} for its builders before it, {starts}")),
        }
    }
}

/// Builders at work, or about to be, that a class can have.
#[derive(Default)]
struct Served {
    all: u64,
    /// Those that the waiting job's class can have, too.
    both: u64,
}

impl Farm {
    /// `builders` with what hinders each, the first of all reasons first, in
    /// the order of their numbers.
    pub(crate) fn forecast<N>(
        &self,
        id: JobId,
        job: &Job,
        builders: &[(BuilderId, N, Vec<Why>)],
    ) -> Forecast {
        let at_work = builders
            .iter()
            .filter(|(_, _, why)| is_at_work(why.first()));
        let serving = u64::try_from(at_work.clone().count()).unwrap_or(u64::MAX);
        let mean = self.estimates.mean(job.like(&self.queue).architecture);
        let place = Place {
            job: id,
            owner: job.owner,
            rank: job.rank(),
            among: &self.queue.classes.related(job.class),
            // Who has how many turns; when they start stays unknown.
            turn: mean.unwrap_or(TURN),
            serving,
        };
        let before = self.queue.ahead(place, AHEAD_MAX);
        let ahead = before.values().sum();
        let first_free = at_work
            .filter_map(|(_, _, why)| self.free_in(why.first()?))
            .min();
        let starts_in = match ahead {
            0 => first_free,
            // It was not counted to the end.
            AHEAD_MAX.. => None,
            _ => first_free.and_then(|free| {
                let work = self.work_before(job.class, &before, builders)?;
                let serving = u32::try_from(serving).unwrap_or(u32::MAX);
                Some(free + work.checked_div(serving)?)
            }),
        };
        Forecast { ahead, starts_in }
    }

    fn free_in(&self, why: &Why) -> Option<Duration> {
        if let Why::Busy(attempt) = why {
            self.left_of(*attempt)
        } else {
            Some(Duration::ZERO)
        }
    }

    /// How long the builders of the class are busy with these, all together.
    fn work_before<N>(
        &self,
        class: ClassId,
        before: &BTreeMap<ClassId, usize>,
        builders: &[(BuilderId, N, Vec<Why>)],
    ) -> Option<Duration> {
        let others = before.iter().filter(|(other, _)| **other != class);
        let mut most_first: Vec<_> = others.map(|(other, jobs)| (*other, *jobs)).collect();
        most_first.sort_unstable_by_key(|(other, jobs)| (std::cmp::Reverse(*jobs), *other));
        most_first.truncate(SHARED_MAX);
        let looked_at: Vec<ClassId> = most_first.iter().map(|(other, _)| *other).collect();
        let served = self.served(&looked_at, builders);
        let mut millis: u128 = 0;
        for (other, jobs) in before {
            let architecture = &self.queue.classes.get(*other).needs.architecture;
            let mean = self.estimates.mean(architecture)?;
            let jobs = u128::try_from(*jobs).unwrap_or(u128::MAX);
            let of_all = mean.as_millis() * jobs;
            millis += served.get(other).map_or(of_all, |served| {
                of_all * u128::from(served.both) / u128::from(served.all.max(1))
            });
        }
        Some(Duration::from_millis(u64::try_from(millis).ok()?))
    }

    /// The builders of each of these classes, beside the job's own.
    fn served<N>(
        &self,
        classes: &[ClassId],
        builders: &[(BuilderId, N, Vec<Why>)],
    ) -> BTreeMap<ClassId, Served> {
        let mut served = BTreeMap::new();
        if classes.is_empty() {
            return served;
        }
        for (id, _, why) in builders {
            let Some(builder) = self.builders.get(id) else {
                continue;
            };
            let takes = |class: &&ClassId| {
                self.queue.classes.fits(**class, builder.profile)
                    && !self.queue.classes.get(**class).avoids.contains(id)
            };
            let mut fitting = classes.iter().filter(takes).peekable();
            let own = is_at_work(why.first());
            if fitting.peek().is_none() || !own && !is_at_work(self.hindrances_of(builder).first())
            {
                continue;
            }
            for class in fitting {
                let of_class: &mut Served = served.entry(*class).or_default();
                of_class.all += 1;
                of_class.both += u64::from(own);
            }
        }
        served
    }
}

/// Whether a builder works or is about to, by the first of what hinders it.
fn is_at_work(first: Option<&Why>) -> bool {
    first.is_none_or(|why| matches!(why, Why::Busy(_)) || is_coming(why))
}

/// Free, or about to be.
const fn is_coming(why: &Why) -> bool {
    matches!(
        why,
        Why::Free | Why::Dirty | Why::Resetting | Why::AwaitsUpload
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_to_the_end_is_said_to_be_more() {
        let told = |ahead| {
            let starts_in = (ahead < AHEAD_MAX).then_some(Duration::ZERO);
            Forecast { ahead, starts_in }.words()
        };
        let words = |text: &str| Some(text.to_owned());
        assert_eq!(told(0), None);
        assert_eq!(
            told(7),
            words("7 for its builders before it, starts in 0 s")
        );
        assert_eq!(
            told(AHEAD_MAX),
            words("more than 100000 before it, start unknown")
        );
    }
}
