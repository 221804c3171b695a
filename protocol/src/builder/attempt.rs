//! One attempt as its builder holds it: the records that were spooled for it,
//! and what follows from them. Owns the phases and the numbering of reports.
//! Invariant: phase and reports are functions of the records alone.

use std::time::Duration;

use super::event::{EndReport, Record};
use crate::agent_to_coordinator::{
    Accepted, AgentFrame, AttemptPhase, Ended, OutputsLost, Refused, Sealed, Started,
};
use crate::id::{AttemptId, Seq};
use crate::outcome::Outcome;
use crate::spec::JobSpec;

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Accepted,
    Running,
    Ended,
    Sealed,
    /// It will not be carried out; gone once the coordinator knows.
    Refused,
    /// Its outputs cannot be delivered; gone once the coordinator knows.
    OutputsLost,
}

/// Whether it was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    /// Its end is still to be reported.
    Aborted,
    /// Nobody wants to hear of it any more.
    Abandoned,
}

#[derive(Debug)]
pub(super) struct Attempt {
    id: AttemptId,
    records: Vec<Record>,
    acked: Seq,
    phase: Phase,
    stopping: Stopping,
}

impl Attempt {
    /// Begins with an `Accepted` or a `Refused` record.
    pub(super) fn new(id: AttemptId) -> Self {
        Self {
            id,
            records: Vec::new(),
            acked: Seq(0),
            phase: Phase::Accepted,
            stopping: Stopping::No,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn stopping(&self) -> Stopping {
        self.stopping
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether its run was a success, so that its outputs are wanted.
    pub(super) fn succeeded(&self) -> bool {
        self.records.iter().any(|record| {
            matches!(record, Record::Ended { report, .. } if report.outcome == Outcome::Succeeded)
        })
    }

    /// Whether it keeps the builder from anything else.
    pub(super) fn occupies(&self) -> bool {
        match self.phase {
            Phase::Accepted | Phase::Running | Phase::Ended => true,
            Phase::Sealed | Phase::Refused | Phase::OutputsLost => false,
        }
    }

    pub(super) fn hello_phase(&self) -> AttemptPhase {
        match self.phase {
            Phase::Accepted | Phase::Refused => AttemptPhase::Accepted,
            Phase::Running => AttemptPhase::Running,
            Phase::Ended => AttemptPhase::Ended,
            Phase::Sealed | Phase::OutputsLost => AttemptPhase::Sealed,
        }
    }

    pub(super) fn spec(&self) -> Option<&JobSpec> {
        self.records.iter().find_map(|record| match record {
            Record::Accepted { spec, .. } => Some(spec.as_ref()),
            Record::Refused { .. }
            | Record::Started { .. }
            | Record::Stopping { .. }
            | Record::Ended { .. }
            | Record::Sealed { .. }
            | Record::OutputsLost { .. }
            | Record::Released { .. }
            | Record::BuilderReport { .. }
            | Record::BuilderAcked { .. }
            | Record::Cleanliness(_)
            | Record::Booted { .. }
            | Record::OutOfService { .. } => None,
        })
    }

    /// Between TERM and KILL: what the job asks for, or the builder's own.
    /// Nobody waits for an abandoned attempt.
    pub(super) fn grace(&self, default: Duration) -> Duration {
        if self.stopping == Stopping::Abandoned {
            return Duration::ZERO;
        }
        match self.spec().map_or(0, |spec| spec.limits.grace_ms) {
            0 => default,
            asked => Duration::from_millis(asked),
        }
    }

    /// Takes one record of this attempt in; what it reports comes back.
    pub(super) fn push(&mut self, record: Record) -> Option<AgentFrame> {
        match &record {
            Record::Accepted { .. } => self.phase = Phase::Accepted,
            Record::Started { .. } => self.phase = Phase::Running,
            Record::Stopping { abandoned, .. } => {
                self.stopping = if *abandoned {
                    Stopping::Abandoned
                } else {
                    Stopping::Aborted
                };
            }
            Record::Ended { .. } => self.phase = Phase::Ended,
            Record::Sealed { .. } => self.phase = Phase::Sealed,
            Record::OutputsLost { .. } => self.phase = Phase::OutputsLost,
            Record::Refused { .. } => self.phase = Phase::Refused,
            Record::Released { .. }
            | Record::BuilderReport { .. }
            | Record::BuilderAcked { .. }
            | Record::Cleanliness(_)
            | Record::Booted { .. }
            | Record::OutOfService { .. } => {
                debug_assert!(false, "{record:?} is not kept with an attempt");
            }
        }
        let frame = report(self.id, self.last().next(), &record);
        self.records.push(record);
        frame.filter(|_| self.stopping != Stopping::Abandoned)
    }

    /// The number of the newest report.
    pub(super) fn last(&self) -> Seq {
        Seq(self.reports().count() as u64)
    }

    pub(super) fn acknowledge(&mut self, seq: Seq) {
        self.acked = self.acked.max(seq.min(self.last()));
    }

    /// Nothing more will follow, and the coordinator has all of it.
    pub(super) fn told_to_the_end(&self) -> bool {
        match self.phase {
            Phase::Refused | Phase::OutputsLost => self.acked == self.last(),
            Phase::Accepted | Phase::Running | Phase::Ended | Phase::Sealed => false,
        }
    }

    /// What the coordinator does not have; nothing for an abandoned attempt.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = AgentFrame> {
        let heard = self.stopping != Stopping::Abandoned;
        let acked = usize::try_from(self.acked.0).expect("at most the reports held");
        self.reports().skip(acked).filter(move |_| heard)
    }

    /// The newest report, for whoever asks again.
    pub(super) fn newest(&self) -> Option<AgentFrame> {
        let heard = self.stopping != Stopping::Abandoned;
        self.reports().last().filter(|_| heard)
    }

    fn reports(&self) -> impl Iterator<Item = AgentFrame> {
        self.records
            .iter()
            .scan(Seq(0), |last, record| {
                let frame = report(self.id, last.next(), record);
                if frame.is_some() {
                    *last = last.next();
                }
                Some(frame)
            })
            .flatten()
    }
}

/// The report that a record is, if it is one.
fn report(attempt: AttemptId, seq: Seq, record: &Record) -> Option<AgentFrame> {
    Some(match record {
        Record::Accepted { .. } => Accepted { attempt, seq }.into(),
        Record::Started { .. } => Started { attempt, seq }.into(),
        Record::Ended {
            report:
                EndReport {
                    outcome,
                    exit,
                    usage,
                },
            ..
        } => Ended {
            attempt,
            seq,
            outcome: outcome.clone(),
            exit: *exit,
            usage: *usage,
        }
        .into(),
        Record::Sealed { report, .. } => Sealed {
            attempt,
            seq,
            manifest: report.manifest,
            manifest_bytes: report.manifest_bytes,
            outputs: report.outputs,
            output_bytes: report.output_bytes,
            log_bytes: report.log_bytes,
            outcome: report.outcome.clone(),
        }
        .into(),
        Record::OutputsLost { why, .. } => OutputsLost {
            attempt,
            seq,
            why: why.clone(),
        }
        .into(),
        Record::Refused { refusal, why, .. } => Refused {
            attempt,
            seq,
            refusal: *refusal,
            why: why.clone(),
        }
        .into(),
        Record::Stopping { .. }
        | Record::Released { .. }
        | Record::BuilderReport { .. }
        | Record::BuilderAcked { .. }
        | Record::Cleanliness(_)
        | Record::Booted { .. }
        | Record::OutOfService { .. } => return None,
    })
}
