//! What operators do to builders and agents. Owns what each act means for work
//! that is under way. Every act is in the ledger with who and why.

use std::time::Duration;

use farmbell_protocol::bounded::Text;
use farmbell_protocol::id::{AgentId, BuilderId, JobId};
use farmbell_protocol::version::CloseCode;

use crate::deadlines::Deadline;
use crate::effect::{Refused, RefusedCode, Reply};
use crate::event::{AgentAct, BuilderAct};
use crate::farm::Farm;
use crate::ledger::About;
use crate::record::{
    AgentStanding, Change, Cleanliness, LedgerKind, Occupation, OperatorMode, ResetRule, ResetWhen,
};

impl Farm {
    pub(crate) fn act_on_builder(
        &mut self,
        by: &Text<128>,
        id: BuilderId,
        act: BuilderAct,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        if !self.builders.contains_key(&id) {
            return Err(Refused {
                code: RefusedCode::NotFound,
                cause: format!("there is no builder {id}"),
                fix: "see farmbell builders".to_owned(),
            });
        }
        match act {
            BuilderAct::Set(mode) => {
                self.has_work_to_end(id, mode)?;
                self.set_mode(by, id, mode, why);
            }
            BuilderAct::Auto => self.end_mode(by, id, &[OperatorMode::Manual], why)?,
            BuilderAct::Resume => {
                let ends = [OperatorMode::Draining, OperatorMode::Quarantined];
                self.end_mode(by, id, &ends, why)?;
            }
            BuilderAct::Drain { within_ms } => {
                self.has_work_to_end(id, OperatorMode::Draining)?;
                let within = Duration::from_millis(within_ms);
                let line = format!("within {} s: {why}", within.as_secs());
                self.set_mode(by, id, OperatorMode::Draining, &Text::cut(line));
                self.drain_within(id, within);
            }
            BuilderAct::Reset => self.reset_by_hand(by, id, why)?,
            BuilderAct::ResetRule(rule) => self.set_reset_rule(by, id, rule, why),
            BuilderAct::ResetOver { nonce, failed } => {
                self.reset_reported(by, id, nonce, failed.as_ref())?;
            }
            BuilderAct::Remove { abandon } => return self.remove_builder(by, id, abandon, why),
        }
        Ok(self.builders.get(&id).map_or(Reply::Done, |builder| {
            Reply::Builder(Box::new(builder.record.clone()))
        }))
    }

    /// One that is out of service takes no work, which is all that these modes
    /// ask for; they would only hide why.
    fn has_work_to_end(&self, id: BuilderId, mode: OperatorMode) -> Result<(), Refused> {
        let Some(record) = self.builders.get(&id).map(|builder| &builder.record) else {
            return Ok(());
        };
        let ender = match (mode, record.mode) {
            (OperatorMode::Manual | OperatorMode::Draining, OperatorMode::Quarantined) => "resume",
            (OperatorMode::Manual | OperatorMode::Draining, OperatorMode::Disabled) => "enable",
            (
                OperatorMode::Manual | OperatorMode::Draining,
                OperatorMode::Enabled | OperatorMode::Manual | OperatorMode::Draining,
            )
            | (OperatorMode::Enabled | OperatorMode::Quarantined | OperatorMode::Disabled, _) => {
                return Ok(());
            }
        };
        let (name, is) = (&record.name, record.mode.as_str());
        Err(Refused {
            code: RefusedCode::Conflict,
            cause: format!("builder '{name}' is {is} and takes no work already"),
            fix: format!("farmbell builder {ender} {name} first, if it shall work again"),
        })
    }

