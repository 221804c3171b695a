//! Hello. Owns whether a connection becomes a session: who says it, whether it
//! contradicts itself or what was granted, whether the same identity speaks
//! from two machines, and whether an agent knows of a later store than ours.
//! Never decides what happens to attempts (welcome.rs does).

use std::collections::BTreeSet;

use farmbell_protocol::agent_to_coordinator::{Hello, HelloAttempt, HelloBuilder, ResetScope};
use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::id::{AgentId, AttemptId, Epoch, KeyHash};
use farmbell_protocol::version::{self, CloseCode};

use crate::agents::Agent;
use crate::event::ConnId;
use crate::farm::Farm;
use crate::ledger::About;
use crate::record::{AgentStanding, Cleanliness, Envelope, LedgerKind};

impl Farm {
    pub(crate) fn hello(
        &mut self,
        conn: ConnId,
        key: KeyHash,
        address: Text<64>,
        hello: &Hello,
        builders: &[HelloBuilder],
        attempts: &[HelloAttempt],
    ) {
        let Some(id) = self.keys.get(&key).copied() else {
            let why = "no agent has this key: join with a token first";
            return self.close(conn, CloseCode::UnknownKey, why);
        };
        if let Err((code, why)) = self.acceptable(id, hello, builders, attempts) {
            return self.close(conn, code, why);
        }
        if self.names_a_false_epoch(hello) {
            let why = format!(
                "it names epoch {}, which this coordinator never gave out: it lies, or its state \
                 is damaged; revoke it, and join the machine anew",
                hello.epoch
            );
            self.freeze(id, &why);
            return self.close(conn, CloseCode::BadHello, why);
        }
        if self.knows_more(id, hello, attempts) {
            let why = format!(
                "this store (epoch {}) is older than what the agent has seen (epoch {}): an \
                 operator has to accept the restore",
                self.meta.epoch, hello.epoch
            );
            return self.close(conn, CloseCode::LowerEpoch, why);
        }
        if !self.take_over(id, conn, &address, hello) {
            return;
        }
        self.welcome(id, conn, address, hello, builders, attempts);
    }

    fn acceptable(
        &self,
        id: AgentId,
        hello: &Hello,
        builders: &[HelloBuilder],
        attempts: &[HelloAttempt],
    ) -> Result<(), (CloseCode, String)> {
        let agent = self.agents.get(&id).ok_or_else(|| {
            let why = "this agent was removed: join with a new token".to_owned();
            (CloseCode::UnknownKey, why)
        })?;
        match agent.record.standing {
            AgentStanding::Active | AgentStanding::Frozen => {}
            AgentStanding::Revoked => {
                let why = format!("this key was revoked: {}", agent.record.standing_why);
                return Err((CloseCode::Revoked, why));
            }
        }
        if version::negotiate(hello.version_min, hello.version_max).is_none() {
            let why = format!(
                "the agent speaks {} to {}, the coordinator {} to {}: upgrade the older one",
                hello.version_min,
                hello.version_max,
                version::MIN,
                version::CURRENT
            );
            return Err((CloseCode::Version, why));
        }
        contradiction(hello, builders, attempts).map_err(|why| (CloseCode::BadHello, why))?;
        if builders.len() > usize::from(self.settings.limits.builders_per_agent) {
            let why = format!(
                "{} builders are more than the farm's limit of {}",
                builders.len(),
                self.settings.limits.builders_per_agent
            );
            return Err((CloseCode::BadHello, why));
        }
        for builder in builders {
            within(&agent.record.envelope, builder).map_err(|why| (CloseCode::Envelope, why))?;
        }
        self.names_free(id, builders)
            .map_err(|why| (CloseCode::NameTaken, why))
    }

    fn names_free(&self, id: AgentId, builders: &[HelloBuilder]) -> Result<(), String> {
        for builder in builders {
            let known = self.builder_names.get(&builder.name);
            let owner = known
                .and_then(|known| self.builders.get(known))
                .map(|known| known.record.agent);
            if let Some(other) = owner
                && other != id
            {
                return Err(format!(
                    "agent {other} already has a builder '{}': name this one otherwise in agent.toml",
                    builder.name
                ));
            }
        }
        Ok(())
    }

