//! What the coordinator asks for: offers, aborts, abandons, commits, resets.
//! Each order may come again; the same order twice is the same as once.

use super::attempt::{Phase, Stopping};
use super::event::{BuilderReport, Cleanliness, Effect, Record};
use super::{Builder, reports};
use crate::agent_to_coordinator::{Fitness, Refusal, ResetScope};
use crate::bounded::{Reason, Text};
use crate::id::{AttemptId, CleanNonce, Seq};
use crate::spec::{ANY_ARCHITECTURE, JobSpec};

impl Builder {
    pub(super) fn offer(&mut self, attempt: AttemptId, spec: Box<JobSpec>) {
        if self.attempts.contains_key(&attempt) {
            self.repeat_or_newest(attempt);
            return;
        }
        if let Some((refusal, why)) = self.refusal(&spec) {
            self.record(Record::Refused {
                attempt,
                refusal,
                why: Reason::cut(why),
            });
            return;
        }
        self.record(Record::Accepted {
            attempt,
            spec: spec.clone(),
        });
        self.effects.push(Effect::Start { attempt, spec });
    }

    /// Why this offer cannot be taken, if it cannot.
    fn refusal(&self, spec: &JobSpec) -> Option<(Refusal, String)> {
        if let Some(occupant) = self.occupant().or_else(|| self.strays.first().copied()) {
            return Some((Refusal::Occupied, format!("attempt {occupant} is here")));
        }
        let (fitness, why) = self.fitness();
        match fitness {
            Fitness::Fit | Fitness::Throttled => {}
            Fitness::Backlog => return Some((Refusal::Backlog, why.as_str().to_owned())),
            Fitness::DiskLow | Fitness::ReadOnly => {
                return Some((Refusal::NoSpace, why.as_str().to_owned()));
            }
            Fitness::Unkillable => return Some((Refusal::Unfit, why.as_str().to_owned())),
            Fitness::Draining => return Some((Refusal::Draining, why.as_str().to_owned())),
        }
        match self.cleanliness {
            Cleanliness::Clean { .. } if self.wanted.is_none() => self.unfit(spec),
            Cleanliness::Clean { .. }
            | Cleanliness::Dirty
            | Cleanliness::Resetting { .. }
            | Cleanliness::Failed { .. } => Some((
                Refusal::Occupied,
                "the builder is not clean: it wants a reset first".to_owned(),
            )),
        }
    }

    /// What the spec asks for and this builder cannot give.
    fn unfit(&self, spec: &JobSpec) -> Option<(Refusal, String)> {
        let settings = &self.settings;
        let unfit = |why: String| Some((Refusal::Unfit, why));
        if !settings.recipes.contains(&spec.recipe) {
            let known: Vec<&str> = settings.recipes.iter().map(Text::as_str).collect();
            let why = format!(
                "there is no recipe '{}' here; there are: {}",
                spec.recipe,
                known.join(", ")
            );
            return Some((Refusal::UnknownRecipe, why));
        }
        if spec.architecture.as_str() != ANY_ARCHITECTURE
            && !settings.architectures.contains(&spec.architecture)
        {
            return unfit(format!("it is not of architecture {}", spec.architecture));
        }
        if settings.virtualized != spec.virtualized {
            let (wants, is) = (spec.virtualized, settings.virtualized);
            return unfit(format!(
                "the job wants virtualized = {wants}, here it is {is}"
            ));
        }
        if settings.rung < spec.rung {
            let (wants, has) = (spec.rung.as_str(), settings.rung.as_str());
            return unfit(format!("the job wants rung {wants}, here it is {has}"));
        }
        let missing = spec.tags.iter().find(|tag| {
            !settings.open_tags.contains(tag) && !settings.restricted_tags.contains(tag)
        });
        if let Some(tag) = missing {
            return unfit(format!("there is no tag {tag} here"));
        }
        if settings.memory_bytes < spec.limits.memory_bytes {
            return unfit(format!("it has {} bytes of memory", settings.memory_bytes));
        }
        if settings.disk_bytes < spec.limits.disk_bytes {
            return Some((
                Refusal::NoSpace,
                format!("it has {} bytes of disk", settings.disk_bytes),
            ));
        }
        None
    }

    /// Its end will be reported as aborted; what has already ended stays.
    pub(super) fn abort(&mut self, attempt: AttemptId) {
        let Some(held) = self.attempts.get(&attempt) else {
            return;
        };
        match (held.phase(), held.stopping()) {
            (Phase::Accepted | Phase::Running, Stopping::No) => {
                self.record(Record::Stopping {
                    attempt,
                    abandoned: false,
                });
                self.stop(attempt);
            }
            (Phase::Accepted | Phase::Running, Stopping::Aborted | Stopping::Abandoned) => {}
            (Phase::Ended | Phase::Sealed | Phase::Refused | Phase::OutputsLost, _) => {
                self.repeat_or_newest(attempt);
            }
        }
    }