    /// Enables a builder that is in one of these modes; one that is in another
    /// is in it for a reason of its own.
    fn end_mode(
        &mut self,
        by: &Text<128>,
        id: BuilderId,
        ends: &[OperatorMode],
        why: &Text<256>,
    ) -> Result<(), Refused> {
        let Some(record) = self.builders.get(&id).map(|builder| &builder.record) else {
            return Ok(());
        };
        if !ends.contains(&record.mode) {
            let (name, mode) = (&record.name, record.mode);
            let ender = match mode {
                OperatorMode::Enabled => None,
                OperatorMode::Manual => Some("auto"),
                OperatorMode::Draining | OperatorMode::Quarantined => Some("resume"),
                OperatorMode::Disabled => Some("enable"),
            };
            let words: Vec<_> = ends.iter().map(|mode| mode.as_str()).collect();
            return Err(Refused {
                code: RefusedCode::Conflict,
                cause: format!(
                    "builder '{name}' is {}, not {}",
                    mode.as_str(),
                    words.join(" or ")
                ),
                fix: match ender {
                    Some(ender) => format!("farmbell builder {ender} {name}"),
                    None => "it takes work by itself already".to_owned(),
                },
            });
        }
        self.set_mode(by, id, OperatorMode::Enabled, why);
        Ok(())
    }

    fn set_mode(&mut self, by: &Text<128>, id: BuilderId, mode: OperatorMode, why: &Text<256>) {
        let wall = self.clock.wall();
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        let record = &mut builder.record;
        let before = record.mode;
        record.mode = mode;
        record.mode_why = why.clone();
        record.mode_by = by.clone();
        record.mode_since = wall;
        if mode != OperatorMode::Draining {
            record.drain_deadline = None;
            self.deadlines.disarm(Deadline::Drain(id));
        }
        self.step.touch_builder(id);
        let about = About::builder(id).by(by);
        let line = format!("{} -> {}: {why}", before.as_str(), mode.as_str());
        self.note(LedgerKind::BuilderMode, about, line);
        match mode {
            OperatorMode::Disabled => self.fence(id, &format!("its builder was disabled: {why}")),
            OperatorMode::Enabled => self.take_back(id, before),
            OperatorMode::Manual | OperatorMode::Draining | OperatorMode::Quarantined => {}
        }
    }

    /// A builder that was out of service starts from nothing: no strikes, and
    /// nothing proves it clean.
    fn take_back(&mut self, id: BuilderId, before: OperatorMode) {
        match before {
            OperatorMode::Enabled | OperatorMode::Manual | OperatorMode::Draining => return,
            OperatorMode::Quarantined | OperatorMode::Disabled => {}
        }
        self.deadlines.disarm(Deadline::ResetRetry(id));
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        builder.record.strikes = 0;
        builder.record.reset_retry = None;
        self.soil(id);
    }

    /// What the builder holds is not its any more, from now on.
    fn fence(&mut self, id: BuilderId, why: &str) {
        let Some(Occupation::Held { attempt }) = self
            .builders
            .get(&id)
            .map(|builder| builder.record.occupation)
        else {
            return;
        };
        self.withdraw(attempt.job, why);
        self.requeue(attempt.job, why);
    }

    /// A reset that stands goes on, unless somebody else has to report it now:
    /// then it is done anew, so that the new reporter hears of it.
    fn set_reset_rule(&mut self, by: &Text<128>, id: BuilderId, rule: ResetRule, why: &Text<256>) {
        let line = format!("reset {}: {why}", rule.words());
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        let record = &mut builder.record;
        let other_reporter = record.reset_rule.reporter != rule.reporter;
        record.reset_rule = rule;
        let ordered = matches!(
            record.cleanliness,
            Cleanliness::Resetting { .. } | Cleanliness::Probing { .. }
        );
        if ordered && other_reporter {
            record.reset_proof.asked = true;
            self.soil(id);
        }
        self.step.touch_builder(id);
        self.note(
            LedgerKind::BuilderResetRule,
            About::builder(id).by(by),
            line,
        );
    }

