//! Explaining. Owns the words for why a job waits and which builders could
//! take it. Computes nothing of its own: placement's rule, the one dispatch
//! uses, is asked for each builder.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::id::{AttemptId, BuilderId, JobId};
use farmbell_protocol::spec::JobSpec;

use crate::effect::{Explanation, Hold, Refused, RefusedCode, Reply, Why};
use crate::estimates::span_words;
use crate::farm::Farm;
use crate::jobs::Job;
use crate::placement::{misfits, needs_of};
use crate::queue::ProfileId;
use crate::record::{AgentStanding, Needs};

impl Farm {
    pub(crate) fn dry_run(&self, jobs: &[JobSpec]) -> Reply {
        Reply::Plan(
            jobs.iter()
                .map(|spec| self.explanation(&needs_of(spec), &[]))
                .collect(),
        )
    }

    pub(crate) fn explain(&self, id: JobId) -> Result<Reply, Refused> {
        let Some(job) = self.jobs.get(&id) else {
            let waits = self.explain_wait(id);
            return waits.ok_or_else(|| self.no_such_job(id, "explained"));
        };
        let explanation = job.is_waiting().then(|| {
            let avoids: Vec<BuilderId> = job.avoids().iter().map(|avoid| avoid.builder).collect();
            let mut explanation = self.explanation(job.needs(&self.queue), &avoids);
            explanation.held = self.hold_of(job);
            if let Some(hold) = &explanation.held {
                explanation.summary = format!("{hold}; {}", explanation.summary);
            } else {
                let forecast = self.forecast(id, job, &explanation.builders);
                if let Some(words) = forecast.words() {
                    explanation.summary = format!("{}; {words}", explanation.summary);
                }
                explanation.starts_in = forecast.starts_in;
            }
            explanation
        });
        Ok(Reply::Explained {
            job: Box::new(job.record(id, &self.queue, job.stored_state())),
            explanation,
        })
    }

    /// What holds a waiting job back whatever the builders do.
    fn hold_of(&self, job: &Job) -> Option<Hold> {
        let least = self.least_score(&job.needs(&self.queue).architecture);
        if job.suspended {
            Some(Hold::Suspended)
        } else if let Some(least) = least.filter(|_| job.braked) {
            Some(Hold::Brake {
                priority: job.priority,
                least,
            })
        } else {
            self.queue
                .owners
                .at_limit(job.owner)
                .map(|(running, most)| Hold::OwnerLimit { running, most })
        }
    }

    fn detail<N>(&self, builders: &[(BuilderId, N, Vec<Why>)]) -> Detail {
        let first = |why: &[Why]| why.first().cloned();
        let first_free = builders
            .iter()
            .filter_map(|(_, _, why)| match first(why) {
                Some(Why::Busy(attempt)) => self.left_of(attempt),
                Some(_) | None => None,
            })
            .min();
        let quarantined = builders
            .iter()
            .find(|(_, _, why)| first(why) == Some(Why::Quarantined))
            .and_then(|(id, _, _)| self.builders.get(id))
            .map(|builder| {
                let record = &builder.record;
                let minute = record.mode_since.0 / 60_000;
                let (hour, minute) = (minute / 60 % 24, minute % 60);
                format!("{} since {hour:02}:{minute:02} UTC", record.mode_why)
            });
        Detail {
            first_free,
            quarantined,
        }
    }

    /// What is left of a running attempt, by what such jobs usually take.
    pub(crate) fn left_of(&self, attempt: AttemptId) -> Option<Duration> {
        let job = self.jobs.get(&attempt.job)?;
        let started = job.live()?.started?;
        let ran = Duration::from_millis(self.clock.wall().0.saturating_sub(started.0));
        self.estimates.left(job.like(&self.queue), ran)
    }

    /// What builders offer, in whatever state they are; not those of a revoked
    /// agent, which never comes back.
    pub(crate) fn profiles_on_offer(&self) -> BTreeSet<ProfileId> {
        self.builders
            .values()
            .filter(|builder| self.standing_of(builder) != AgentStanding::Revoked)
            .map(|builder| builder.profile)
            .collect()
    }

    /// Whether a builder that offers one of these could ever take such a job.
    pub(crate) fn could_ever_run(&self, spec: &JobSpec, on_offer: &BTreeSet<ProfileId>) -> bool {
        let needs = needs_of(spec);
        on_offer
            .iter()
            .any(|profile| misfits(&needs, self.queue.classes.profile(*profile)).is_empty())
    }

    pub(crate) fn unmatched_refusal(&self, spec: &JobSpec) -> Refused {
        let explanation = self.explanation(&needs_of(spec), &[]);
        let fix = if self.builders.is_empty() {
            "join an agent first (farmbell token create), or submit with --allow-unmatched"
        } else {
            "change what the job asks for, add such a builder, or submit with --allow-unmatched"
        };
        Refused {
            code: RefusedCode::Unmatched,
            cause: format!(
                "no builder could ever take '{}' (recipe {}, architecture {}): {}",
                spec.name, spec.recipe, spec.architecture, explanation.summary
            ),
            fix: fix.to_owned(),
        }
    }