    /// Ends it as fast as possible and forgets it; nothing more is reported.
    pub(super) fn abandon(&mut self, attempt: AttemptId) {
        let Some(held) = self.attempts.get(&attempt) else {
            return;
        };
        match (held.phase(), held.stopping()) {
            (Phase::Sealed | Phase::Refused | Phase::OutputsLost, _) => self.release(attempt),
            (Phase::Accepted | Phase::Running, Stopping::No | Stopping::Aborted) => {
                self.record(Record::Stopping {
                    attempt,
                    abandoned: true,
                });
                self.stop(attempt);
            }
            // Sealing works in the attempt's directory: its answer releases.
            (Phase::Ended, Stopping::No | Stopping::Aborted) => self.record(Record::Stopping {
                attempt,
                abandoned: true,
            }),
            (Phase::Accepted | Phase::Running | Phase::Ended, Stopping::Abandoned) => {}
        }
    }

    /// Everything of it is durable elsewhere. Before it was sealed nothing can
    /// be, so then the coordinator merely does not want it.
    pub(super) fn committed(&mut self, attempt: AttemptId) {
        self.abandon(attempt);
    }

    pub(super) fn acked(&mut self, attempt: AttemptId, seq: Seq) {
        let Some(held) = self.attempts.get_mut(&attempt) else {
            return;
        };
        held.acknowledge(seq);
        if held.told_to_the_end() {
            self.release(attempt);
        }
    }

    pub(super) fn reset_ordered(&mut self, nonce: CleanNonce) {
        let known = match self.cleanliness {
            Cleanliness::Dirty => None,
            Cleanliness::Resetting { nonce }
            | Cleanliness::Failed { nonce }
            | Cleanliness::Clean { nonce } => Some(nonce),
        };
        // Known: it is under way, or answered by a report that is kept and
        // repeated until the coordinator has it.
        self.wanted = (known != Some(nonce)).then_some(nonce);
    }

    /// Runs the reset that was ordered last, once nothing stands in its way.
    pub(super) fn start_wanted_reset(&mut self) {
        let Some(nonce) = self.wanted else {
            return;
        };
        let resetting = matches!(self.cleanliness, Cleanliness::Resetting { .. });
        let travelling = self.travelling() > 0 && !self.settings.spool_survives_reset;
        let occupied = self.occupant().is_some() || !self.strays.is_empty();
        if resetting || travelling || occupied || self.out_of_service.is_some() {
            return;
        }
        self.wanted = None;
        self.report(BuilderReport::ResetStarted { nonce });
        self.effects.push(Effect::Reset { nonce });
    }

    /// After a restart in the middle of a reset: run it again, unless the
    /// restart was the reset.
    pub(super) fn resume_reset(&mut self, nonce: CleanNonce, rebooted: bool) {
        self.effects.push(
            if rebooted && self.settings.reset_scope == ResetScope::Host {
                Effect::Probe { nonce }
            } else {
                Effect::Reset { nonce }
            },
        );
    }

    /// Brings a coordinator level that has this builder's reports up to
    /// `acked`.
    pub(super) fn catch_up(&mut self, acked: Seq) {
        if acked > self.reports.last() {
            self.renumber(acked);
        } else {
            self.reports.acknowledge(acked);
        }
        let Some(index) = self.link else {
            return;
        };
        let frames = self.reports.waiting();
        let frames = frames.map(|(seq, report)| reports::frame(index, *seq, report));
        self.effects.extend(frames.map(Effect::Say));
    }

    /// The coordinator knows higher numbers than this spool has given out (it
    /// is a new one): what waits gets numbers above them, or it would be taken
    /// for old news. What the old spool said of the builder's fitness is
    /// unknown here, so the present one is told again.
    fn renumber(&mut self, acked: Seq) {
        let waiting: Vec<BuilderReport> = self.reports.waiting().map(|(_, r)| r.clone()).collect();
        let mut records = vec![Record::BuilderAcked { seq: acked }];
        let mut seq = acked;
        for report in waiting {
            seq = seq.next();
            records.push(Record::BuilderReport { seq, report });
        }
        let (fitness, why) = self.fitness();
        records.push(Record::BuilderReport {
            seq: seq.next(),
            report: BuilderReport::Condition { fitness, why },
        });
        for record in records {
            self.effects.push(Effect::Spool(record.clone()));
            self.fold(record);
        }
    }

    pub(super) fn repeat(&mut self, attempt: AttemptId) {
        if let (Some(held), Some(_)) = (self.attempts.get(&attempt), self.link) {
            self.effects.extend(held.unacknowledged().map(Effect::Say));
        }
    }

    /// Asked again: what the coordinator does not have, at least the newest.
    fn repeat_or_newest(&mut self, attempt: AttemptId) {
        let (Some(held), Some(_)) = (self.attempts.get(&attempt), self.link) else {
            return;
        };
        let before = self.effects.len();
        self.effects.extend(held.unacknowledged().map(Effect::Say));
        if self.effects.len() == before {
            self.effects.extend(held.newest().map(Effect::Say));
        }
    }

    pub(super) fn stop(&mut self, attempt: AttemptId) {
        let Some(held) = self.attempts.get(&attempt) else {
            return;
        };
        let grace = held.grace(self.settings.grace);
        self.effects.push(Effect::Stop { attempt, grace });
    }

    pub(super) fn release(&mut self, attempt: AttemptId) {
        self.record(Record::Released { attempt });
        self.effects.push(Effect::Release { attempt });
    }

    /// Makes a report outside attempts durable and says it.
    pub(super) fn report(&mut self, report: BuilderReport) {
        let seq = self.reports.last().next();
        self.record(Record::BuilderReport { seq, report });
    }
}