    fn reset_by_hand(
        &mut self,
        by: &Text<128>,
        id: BuilderId,
        why: &Text<256>,
    ) -> Result<(), Refused> {
        let Some(builder) = self.builders.get(&id) else {
            return Ok(());
        };
        let name = &builder.record.name;
        let conflict = |cause: String, fix: String| {
            let code = RefusedCode::Conflict;
            Err(Refused { code, cause, fix })
        };
        if let Occupation::Held { attempt } = builder.record.occupation {
            return conflict(
                format!("builder '{name}' works on {attempt}"),
                "cancel that job or disable the builder first".to_owned(),
            );
        }
        if builder.record.mode == OperatorMode::Disabled {
            return conflict(
                format!("builder '{name}' is disabled, and nothing is done with it"),
                format!("farmbell builder enable {name}, which resets it, too"),
            );
        }
        if self.standing_of(builder) == AgentStanding::Revoked {
            return conflict(
                format!("the key of the agent of builder '{name}' is revoked"),
                "join its agent again (farmbell token create)".to_owned(),
            );
        }
        let Some(builder) = self.builders.get_mut(&id) else {
            return Ok(());
        };
        let ordered = match builder.record.cleanliness {
            Cleanliness::Resetting { .. } | Cleanliness::Probing { .. } => true,
            Cleanliness::Dirty | Cleanliness::Clean => false,
        };
        builder.record.reset_retry = None;
        builder.record.reset_proof.asked = true;
        self.deadlines.disarm(Deadline::ResetRetry(id));
        self.step.touch_builder(id);
        let about = About::builder(id).by(by);
        self.note(
            LedgerKind::BuilderResetting,
            about,
            format!("by hand: {why}"),
        );
        if !ordered {
            self.soil(id);
        }
        Ok(())
    }

    fn remove_builder(
        &mut self,
        by: &Text<128>,
        id: BuilderId,
        abandon: bool,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        let held = self
            .builders
            .get(&id)
            .and_then(|builder| match builder.record.occupation {
                Occupation::Held { attempt } => Some(attempt),
                Occupation::Free => builder.uploads.first().and_then(|job| {
                    self.jobs
                        .get(job)
                        .and_then(|job| job.live())
                        .map(|live| live.id)
                }),
            });
        if let Some(attempt) = held
            && !abandon
        {
            return Err(Refused {
                code: RefusedCode::Conflict,
                cause: format!("it still has {attempt}"),
                fix: "drain it first, or remove it with --abandon".to_owned(),
            });
        }
        let reason = format!("its builder was removed: {why}");
        let uploads = self
            .builders
            .get(&id)
            .map(|builder| builder.uploads.clone());
        self.fence(id, &reason);
        for job in uploads.unwrap_or_default() {
            self.withdraw(job, &reason);
            self.requeue(job, &reason);
        }
        self.note(
            LedgerKind::BuilderRemoved,
            About::builder(id).by(by),
            why.as_str(),
        );
        self.drop_builder(id);
        Ok(Reply::Done)
    }

    pub(crate) fn act_on_agent(
        &mut self,
        by: &Text<128>,
        id: AgentId,
        act: AgentAct,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        let Some(agent) = self.agents.get(&id) else {
            return Err(Refused {
                code: RefusedCode::NotFound,
                cause: format!("there is no agent {id}"),
                fix: "see farmbell agents".to_owned(),
            });
        };
        let standing = agent.record.standing;
        match act {
            AgentAct::Revoke => self.revoke_agent(by, id, why),
            AgentAct::Approve => {
                if standing == AgentStanding::Revoked {
                    return Err(Refused {
                        code: RefusedCode::Conflict,
                        cause: format!("agent {id} was revoked; a revoked key never comes back"),
                        fix: "join the machine anew with a new token".to_owned(),
                    });
                }
                self.set_standing(id, AgentStanding::Active, why);
                let about = About::agent(id).by(by);
                self.note(LedgerKind::AgentApproved, about, why.as_str());
                if standing == AgentStanding::Frozen {
                    // What was passed over is only said again at a Welcome.
                    let line = "approved: it may say again what was set aside";
                    self.forget_session(id, CloseCode::Done, line);
                }
            }
            AgentAct::Remove => return self.remove_agent(by, id, why),
        }
        Ok(Reply::Done)
    }

    fn set_standing(&mut self, id: AgentId, standing: AgentStanding, why: &Text<256>) {
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        agent.record.standing = standing;
        agent.record.standing_why = why.clone();
        for builder in agent.builders.values() {
            self.step.touch_builder(*builder);
        }
        self.step.touch_agent(id);
    }

