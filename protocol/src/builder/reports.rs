//! Reports outside attempts: resets, proofs, fitness. Owns their numbers,
//! from 1 per builder, and keeps each until the coordinator has it.

use std::collections::VecDeque;

use super::event::{BuilderReport, Record};
use crate::agent_to_coordinator::{
    AgentFrame, Clean, Condition, Fitness, ResetFailed, ResetStarted,
};
use crate::id::{BuilderIndex, Seq};

#[derive(Debug, Default)]
pub(super) struct Reports {
    last: Seq,
    acked: Seq,
    waiting: VecDeque<(Seq, BuilderReport)>,
    /// The newest condition, kept for good: what the coordinator believes.
    condition: Option<(Seq, BuilderReport)>,
}

impl Reports {
    /// The newest number given out.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    pub(super) fn push(&mut self, seq: Seq, report: BuilderReport) {
        self.last = self.last.max(seq);
        match &report {
            BuilderReport::Condition { .. } => self.condition = Some((seq, report.clone())),
            BuilderReport::ResetStarted { .. }
            | BuilderReport::ResetFailed { .. }
            | BuilderReport::Clean { .. } => {}
        }
        if seq > self.acked {
            self.waiting.push_back((seq, report));
        }
    }

    pub(super) fn acknowledge(&mut self, seq: Seq) {
        self.acked = self.acked.max(seq);
        self.last = self.last.max(seq);
        while self.waiting.front().is_some_and(|(first, _)| *first <= seq) {
            self.waiting.pop_front();
        }
    }

    /// The fitness that was told last; a builder starts as fit.
    pub(super) fn fitness(&self) -> Fitness {
        match &self.condition {
            Some((_, BuilderReport::Condition { fitness, .. })) => *fitness,
            Some((
                _,
                BuilderReport::ResetStarted { .. }
                | BuilderReport::ResetFailed { .. }
                | BuilderReport::Clean { .. },
            ))
            | None => Fitness::Fit,
        }
    }

    /// Everything the coordinator does not have, in order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &(Seq, BuilderReport)> {
        self.waiting.iter()
    }

    /// The records that restore this.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let told = self
            .condition
            .iter()
            .filter(|(seq, _)| *seq <= self.acked)
            .map(to_record);
        let acked = Record::BuilderAcked { seq: self.acked };
        told.chain([acked])
            .chain(self.waiting.iter().map(to_record))
    }
}

fn to_record((seq, report): &(Seq, BuilderReport)) -> Record {
    Record::BuilderReport {
        seq: *seq,
        report: report.clone(),
    }
}

/// A report as it travels, for the builder's place in the live session.
pub(super) fn frame(builder: BuilderIndex, seq: Seq, report: &BuilderReport) -> AgentFrame {
    match report.clone() {
        BuilderReport::ResetStarted { nonce } => ResetStarted {
            builder,
            seq,
            nonce,
        }
        .into(),
        BuilderReport::ResetFailed {
            nonce,
            stage,
            failure,
            stdout,
            stderr,
        } => ResetFailed {
            builder,
            seq,
            nonce,
            stage,
            failure,
            stdout,
            stderr,
        }
        .into(),
        BuilderReport::Clean {
            nonce,
            reset_ms,
            probe_ms,
        } => Clean {
            builder,
            seq,
            nonce,
            reset_ms,
            probe_ms,
        }
        .into(),
        BuilderReport::Condition { fitness, why } => Condition {
            builder,
            seq,
            fitness,
            why,
        }
        .into(),
    }
}
