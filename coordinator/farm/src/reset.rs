//! Resets. Owns when a builder is cleaned and what proves it clean: the answer
//! to the newest challenge, and nothing else. A failed one is tried again with
//! back-off; after a few the builder is quarantined with the script's output.
//! Never decides who gets the clean builder.

use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::{
    Clean, Condition, Fitness, ResetFailed, ResetStage, ScriptFailure,
};
use farmbell_protocol::bounded::Text;
use farmbell_protocol::coordinator_to_agent::{BuilderAck, CoordinatorFrame, Reset};
use farmbell_protocol::id::{AgentId, BuilderId, BuilderIndex, CleanNonce, Seq};
use farmbell_protocol::outcome::ExitStatus;
use farmbell_protocol::time::Time;

use crate::blame::QUARANTINE_STRIKES;
use crate::builders::Builder;
use crate::deadlines::Deadline;
use crate::effect::{Link, Refused, RefusedCode};
use crate::farm::Farm;
use crate::leases::Loss;
use crate::ledger::About;
use crate::mutation::Mutation;
use crate::record::{
    AgentStanding, Cleanliness, LedgerKind, Occupation, OperatorMode, ResetProof, ResetWhen,
};

/// The wait after the first failed reset; doubled with each strike, until they
/// take the builder out.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// How long a builder that refused work is left in peace, unless it says
/// earlier that its condition changed.
const REST: Duration = Duration::from_secs(60);

impl Farm {
    /// Orders the reset of a builder that is dirty and could be reset now.
    pub(crate) fn order_reset_if_due(&mut self, id: BuilderId) {
        let Some(builder) = self.builders.get(&id) else {
            return;
        };
        if !self.could_be_reset(builder) {
            return;
        }
        let asked = builder.record.reset_proof.asked;
        let due = match builder.record.reset_rule.when {
            ResetWhen::After => true,
            ResetWhen::Before => asked || self.wake_for_a_job(id),
            ResetWhen::ByHand => asked,
        };
        if due {
            self.order_reset(id);
        }
    }

    fn order_reset(&mut self, id: BuilderId) {
        let nonce = CleanNonce(self.random());
        let deadline = self.clock.now() + self.settings.reset_after;
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        builder.record.cleanliness = Cleanliness::Resetting { deadline };
        builder.record.nonce = Some(nonce);
        builder.record.reset_proof.by_agent = false;
        builder.record.reset_proof.by_reporter = false;
        let line = builder
            .record
            .reset_rule
            .reporter
            .as_ref()
            .map(|who| format!("its end is reported by {who}, with the challenge {nonce}"));
        let (agent, index) = (builder.record.agent, builder.index);
        self.deadlines.arm(Deadline::Reset(id), deadline);
        self.step.touch_builder(id);
        let line = line.unwrap_or_default();
        self.note(LedgerKind::BuilderResetting, About::builder(id), line);
        if let Some(index) = index {
            let reset = Reset {
                builder: index,
                nonce,
            };
            self.send(agent, CoordinatorFrame::Reset(reset));
        }
    }

    /// Whether it is dirty, and nothing stands in the way of a reset.
    fn could_be_reset(&self, builder: &Builder) -> bool {
        let record = &builder.record;
        let wanted = match record.mode {
            OperatorMode::Enabled | OperatorMode::Manual | OperatorMode::Draining => true,
            // Whatever made it suspect is ended, unless it is the reset itself:
            // then once more whenever somebody asks for it.
            OperatorMode::Quarantined => record.trouble.is_none() || record.reset_proof.asked,
            OperatorMode::Disabled => false,
        };
        wanted
            && record.cleanliness == Cleanliness::Dirty
            && record.occupation == Occupation::Free
            && record.reset_retry.is_none()
            && !builder.awaits_upload()
            && self.link_of(builder) == Link::Online
            && self.standing_of(builder) != AgentStanding::Revoked
    }

    /// Applies a builder's report if it is its next one.
    pub(crate) fn take_of_builder(
        &mut self,
        agent: AgentId,
        index: BuilderIndex,
        seq: Seq,
        apply: impl FnOnce(&mut Self, BuilderId),
    ) {
        let known = self
            .agents
            .get(&agent)
            .and_then(|agent| agent.indexes.get(&index).copied());
        let Some(id) = known else {
            let line = format!("a report of builder {index}, which it does not have any more");
            return self.note(LedgerKind::StaleReport, About::agent(agent), line);
        };
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        let acked = builder.record.acked;
        if seq > acked.next() {
            return;
        }
        let fresh = seq == acked.next();
        if fresh {
            builder.record.acked = seq;
            self.step.touch_builder(id);
            apply(self, id);
        }
        let ack = BuilderAck {
            builder: index,
            seq: seq.max(acked),
        };
        self.send(agent, CoordinatorFrame::BuilderAck(ack));
    }

