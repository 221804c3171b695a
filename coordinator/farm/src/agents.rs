//! Agents. Owns who they are, their session's connection, and what their
//! silence means: a closed connection makes them unreachable at once, and
//! `lost_after` later their attempts count as lost. Never ends an attempt
//! because a session ended.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_protocol::agent_to_coordinator::Join;
use farmbell_protocol::bounded::{List, Name, Reason, Text};
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, Joined};
use farmbell_protocol::id::{AgentId, BuilderId, BuilderIndex, JobId, KeyHash, SessionId};
use farmbell_protocol::time::Wall;
use farmbell_protocol::version::CloseCode;

use crate::deadlines::Deadline;
use crate::effect::{Effect, Reply};
use crate::event::ConnId;
use crate::farm::Farm;
use crate::leases::Loss;
use crate::ledger::About;
use crate::record::{AgentRecord, AgentStanding, LedgerKind};

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) record: AgentRecord,
    /// Its welcomed connection.
    pub(crate) conn: Option<ConnId>,
    pub(crate) link_since: Wall,
    pub(crate) builders: BTreeMap<Name, BuilderId>,
    /// How the live session's Hello numbered its builders.
    pub(crate) indexes: BTreeMap<BuilderIndex, BuilderId>,
    /// Jobs whose live attempt is this agent's.
    pub(crate) live: BTreeSet<JobId>,
}

impl Agent {
    pub(crate) fn new(record: AgentRecord, since: Wall) -> Self {
        Self {
            record,
            conn: None,
            link_since: since,
            builders: BTreeMap::new(),
            indexes: BTreeMap::new(),
            live: BTreeSet::new(),
        }
    }
}

impl Farm {
    /// A key that nobody knows asks for an identity.
    pub(crate) fn join(&mut self, conn: ConnId, key: KeyHash, address: Text<64>, join: &Join) {
        if let Some(id) = self.keys.get(&key).copied() {
            return self.join_again(conn, id);
        }
        let envelope = match self.redeemable(join) {
            Ok(token) => token.envelope.clone(),
            Err((code, why)) => {
                let about = About::default();
                let line = format!("join from {address} as '{}': {why}", join.name);
                self.note(LedgerKind::TokenRefused, about, line);
                return self.close(conn, code, why);
            }
        };
        if let Some(other) = self.agents.values().find(|a| a.record.name == join.name) {
            let why = format!(
                "agent {} already has the name '{}': choose another, or remove that agent first",
                other.record.id, join.name
            );
            return self.close(conn, CloseCode::NameTaken, why);
        }
        if self.agents.len() >= usize::try_from(self.settings.limits.agents).unwrap_or(usize::MAX) {
            let why = "the farm has as many agents as its limit allows: raise limits.agents";
            return self.close(conn, CloseCode::Overloaded, why);
        }
        self.redeem(join.token);
        self.meta.agent_floor += 1;
        self.step.meta = true;
        let id = AgentId(self.meta.agent_floor);
        let wall = self.clock.wall();
        let record = AgentRecord {
            id,
            name: join.name.clone(),
            key,
            envelope,
            standing: AgentStanding::Active,
            standing_why: Text::default(),
            session: SessionId(0),
            boot: None,
            incarnation: 0,
            spool: None,
            software: join.software.clone(),
            address: address.clone(),
            facts: List::default(),
            joined: wall,
            last_seen: wall,
            lost_at: None,
        };
        self.keys.insert(key, id);
        self.agents.insert(id, Agent::new(record, wall));
        self.step.touch_agent(id);
        let line = format!(
            "'{}' joined from {address} with token {}",
            join.name, join.token
        );
        self.note(LedgerKind::AgentJoined, About::agent(id), line);
        self.joined(conn, id, join.name.clone());
    }

    /// A repeated join, after the answer to the first was lost, finds its row.
    fn join_again(&mut self, conn: ConnId, id: AgentId) {
        let Some(agent) = self.agents.get(&id) else {
            return;
        };
        match agent.record.standing {
            AgentStanding::Active | AgentStanding::Frozen => {
                let name = agent.record.name.clone();
                self.joined(conn, id, name);
            }
            AgentStanding::Revoked => self.close(
                conn,
                CloseCode::Revoked,
                "this key was revoked: make a new identity and join with a new token",
            ),
        }
    }