    fn explanation(&self, needs: &Needs, avoids: &[BuilderId]) -> Explanation {
        let builders: Vec<_> = self
            .builders
            .iter()
            .map(|(id, builder)| {
                // What it offers is beside the point if its key is worth nothing.
                let mut why = if self.standing_of(builder) == AgentStanding::Revoked {
                    Vec::new()
                } else {
                    misfits(needs, self.queue.classes.profile(builder.profile))
                };
                if why.is_empty() {
                    if avoids.contains(id) {
                        why.push(Why::Excluded);
                    }
                    why.extend(self.hindrances_of(builder));
                }
                if why.is_empty() {
                    why.push(Why::Free);
                }
                (*id, builder.record.name.clone(), why)
            })
            .collect();
        Explanation {
            architecture: needs.architecture.clone(),
            summary: summary(&builders, &self.detail(&builders)),
            held: None,
            starts_in: None,
            builders,
        }
    }
}

/// "12 builders match; 9 busy (first free in ~4 min), 2 resetting, 1 quarantined
/// (3 fast failures since 14:02 UTC), 30 lack tag gpu", counting each builder
/// once, by its first reason.
fn summary<N>(builders: &[(BuilderId, N, Vec<Why>)], detail: &Detail) -> String {
    if builders.is_empty() {
        return "no builder has joined the farm yet".to_owned();
    }
    let mut now: BTreeMap<String, usize> = BTreeMap::new();
    let mut never: BTreeMap<String, usize> = BTreeMap::new();
    let mut matching = 0;
    for (_, _, why) in builders {
        let Some(first) = why.first() else { continue };
        let counts = if is_for_good(first) {
            &mut never
        } else {
            matching += 1;
            &mut now
        };
        *counts.entry(words(first)).or_default() += 1;
    }
    let list = |counts: BTreeMap<String, usize>| {
        let mut most_first: Vec<_> = counts.into_iter().collect();
        most_first.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        most_first
            .into_iter()
            .map(|(words, count)| format!("{count} {words}{}", detail.of(&words)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = match matching {
        1 => "1 builder matches".to_owned(),
        _ => format!("{matching} builders match"),
    };
    for (separator, counts) in [("; ", now), (", ", never)] {
        if !counts.is_empty() {
            text = [text.as_str(), separator, &list(counts)].concat();
        }
    }
    text
}

/// What is known of the busy and the quarantined among the builders.
struct Detail {
    first_free: Option<Duration>,
    quarantined: Option<String>,
}

impl Detail {
    fn of(&self, words: &str) -> String {
        match words {
            "busy" => self.first_free.map_or_else(
                || " (first free: unknown)".to_owned(),
                |left| format!(" (first free in {})", span_words(left)),
            ),
            "quarantined" => self
                .quarantined
                .as_ref()
                .map_or_else(String::new, |why| format!(" ({why})")),
            _ => String::new(),
        }
    }
}

/// Whether only another offer of the builder's would change it.
#[must_use]
pub fn is_for_good(why: &Why) -> bool {
    match why {
        Why::WrongArchitecture
        | Why::WrongVirtualization
        | Why::NoRecipe
        | Why::LacksTag(_)
        | Why::RestrictedTag(_)
        | Why::RungTooLow
        | Why::TooLittleMemory
        | Why::TooLittleDisk
        | Why::AgentRevoked => true,
        Why::Free
        | Why::Excluded
        | Why::Resting
        | Why::Offline
        | Why::Unreachable
        | Why::AgentFrozen
        | Why::Busy(_)
        | Why::Dirty
        | Why::AwaitsHand
        | Why::Resetting
        | Why::ResetFailing
        | Why::AwaitsUpload
        | Why::Manual
        | Why::Draining
        | Why::Disabled
        | Why::Quarantined
        | Why::Unfit(_)
        | Why::FarmSuspect => false,
    }
}

/// One reason in words that follow a number of builders.
#[must_use]
pub fn words(why: &Why) -> String {
    let text = match why {
        Why::Free => "free",
        Why::WrongArchitecture => "of another architecture",
        Why::WrongVirtualization => "not virtualized as asked",
        Why::NoRecipe => "without the recipe",
        Why::LacksTag(tag) => return format!("lack tag {tag}"),
        Why::RestrictedTag(tag) => return format!("only for jobs with tag {tag}"),
        Why::RungTooLow => "with too little isolation",
        Why::TooLittleMemory => "with too little memory",
        Why::TooLittleDisk => "with too little disk",
        Why::Excluded => "passed over (failed or refused this job lately)",
        Why::Resting => "resting (refused or failed work lately)",
        Why::Offline => "offline",
        Why::Unreachable => "unreachable",
        Why::AgentFrozen => "frozen",
        Why::AgentRevoked => "of a revoked agent",
        Why::Busy(_) => "busy",
        Why::Dirty => "dirty",
        Why::AwaitsHand => "dirty until reset by hand",
        Why::Resetting => "resetting",
        Why::ResetFailing => "failing to reset",
        Why::AwaitsUpload => "sending outputs before a reset",
        Why::Manual => "manual",
        Why::Draining => "draining",
        Why::Disabled => "disabled",
        Why::Quarantined => "quarantined",
        Why::Unfit(fitness) => fitness_words(*fitness),
        Why::FarmSuspect => "held back until the restore is accepted",
    };
    text.to_owned()
}

/// What is wrong with a host, in words that follow a number of builders.
const fn fitness_words(fitness: Fitness) -> &'static str {
    match fitness {
        Fitness::Fit => "fit",
        Fitness::Backlog => "behind with sending outputs",
        Fitness::DiskLow => "low on disk",
        Fitness::ReadOnly => "with a disk that is read-only",
        Fitness::Unkillable => "with a build that cannot be killed",
        Fitness::Throttled => "throttled by heat or power",
        Fitness::Draining => "leaving",
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dependencies { missing } => write!(f, "waits for {missing}"),
            Self::Suspended => f.write_str("suspended until it is resumed"),
            Self::Brake { priority, least } => {
                write!(f, "its score {priority} is below the brake at {least}")
            }
            Self::OwnerLimit { running, most } => {
                write!(
                    f,
                    "its owner has {running} of at most {most} attempts under way"
                )
            }
        }
    }
}

impl RefusedCode {
    /// The word for it in replies and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Limit => "limit",
            Self::Unmatched => "unmatched",
            Self::Suspect => "suspect",
        }
    }
}