    /// Whether this answers the builder's newest order.
    fn answers(&mut self, id: BuilderId, nonce: CleanNonce, what: &str) -> bool {
        let Some(builder) = self.builders.get(&id) else {
            return false;
        };
        let record = &builder.record;
        let ordered = matches!(
            record.cleanliness,
            Cleanliness::Resetting { .. } | Cleanliness::Probing { .. }
        );
        if ordered && record.nonce == Some(nonce) {
            return true;
        }
        let line = format!("{what} answers no order that stands: nothing is proved by it");
        self.note(LedgerKind::StaleReport, About::builder(id), line);
        false
    }

    pub(crate) fn proved_clean(&mut self, id: BuilderId, report: &Clean) {
        if !self.answers(id, report.nonce, "a clean proof")
            && !self.planted.is(Mutation::LateNonceAccepted)
        {
            return;
        }
        let line = format!("reset {} ms, probe {} ms", report.reset_ms, report.probe_ms);
        if let Some(builder) = self.builders.get_mut(&id) {
            builder.record.reset_proof.by_agent = true;
        }
        self.clean_if_proved(id, &line);
    }

    /// Its reporter, whom nobody else can stand in for, says how a reset ended.
    pub(crate) fn reset_reported(
        &mut self,
        by: &Text<128>,
        id: BuilderId,
        nonce: CleanNonce,
        failed: Option<&Text<256>>,
    ) -> Result<(), Refused> {
        let conflict = |cause: String, fix: &str| Refused {
            code: RefusedCode::Conflict,
            cause,
            fix: fix.to_owned(),
        };
        let Some(builder) = self.builders.get_mut(&id) else {
            return Ok(());
        };
        let record = &mut builder.record;
        let reporter = record.reset_rule.reporter.as_ref();
        if reporter != Some(by) {
            let who = reporter.map_or("its agent", |who| who.as_str());
            let cause = format!(
                "the resets of '{}' are reported by {who}, not by {by}",
                record.name
            );
            return Err(conflict(cause, "see farmbell builder reset-rule --help"));
        }
        let name = record.name.clone();
        if !self.answers(id, nonce, "what its reporter says") {
            let cause = format!("'{name}' has no reset with the challenge {nonce}");
            return Err(conflict(
                cause,
                "see farmbell builder show for the one that stands",
            ));
        }
        match failed {
            Some(why) => self.reset_trouble(id, &format!("{by} reports: {why}"), why.to_string()),
            None => {
                if let Some(builder) = self.builders.get_mut(&id) {
                    builder.record.reset_proof.by_reporter = true;
                }
                self.clean_if_proved(id, &format!("{by} reports the end of its reset"));
            }
        }
        Ok(())
    }

    /// Clean, once everybody who has to has said so.
    fn clean_if_proved(&mut self, id: BuilderId, line: &str) {
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        let record = &mut builder.record;
        self.step.touch_builder(id);
        let ResetProof {
            by_agent,
            by_reporter,
            ..
        } = record.reset_proof;
        if !by_agent || (record.reset_rule.reporter.is_some() && !by_reporter) {
            return;
        }
        record.cleanliness = Cleanliness::Clean;
        record.reset_retry = None;
        record.trouble = None;
        record.reset_proof = ResetProof::default();
        self.deadlines.disarm(Deadline::Reset(id));
        self.note(LedgerKind::BuilderClean, About::builder(id), line);
    }

    pub(crate) fn reset_failed(&mut self, id: BuilderId, report: &ResetFailed) {
        if !self.answers(id, report.nonce, "a failed reset") {
            return;
        }
        let what = match report.stage {
            ResetStage::Reset => "the reset script",
            ResetStage::Probe => "the probe",
        };
        let why = format!("{what} {}", failure_words(&report.failure));
        let trouble = format!(
            "{why}\n--- stdout ---\n{}\n--- stderr ---\n{}",
            String::from_utf8_lossy(&report.stdout),
            String::from_utf8_lossy(&report.stderr)
        );
        self.reset_trouble(id, &why, trouble);
    }

