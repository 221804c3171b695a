//! Connections. Packets of one connection arrive in order; across connections
//! nothing is ordered, a cut is noticed late and by each side for itself, and
//! what was under way at a cut may still arrive after its successor's Hello.

use std::collections::BTreeMap;

use farmbell_farm::event::ConnId;
use farmbell_protocol::agent_to_coordinator::{
    AgentFrame, Hello, HelloAttempt, HelloBuilder, Join,
};
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, WelcomeAttempt, WelcomeBuilder};
use farmbell_protocol::id::{BuilderId, Epoch, KeyHash, SessionId};
use farmbell_protocol::time::Time;
use farmbell_protocol::version::CloseCode;

/// From an agent.
#[derive(Clone, Debug)]
pub(super) enum Up {
    Join(Box<Join>),
    Hello(Box<Hello>, Vec<HelloBuilder>, Vec<HelloAttempt>),
    Report(AgentFrame),
}

/// To an agent.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Welcome {
        session: SessionId,
        epoch: Epoch,
        builders: Vec<WelcomeBuilder>,
        attempts: Vec<WelcomeAttempt>,
    },
    Order(Box<CoordinatorFrame>),
    Close(CloseCode),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) agent: usize,
    /// Who dialled, as the handshake proved.
    pub(super) key: KeyHash,
    /// The coordinator process it leads to.
    pub(super) process: u64,
    pub(super) agent_open: bool,
    pub(super) coordinator_open: bool,
    /// Nothing sent from now on arrives.
    pub(super) cut: bool,
    /// What is under way is lost, too.
    pub(super) lost: bool,
    /// As the Welcome numbered them, by their index.
    pub(super) builders: Vec<BuilderId>,
    up_last: Time,
    down_last: Time,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    conns: BTreeMap<ConnId, Conn>,
    newest: u64,
}

impl Network {
    pub(super) fn open(&mut self, agent: usize, key: KeyHash, process: u64) -> ConnId {
        self.newest += 1;
        let id = ConnId(self.newest);
        let conn = Conn {
            agent,
            key,
            process,
            agent_open: true,
            coordinator_open: true,
            cut: false,
            lost: false,
            builders: Vec::new(),
            up_last: Time::ZERO,
            down_last: Time::ZERO,
        };
        self.conns.insert(id, conn);
        id
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    pub(super) fn of_process(&self, process: u64) -> Vec<ConnId> {
        let open = self.conns.iter();
        open.filter(|(_, conn)| conn.process == process && conn.coordinator_open)
            .map(|(&id, _)| id)
            .collect()
    }

    /// When a packet sent now from the agent arrives, if it ever does.
    pub(super) fn up(&mut self, id: ConnId, arrives: Time) -> Option<Time> {
        let conn = self.conns.get_mut(&id)?;
        if conn.cut || !conn.agent_open {
            return None;
        }
        conn.up_last = conn.up_last.max(arrives);
        Some(conn.up_last)
    }

    pub(super) fn down(&mut self, id: ConnId, arrives: Time) -> Option<Time> {
        let conn = self.conns.get_mut(&id)?;
        if conn.cut || !conn.coordinator_open {
            return None;
        }
        conn.down_last = conn.down_last.max(arrives);
        Some(conn.down_last)
    }

    /// Drops what both sides have closed; what is still under way of it
    /// arrives nowhere.
    pub(super) fn sweep(&mut self) {
        self.conns
            .retain(|_, conn| conn.agent_open || conn.coordinator_open);
    }
}