    /// The key is worth nothing from now on, nor what it would still report.
    fn revoke_agent(&mut self, by: &Text<128>, id: AgentId, why: &Text<256>) {
        self.set_standing(id, AgentStanding::Revoked, why);
        self.note(
            LedgerKind::AgentRevoked,
            About::agent(id).by(by),
            why.as_str(),
        );
        let line = format!("its agent's key was revoked: {why}");
        for job in self.live_jobs(id) {
            self.withdraw(job, &line);
            self.requeue(job, &line);
        }
        self.forget_session(id, CloseCode::Revoked, &line);
    }

    fn forget_session(&mut self, id: AgentId, code: CloseCode, why: &str) {
        let Some(conn) = self.agents.get(&id).and_then(|agent| agent.conn) else {
            return;
        };
        self.close(conn, code, why);
        self.closed(conn);
    }

    fn remove_agent(
        &mut self,
        by: &Text<128>,
        id: AgentId,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        let live: Vec<JobId> = self.live_jobs(id);
        if let Some(job) = live.first() {
            return Err(Refused {
                code: RefusedCode::Conflict,
                cause: format!(
                    "agent {id} still has {} attempts, one of job {job}",
                    live.len()
                ),
                fix: "drain its builders first, or revoke it".to_owned(),
            });
        }
        self.forget_session(id, CloseCode::UnknownKey, "this agent was removed");
        self.deadlines.disarm(Deadline::Lost(id));
        let builders: Vec<BuilderId> = self
            .agents
            .get(&id)
            .map(|agent| agent.builders.values().copied().collect())
            .unwrap_or_default();
        for builder in builders {
            self.drop_builder(builder);
        }
        if let Some(agent) = self.agents.remove(&id) {
            self.keys.remove(&agent.record.key);
        }
        self.note(
            LedgerKind::AgentRemoved,
            About::agent(id).by(by),
            why.as_str(),
        );
        self.step.changes.push(Change::AgentRemoved(id));
        Ok(Reply::Done)
    }

    /// A restored store goes on: its epoch rises above all that any agent has
    /// seen, its floors above all that may have been given out, and its
    /// builders are reset anew.
    pub(crate) fn accept_restore(
        &mut self,
        by: &Text<128>,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        let Some(seen) = self.meta.suspect.take() else {
            return Err(Refused {
                code: RefusedCode::Conflict,
                cause: "no agent has seen a later life of this store".to_owned(),
                fix: "nothing has to be accepted".to_owned(),
            });
        };
        self.meta.accepted = self.meta.epoch.counter.max(seen.counter);
        let random = self.random();
        self.meta.epoch = self.settings.seal.epoch(self.meta.accepted + 1, random);
        self.knowing.clear();
        self.doubting.clear();
        self.meta.rise_above_a_lost_life();
        self.step.meta = true;
        let about = About::default().by(by);
        let line = format!(
            "epoch {}, jobs from {} on: {why}",
            self.meta.epoch,
            self.meta.job_floor + 1
        );
        self.note(LedgerKind::RestoreAccepted, about, line);
        // What was ordered and proved here may be long over in the lost life.
        let builders: Vec<BuilderId> = self.builders.keys().copied().collect();
        for builder in builders {
            self.soil(builder);
        }
        Ok(Reply::Done)
    }

    fn drain_within(&mut self, id: BuilderId, within: Duration) {
        let at = self.clock.now() + within;
        if let Some(builder) = self.builders.get_mut(&id) {
            builder.record.drain_deadline = Some(at);
            self.deadlines.arm(Deadline::Drain(id), at);
        }
    }

    /// A draining builder's time is over.
    pub(crate) fn drain_over(&mut self, id: BuilderId) {
        self.fence(id, "its builder's time to drain is over");
    }
}

impl ResetRule {
    fn words(&self) -> String {
        match &self.reporter {
            Some(who) => format!("{}, its end reported by {who}", self.when.as_str()),
            None => self.when.as_str().to_owned(),
        }
    }
}

impl ResetWhen {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Before => "before",
            Self::ByHand => "by-hand",
        }
    }
}

impl OperatorMode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Manual => "manual",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
            Self::Disabled => "disabled",
        }
    }
}
