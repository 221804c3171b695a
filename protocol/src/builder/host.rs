//! What the host answers: starts, ends, seals, resets; and whether the builder
//! can take work at all. An answer about an attempt that is not held, or that
//! comes out of turn, changes nothing.

use std::time::Duration;

use super::Builder;
use super::attempt::{Attempt, Phase, Stopping};
use super::event::{
    BuilderReport, Cleanliness, Effect, EndReport, Record, ResetReport, SealReport,
};
use crate::agent_to_coordinator::{Fitness, Refusal};
use crate::bounded::{Reason, Text};
use crate::id::{AttemptId, CleanNonce};
use crate::outcome::Outcome;

impl Builder {
    pub(super) fn started(&mut self, attempt: AttemptId) {
        if self.phase(attempt) == Some(Phase::Accepted) {
            self.record(Record::Started { attempt });
            self.effects.push(Effect::Upload { attempt });
        }
    }

    /// Nothing of it ran: a refusal, unless it was asked to end meanwhile.
    pub(super) fn not_started(&mut self, attempt: AttemptId, refusal: Refusal, why: Reason) {
        if self.phase(attempt) != Some(Phase::Accepted) {
            return;
        }
        match self.stopping(attempt) {
            Stopping::Aborted | Stopping::Abandoned => self.end(attempt, EndReport::aborted()),
            Stopping::No => self.record(Record::Refused {
                attempt,
                refusal,
                why,
            }),
        }
    }

    pub(super) fn ended(&mut self, attempt: AttemptId, report: EndReport) {
        if self.strays.remove(&attempt) {
            self.effects.push(Effect::Release { attempt });
            return;
        }
        match self.phase(attempt) {
            Some(Phase::Accepted | Phase::Running) => self.end(attempt, report),
            Some(Phase::Ended | Phase::Sealed | Phase::Refused | Phase::OutputsLost) | None => {}
        }
    }

    /// The tree of a held attempt is empty: gather, or drop what nobody wants.
    pub(super) fn end(&mut self, attempt: AttemptId, report: EndReport) {
        if self.note_end(attempt, report) {
            self.effects.push(Effect::Seal { attempt });
        }
    }

    /// `false` where nobody wants what it left.
    pub(super) fn note_end(&mut self, attempt: AttemptId, mut report: EndReport) -> bool {
        match self.stopping(attempt) {
            Stopping::Abandoned => {
                self.release(attempt);
                return false;
            }
            Stopping::Aborted => report.outcome = Outcome::Aborted,
            Stopping::No => {}
        }
        self.record(Record::Ended { attempt, report });
        true
    }

    pub(super) fn unkillable(&mut self, attempt: AttemptId, why: Reason) {
        let held = self.attempts.get(&attempt).is_some_and(Attempt::occupies);
        if (held || self.strays.contains(&attempt)) && self.out_of_service.is_none() {
            self.record(Record::OutOfService { why });
        }
    }

    pub(super) fn sealed(&mut self, attempt: AttemptId, report: SealReport) {
        if self.phase(attempt) != Some(Phase::Ended) {
            return;
        }
        if self.stopping(attempt) == Stopping::Abandoned {
            return self.release(attempt);
        }
        self.record(Record::Sealed { attempt, report });
        self.effects.push(Effect::Upload { attempt });
    }

    pub(super) fn outputs_lost(&mut self, attempt: AttemptId, why: Reason) {
        match self.phase(attempt) {
            Some(Phase::Ended | Phase::Sealed) => {
                if self.stopping(attempt) == Stopping::Abandoned {
                    self.release(attempt);
                } else {
                    self.record(Record::OutputsLost { attempt, why });
                }
            }
            Some(Phase::Accepted | Phase::Running | Phase::Refused | Phase::OutputsLost) | None => {
            }
        }
    }

    pub(super) fn reset_ended(&mut self, nonce: CleanNonce, report: ResetReport) {
        if self.cleanliness != (Cleanliness::Resetting { nonce }) {
            return;
        }
        self.report(match report {
            ResetReport::Clean { reset, probe } => BuilderReport::Clean {
                nonce,
                reset_ms: milliseconds(reset),
                probe_ms: milliseconds(probe),
            },
            ResetReport::Failed {
                stage,
                failure,
                stdout,
                stderr,
            } => BuilderReport::ResetFailed {
                nonce,
                stage,
                failure,
                stdout,
                stderr,
            },
        });
    }

    /// Whether the builder can take work, and why not; the gravest first.
    pub(super) fn fitness(&self) -> (Fitness, Text<512>) {
        if let Some(why) = &self.out_of_service {
            return (Fitness::Unkillable, Text::cut(why.as_str()));
        }
        if self.draining {
            return (Fitness::Draining, Text::cut("the agent is going down"));
        }
        if self.host.0 != Fitness::Fit {
            return self.host.clone();
        }
        let (travelling, max) = (self.travelling(), self.settings.backlog_max);
        if travelling >= usize::from(max) {
            let why =
                format!("the outputs of {travelling} attempts still travel; the limit is {max}");
            return (Fitness::Backlog, Text::cut(why));
        }
        (Fitness::Fit, Text::default())
    }

    /// Reports a changed fitness.
    pub(super) fn tell_fitness(&mut self) {
        let (fitness, why) = self.fitness();
        if fitness != self.reports.fitness() {
            self.report(BuilderReport::Condition { fitness, why });
        }
    }

    /// How many attempts' outputs are only here.
    pub(super) fn travelling(&self) -> usize {
        self.attempts
            .values()
            .filter(|held| held.phase() == Phase::Sealed)
            .count()
    }

    fn stopping(&self, attempt: AttemptId) -> Stopping {
        self.attempts
            .get(&attempt)
            .map_or(Stopping::No, Attempt::stopping)
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