    /// Whether the agent shows an epoch that would stop the farm and is made up.
    fn names_a_false_epoch(&self, hello: &Hello) -> bool {
        self.is_of_another_life(hello.epoch) && !self.settings.seal.gave_epoch(hello.epoch)
    }

    fn is_of_another_life(&self, epoch: Epoch) -> bool {
        let own = self.meta.epoch;
        epoch.counter > own.counter || (epoch.counter == own.counter && epoch != own)
    }

    /// Whether the agent has seen a later life of the store than this one:
    /// then a backup was restored, and nothing is assigned or abandoned until
    /// an operator accepts.
    fn knows_more(&mut self, id: AgentId, hello: &Hello, attempts: &[HelloAttempt]) -> bool {
        let own = self.meta.epoch;
        let other_life = self.is_of_another_life(hello.epoch);
        if !other_life && !self.remembers_more(id, hello, attempts) {
            return false;
        }
        for held in attempts {
            if self.settings.seal.gave_attempt(held.attempt) {
                self.remember_seen(held.attempt);
            }
        }
        let seen = hello.epoch.max(own);
        let highest = self.meta.suspect.map_or(seen, |known| known.max(seen));
        if self.meta.suspect != Some(highest) {
            self.suspect(highest);
        }
        if !self.knowing.insert(id) {
            // It dials again and again; the ledger has what it knows.
            return true;
        }
        let held: Vec<String> = attempts
            .iter()
            .filter(|held| self.live_attempt(held.attempt).is_none())
            .map(|held| held.attempt.to_string())
            .collect();
        let line = format!(
            "it has seen epoch {}; it holds {} attempts that the store does not know: {}",
            hello.epoch,
            held.len(),
            held.join(" ")
        );
        self.note(LedgerKind::RestoreSuspected, About::agent(id), line);
        true
    }

    /// Whether the agent remembers what this store has forgotten: a backup of
    /// the same epoch shows in sessions and attempts only. What was accepted
    /// once is not held against later comers. Attempts carry a seal; a number of
    /// sessions is only a word, so it takes a second agent's, if there is one.
    fn remembers_more(&mut self, id: AgentId, hello: &Hello, attempts: &[HelloAttempt]) -> bool {
        if hello.epoch.counter <= self.meta.accepted {
            return false;
        }
        let session = self.agents.get(&id).map(|agent| agent.record.session);
        let forgotten = |held: &HelloAttempt| {
            let job = self.jobs.get(&held.attempt.job);
            let forgotten = held.attempt.job.0 > self.meta.job_floor
                || job.is_some_and(|job| {
                    job.generation == held.attempt.generation && job.number < held.attempt.number
                });
            forgotten && self.settings.seal.gave_attempt(held.attempt)
        };
        if attempts.iter().any(forgotten) {
            return true;
        }
        if hello.previous_session <= session {
            return false;
        }
        self.doubting.insert(id);
        self.doubting.len() > 1 || self.agents.len() == 1
    }

    /// Numbers that were given out in a life of the store that is gone.
    fn remember_seen(&mut self, attempt: AttemptId) {
        let seen = self.meta.job_seen.max(attempt.job.0);
        if self.meta.job_seen != seen {
            self.meta.job_seen = seen;
            self.step.meta = true;
        }
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return;
        };
        if job.generation == attempt.generation {
            let unknown = attempt.number.saturating_sub(job.number);
            job.refunded += unknown;
            job.number += unknown;
            self.step.touch_job(attempt.job);
        }
    }

    fn suspect(&mut self, epoch: Epoch) {
        self.meta.suspect = Some(epoch);
        self.step.meta = true;
        let builders: Vec<_> = self.builders.keys().copied().collect();
        for builder in builders {
            self.index_builder(builder);
        }
    }

    /// Settles which of two connections of one identity goes on. A machine
    /// that started anew replaces its own old session; two machines with one
    /// key get nothing new, both.
    fn take_over(&mut self, id: AgentId, conn: ConnId, address: &Text<64>, hello: &Hello) -> bool {
        let Some(agent) = self.agents.get(&id) else {
            return false;
        };
        let Some(old) = agent.conn else {
            return true;
        };
        if old == conn || is_same_machine(agent, hello, self.expects_reboot(agent)) {
            if old != conn {
                self.conns.remove(&old);
                self.close(old, CloseCode::Replaced, "a newer session took over");
            }
            return true;
        }
        let why = format!(
            "two machines have this key: one at {}, one at {address}; \
             revoke it and join both anew, or stop one and approve the agent",
            agent.record.address
        );
        self.freeze(id, &why);
        self.close(conn, CloseCode::Clone, why);
        false
    }

    /// Whether a reset was ordered that restarts the agent's own machine.
    fn expects_reboot(&self, agent: &Agent) -> bool {
        agent.builders.values().any(|id| {
            self.builders.get(id).is_some_and(|builder| {
                builder.record.offer.reset_scope == ResetScope::Host
                    && matches!(
                        builder.record.cleanliness,
                        Cleanliness::Resetting { .. } | Cleanliness::Probing { .. }
                    )
            })
        })
    }
}

