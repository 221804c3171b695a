//! From the spool to the state, and from the state to what the host really
//! has. Owns the fold over records (the only place where state that must
//! survive is changed) and the reconciliation after a restart.

use super::attempt::{Attempt, Phase, Stopping};
use super::event::{BuilderReport, Cleanliness, Effect, EndReport, HostView, Record, Survivor};
use super::{Builder, reports};
use crate::agent_to_coordinator::{AgentFrame, AttemptPhase, Refusal};
use crate::bounded::Reason;
use crate::id::{AttemptId, Seq};
use crate::outcome::Outcome;

impl Builder {
    /// Takes one record in. What it reports comes back, as it is said to the
    /// live session.
    pub(super) fn fold(&mut self, record: Record) -> Option<AgentFrame> {
        match record {
            Record::Accepted { attempt, .. } => {
                self.cleanliness = Cleanliness::Dirty;
                self.fold_attempt(attempt, record)
            }
            Record::Started { attempt }
            | Record::Stopping { attempt, .. }
            | Record::Ended { attempt, .. }
            | Record::Sealed { attempt, .. }
            | Record::OutputsLost { attempt, .. }
            | Record::Refused { attempt, .. } => self.fold_attempt(attempt, record),
            Record::Released { attempt } => {
                self.attempts.remove(&attempt);
                None
            }
            Record::BuilderReport { seq, report } => self.fold_report(seq, report),
            Record::BuilderAcked { seq } => {
                self.reports.acknowledge(seq);
                None
            }
            Record::Cleanliness(cleanliness) => {
                self.cleanliness = cleanliness;
                None
            }
            Record::Booted { boot } => {
                self.boot = Some(boot);
                None
            }
            Record::OutOfService { why } => {
                self.out_of_service = Some(why);
                None
            }
        }
    }

    fn fold_attempt(&mut self, attempt: AttemptId, record: Record) -> Option<AgentFrame> {
        self.attempts
            .entry(attempt)
            .or_insert_with(|| Attempt::new(attempt))
            .push(record)
    }

    fn fold_report(&mut self, seq: Seq, report: BuilderReport) -> Option<AgentFrame> {
        match &report {
            BuilderReport::ResetStarted { nonce } => {
                self.cleanliness = Cleanliness::Resetting { nonce: *nonce };
            }
            BuilderReport::ResetFailed { nonce, .. } => {
                self.cleanliness = Cleanliness::Failed { nonce: *nonce };
            }
            BuilderReport::Clean { nonce, .. } => {
                self.cleanliness = Cleanliness::Clean { nonce: *nonce };
            }
            BuilderReport::Condition { .. } => {}
        }
        let frame = self.link.map(|index| reports::frame(index, seq, &report));
        self.reports.push(seq, report);
        frame
    }

    /// Compares what the records say with what the host has, and takes up
    /// every thread where it lies.
    pub(super) fn reconcile(&mut self, host: &HostView) {
        let rebooted = self.boot.is_some_and(|boot| boot != host.boot);
        if rebooted {
            // A reboot ends whatever could not be killed, and what ran since
            // the proof is unknown.
            self.out_of_service = None;
            if matches!(self.cleanliness, Cleanliness::Clean { .. }) {
                self.record(Record::Cleanliness(Cleanliness::Dirty));
            }
        }
        if let Cleanliness::Resetting { nonce } = self.cleanliness {
            self.resume_reset(nonce, rebooted);
        }
        let held: Vec<AttemptId> = self.attempts.keys().copied().collect();
        for attempt in held {
            let found = host.survivors.iter().find(|s| s.attempt == attempt);
            self.take_up(attempt, found, rebooted);
        }
        for found in &host.survivors {
            if !self.attempts.contains_key(&found.attempt) {
                self.clear_stray(found, rebooted);
            }
        }
        if self.boot != Some(host.boot) {
            self.record(Record::Booted { boot: host.boot });
        }
    }

    fn take_up(&mut self, attempt: AttemptId, found: Option<&Survivor>, rebooted: bool) {
        let running = found.is_some_and(|found| found.running) && !rebooted;
        let end = found.and_then(|found| found.end.clone());
        let Some(held) = self.attempts.get(&attempt) else {
            return;
        };
        match held.phase() {
            Phase::Accepted => {
                let began = found.is_some_and(|found| found.phase != AttemptPhase::Accepted);
                if running || end.is_some() || began {
                    self.record(Record::Started { attempt });
                    self.take_up_run(attempt, running, end, rebooted);
                } else {
                    self.begin_again(attempt, rebooted);
                }
            }
            Phase::Running => self.take_up_run(attempt, running, end, rebooted),
            Phase::Ended => match held.stopping() {
                Stopping::Abandoned => self.release(attempt),
                Stopping::No | Stopping::Aborted => self.gather_again(attempt, rebooted),
            },
            Phase::Sealed => self.effects.push(Effect::Upload { attempt }),
            Phase::Refused | Phase::OutputsLost => {}
        }
    }

    /// It was accepted and nothing of it ever ran. On a host that restarted
    /// nobody knows what ran instead: it is not clean any more.
    fn begin_again(&mut self, attempt: AttemptId, rebooted: bool) {
        let Some(held) = self.attempts.get(&attempt) else {
            return;
        };
        match (held.stopping(), held.spec().cloned()) {
            (Stopping::No, _) if rebooted => self.record(Record::Refused {
                attempt,
                refusal: Refusal::Occupied,
                why: Reason::cut("the host restarted before it began"),
            }),
            (Stopping::No, Some(spec)) => {
                let spec = Box::new(spec);
                self.effects.push(Effect::Start { attempt, spec });
            }
            (Stopping::No | Stopping::Aborted | Stopping::Abandoned, _) => {
                self.end(attempt, EndReport::aborted());
            }
        }
    }

    fn take_up_run(
        &mut self,
        attempt: AttemptId,
        running: bool,
        end: Option<EndReport>,
        rebooted: bool,
    ) {
        if let Some(report) = end {
            if self.note_end(attempt, report) {
                self.gather_again(attempt, rebooted);
            }
            return;
        }
        if !running {
            let why = if rebooted {
                "the host restarted while it ran"
            } else {
                "its supervisor died with it and left no exit record"
            };
            let why = Reason::cut(why);
            return self.end(attempt, EndReport::unseen(Outcome::SupervisorLost { why }));
        }
        self.effects.push(Effect::Upload { attempt });
        let stopping = self.attempts.get(&attempt).map(Attempt::stopping);
        if matches!(stopping, Some(Stopping::Aborted | Stopping::Abandoned)) {
            self.stop(attempt);
        }
    }

    /// Its run had ended and nothing was sealed. What a build writes no disk
    /// has promised: after a reboot its outputs may be cut short, or not there.
    fn gather_again(&mut self, attempt: AttemptId, rebooted: bool) {
        let wanted = self.attempts.get(&attempt).is_some_and(Attempt::succeeded);
        if rebooted && wanted {
            let why = Reason::cut("the host restarted before its outputs were on the disk");
            self.outputs_lost(attempt, why);
        } else {
            self.effects.push(Effect::Seal { attempt });
        }
    }

    /// Something of an attempt that no record knows.
    fn clear_stray(&mut self, found: &Survivor, rebooted: bool) {
        let attempt = found.attempt;
        if found.running && !rebooted {
            self.strays.insert(attempt);
            let grace = std::time::Duration::ZERO;
            self.effects.push(Effect::Stop { attempt, grace });
        } else {
            self.effects.push(Effect::Release { attempt });
        }
    }
}