    fn joined(&mut self, conn: ConnId, agent: AgentId, name: Name) {
        self.step.effects.push(Effect::Send {
            conn,
            frame: CoordinatorFrame::Joined(Joined { agent, name }),
        });
        self.close(
            conn,
            CloseCode::Done,
            "joined; say Hello on a new connection",
        );
    }

    pub(crate) fn close(&mut self, conn: ConnId, code: CloseCode, why: impl Into<String>) {
        self.step.effects.push(Effect::Close {
            conn,
            code,
            why: Reason::cut(why),
        });
    }

    /// Says something to an agent, if there is anybody to hear it.
    pub(crate) fn send(&mut self, agent: AgentId, frame: CoordinatorFrame) {
        if let Some(conn) = self.agents.get(&agent).and_then(|agent| agent.conn) {
            self.step.effects.push(Effect::Send { conn, frame });
        }
    }

    /// The connection is gone: unreachable from now on, nothing lost yet.
    pub(crate) fn closed(&mut self, conn: ConnId) {
        let Some(id) = self.conns.remove(&conn) else {
            return;
        };
        let lost_at = self.clock.now() + self.settings.lost_after;
        let wall = self.clock.wall();
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        if agent.conn != Some(conn) {
            return;
        }
        agent.conn = None;
        agent.link_since = wall;
        agent.record.last_seen = wall;
        agent.record.lost_at = Some(lost_at);
        let running = agent.live.len();
        self.deadlines.arm(Deadline::Lost(id), lost_at);
        self.unlink(id);
        let line = format!(
            "its connection ended; {running} attempts go on, lost after {} s of silence",
            self.settings.lost_after.as_secs()
        );
        self.note(LedgerKind::AgentUnreachable, About::agent(id), line);
    }

    /// Deadlines that only a connected agent can meet stand still.
    fn unlink(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        agent.indexes.clear();
        self.step.touch_agent(id);
        for builder in agent.builders.values() {
            self.step.touch_builder(*builder);
            if let Some(builder) = self.builders.get_mut(builder) {
                builder.index = None;
            }
        }
        for job in &agent.live {
            self.deadlines.disarm(Deadline::Accept(*job));
            self.deadlines.disarm(Deadline::Progress(*job));
        }
    }

    /// Nothing was heard for `lost_after`.
    pub(crate) fn silent_too_long(&mut self, id: AgentId) {
        let again = self.clock.now() + self.settings.lost_after;
        let suspect = self.meta.suspect.is_some();
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        self.step.touch_agent(id);
        if suspect {
            // Agents stay away from a store that went back in time.
            agent.record.lost_at = Some(again);
            self.deadlines.arm(Deadline::Lost(id), again);
            return;
        }
        agent.record.lost_at = None;
        let jobs: Vec<JobId> = agent.live.iter().copied().collect();
        for builder in agent.builders.values() {
            self.step.touch_builder(*builder);
        }
        let why = format!(
            "agent {id} was silent for {} s",
            self.settings.lost_after.as_secs()
        );
        for job in jobs {
            self.lose(job, Loss::Silence, &why);
        }
    }

    /// A report of this agent's brought a coordinator down.
    pub(crate) fn parked(&mut self, key: KeyHash, what: &Text<256>) {
        let Some(id) = self.keys.get(&key).copied() else {
            return;
        };
        self.note(
            LedgerKind::EventParked,
            About::agent(id),
            format!("{what}: set aside at start; look at it, then approve the agent"),
        );
        self.freeze(id, what.as_str());
    }

    /// Nothing new for this agent until an operator looks.
    pub(crate) fn freeze(&mut self, id: AgentId, why: &str) {
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        if agent.record.standing != AgentStanding::Active {
            return;
        }
        agent.record.standing = AgentStanding::Frozen;
        agent.record.standing_why = Text::cut(why);
        for builder in agent.builders.values() {
            self.step.touch_builder(*builder);
        }
        self.step.touch_agent(id);
        self.note(LedgerKind::AgentFrozen, About::agent(id), why);
    }

    pub(crate) fn list_agents(&self) -> Reply {
        Reply::Agents(
            self.agents
                .values()
                .map(|agent| (agent.record.clone(), agent.conn.is_some()))
                .collect(),
        )
    }
}