/// A lower incarnation, or another machine that does not continue this
/// session, is somebody else.
fn is_same_machine(agent: &Agent, hello: &Hello, expects_reboot: bool) -> bool {
    let known = &agent.record;
    if known.spool != Some(hello.spool) && !expects_reboot {
        return false;
    }
    if known.boot == Some(hello.boot) {
        return hello.incarnation >= known.incarnation;
    }
    let continues = hello.previous_session == Some(known.session);
    expects_reboot || (continues && hello.incarnation > known.incarnation)
}

fn contradiction(
    hello: &Hello,
    builders: &[HelloBuilder],
    attempts: &[HelloAttempt],
) -> Result<(), String> {
    if builders.len() != usize::from(hello.builders)
        || attempts.len() != usize::from(hello.attempts)
    {
        return Err(format!(
            "it announced {} builders and {} attempts and brought {} and {}",
            hello.builders,
            hello.attempts,
            builders.len(),
            attempts.len()
        ));
    }
    let mut names = BTreeSet::new();
    let mut indexes = BTreeSet::new();
    for builder in builders {
        if builder.name.is_empty() || !names.insert(&builder.name) {
            return Err(format!(
                "the builder name '{}' is empty or there twice",
                builder.name
            ));
        }
        if !indexes.insert(builder.index) {
            return Err(format!("two builders have the index {}", builder.index));
        }
        if builder.reset_scope == ResetScope::Host && builders.len() > 1 {
            return Err(format!(
                "resetting '{}' resets the agent's own host, so it can be its only builder",
                builder.name
            ));
        }
    }
    match attempts.iter().find(|a| !indexes.contains(&a.builder)) {
        Some(stray) => Err(format!("attempt {} is on no builder of it", stray.attempt)),
        None => Ok(()),
    }
}

/// Whether the offer stays within what the agent was granted.
fn within(envelope: &Envelope, builder: &HelloBuilder) -> Result<(), String> {
    let refuse = |what: &str, item: &Name| {
        Err(format!(
            "builder '{}' offers the {what} '{item}', which its token did not grant",
            builder.name
        ))
    };
    let named = |pattern: &Name| match pattern.strip_suffix('*') {
        Some(start) => builder.name.starts_with(start),
        None => *pattern == builder.name,
    };
    if !envelope.names.is_empty() && !envelope.names.iter().any(named) {
        return refuse("name", &builder.name);
    }
    let ungranted = |granted: &[Name], item: &&Name| !granted.is_empty() && !granted.contains(item);
    if let Some(architecture) = builder
        .architectures
        .iter()
        .find(|item| ungranted(&envelope.architectures, item))
    {
        return refuse("architecture", architecture);
    }
    let mut tags = builder
        .open_tags
        .iter()
        .chain(builder.restricted_tags.iter());
    if let Some(tag) = tags.find(|item| ungranted(&envelope.tags, item)) {
        return refuse("tag", tag);
    }
    match envelope.virtualized {
        Some(granted) if granted != builder.virtualized => Err(format!(
            "builder '{}' says virtualized = {}, its token granted {granted} only",
            builder.name, builder.virtualized
        )),
        Some(_) | None => Ok(()),
    }
}