#[cfg(test)]
mod tests {
    use farmbell_protocol::bounded::{Name, Reason};

    use super::*;

    #[test]
    fn each_builder_is_counted_once_by_its_first_reason_and_the_most_come_first() {
        let attempt = AttemptId {
            job: JobId(1),
            generation: 1,
            number: 1,
            nonce: 1,
        };
        let busy = || Why::Busy(attempt);
        let gpu = || Why::LacksTag(Name::new("gpu").unwrap());
        let builders: Vec<(BuilderId, (), Vec<Why>)> = [
            vec![Why::Quarantined, busy()],
            vec![gpu(), Why::RungTooLow],
            vec![busy(), Why::Resting],
            vec![gpu()],
            vec![Why::RungTooLow, gpu()],
            vec![busy()],
        ]
        .into_iter()
        .zip(1..)
        .map(|(why, number)| (BuilderId(number), (), why))
        .collect();
        let known = Detail {
            first_free: Some(Duration::from_secs(230)),
            quarantined: Some("5 strikes".to_owned()),
        };
        assert_eq!(
            summary(&builders, &known),
            "3 builders match; 2 busy (first free in ~4 min), 1 quarantined (5 strikes), \
             2 lack tag gpu, 1 with too little isolation"
        );
        let unknown = Detail {
            first_free: None,
            quarantined: None,
        };
        assert_eq!(
            summary(&builders[..3], &unknown),
            "2 builders match; 1 busy (first free: unknown), 1 quarantined, 1 lack tag gpu"
        );
        assert_eq!(
            summary(&builders[1..2], &unknown),
            "0 builders match, 1 lack tag gpu"
        );
        assert_eq!(
            summary(&builders[..0], &unknown),
            "no builder has joined the farm yet"
        );
    }

    #[test]
    fn only_another_offer_helps_against_a_reason_that_is_for_good() {
        let tag = Name::new("gpu").unwrap();
        for why in [Why::RestrictedTag(tag), Why::NoRecipe, Why::AgentRevoked] {
            assert!(is_for_good(&why), "{why:?}");
        }
        for why in [Why::Free, Why::Excluded, Why::Unfit(Fitness::DiskLow)] {
            assert!(!is_for_good(&why), "{why:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_host_and_what_holds_a_job_back_is_told_in_words() {
        assert_eq!(words(&Why::Unfit(Fitness::DiskLow)), "low on disk");
        let holds = [
            (
                Hold::Dependencies {
                    missing: Reason::cut("baz"),
                },
                "waits for baz",
            ),
            (Hold::Suspended, "suspended until it is resumed"),
            (
                Hold::Brake {
                    priority: 1,
                    least: 10,
                },
                "its score 1 is below the brake at 10",
            ),
            (
                Hold::OwnerLimit {
                    running: 2,
                    most: 2,
                },
                "its owner has 2 of at most 2 attempts under way",
            ),
        ];
        for (hold, told) in holds {
            assert_eq!(hold.to_string(), told);
        }
        assert_eq!(RefusedCode::Unmatched.as_str(), "unmatched");
    }
}