    /// No proof came in time.
    pub(crate) fn reset_too_long(&mut self, id: BuilderId) {
        let Some(builder) = self.builders.get(&id) else {
            return;
        };
        let away = self.link_of(builder) != Link::Online;
        if away && self.missing_reporter(id).is_none() {
            // Nobody could have told: the next session orders a new one.
            return self.soil(id);
        }
        let missing = self
            .missing_reporter(id)
            .map_or_else(String::new, |who| format!(", {who} has reported none"));
        let why = format!(
            "no proof came within {} s{missing}",
            self.settings.reset_after.as_secs(),
        );
        self.reset_trouble(id, &why, why.clone());
    }

    /// Who else has to say that a reset is over, and has not.
    fn missing_reporter(&self, id: BuilderId) -> Option<&Text<128>> {
        let record = &self.builders.get(&id)?.record;
        let reporter = record.reset_rule.reporter.as_ref();
        reporter.filter(|_| !record.reset_proof.by_reporter)
    }

    pub(crate) fn reset_trouble(&mut self, id: BuilderId, why: &str, trouble: String) {
        self.soil(id);
        let now = self.clock.now();
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        builder.record.trouble = Some(Text::cut(trouble));
        if builder.record.mode != OperatorMode::Quarantined {
            let retry = retry_at(now, builder.record.strikes);
            builder.record.reset_retry = Some(retry);
            self.deadlines.arm(Deadline::ResetRetry(id), retry);
            // That may be its last strike, and then it is not tried again.
            self.blame_builder(id, why);
        }
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        let line = if let Some(retry) = builder.record.reset_retry {
            format!("{why}; again in {} s", retry.since(now).as_secs())
        } else {
            builder.record.reset_proof.asked = false;
            why.to_owned()
        };
        self.note(LedgerKind::BuilderResetFailed, About::builder(id), line);
    }

    pub(crate) fn retry_reset(&mut self, id: BuilderId) {
        if let Some(builder) = self.builders.get_mut(&id) {
            builder.record.reset_retry = None;
            self.step.touch_builder(id);
        }
    }

    pub(crate) fn condition(&mut self, id: BuilderId, report: &Condition) {
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        builder.record.fitness = report.fitness;
        builder.record.fitness_why = report.why.clone();
        let occupation = builder.record.occupation;
        let agent = builder.record.agent;
        self.end_refusals(id);
        self.note(
            LedgerKind::BuilderFitness,
            About::builder(id),
            format!("{}: {}", report.fitness.as_str(), report.why),
        );
        if let (Fitness::Unkillable, Occupation::Held { attempt }) = (report.fitness, occupation) {
            // Nothing will ever be heard of its end, and the job need not wait
            // for a reboot.
            let why = format!("its build cannot be killed: {}", report.why);
            self.lose(attempt.job, Loss::OfHost, &why);
            self.abandon(agent, attempt, &why);
        }
    }

    /// Leaves a builder that refused work, or failed it too fast, in peace for a
    /// while.
    pub(crate) fn rest(&mut self, id: BuilderId) {
        if let Some(builder) = self.builders.get_mut(&id) {
            builder.rests = true;
            let until = self.clock.now() + REST;
            self.deadlines.arm(Deadline::Rest(id), until);
            self.step.touch_builder(id);
        }
    }

    /// It takes work again, unless the others have shown meanwhile what it is.
    pub(crate) fn has_rested(&mut self, id: BuilderId) {
        self.end_rest(id);
        self.look_for_a_black_hole(id);
    }

    pub(crate) fn end_rest(&mut self, id: BuilderId) {
        self.deadlines.disarm(Deadline::Rest(id));
        if let Some(builder) = self.builders.get_mut(&id) {
            builder.rests = false;
            self.step.touch_builder(id);
        }
    }

    /// The builder speaks anew: what it refused may be offered again.
    pub(crate) fn end_refusals(&mut self, id: BuilderId) {
        self.end_rest(id);
        let refused = self
            .builders
            .get_mut(&id)
            .map(|builder| std::mem::take(&mut builder.refused));
        for job in refused.unwrap_or_default() {
            self.stop_avoiding(job, id);
        }
    }
}

fn retry_at(now: Time, strikes: u16) -> Time {
    now + RETRY_FIRST * (1 << strikes.min(QUARANTINE_STRIKES))
}

fn failure_words(failure: &ScriptFailure) -> String {
    match failure {
        ScriptFailure::Exit(ExitStatus::Code(code)) => format!("exited with {code}"),
        ScriptFailure::Exit(ExitStatus::Signal(signal)) => format!("died of signal {signal}"),
        ScriptFailure::TimedOut { after_ms } => {
            format!("was killed after {} s", after_ms / 1000)
        }
        ScriptFailure::NotRun { why } => format!("did not run to its end: {why}"),
    }
}
