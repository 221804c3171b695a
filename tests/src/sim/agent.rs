//! A simulated agent round real [`Builder`] brains: it performs their effects
//! on its host, after its spool's barrier, and keeps a session. A crash loses
//! every record that was not durable, and with it every effect of that call.

use std::collections::VecDeque;
use std::time::Duration;

use farmbell_farm::event::ConnId;
use farmbell_protocol::agent_to_coordinator::{
    AgentFrame, Hello, HelloAttempt, HelloBuilder, Join,
};
use farmbell_protocol::bounded::{List, Name};
use farmbell_protocol::builder::{Builder, Effect, Event, Record, Settings};
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, Standing};
use farmbell_protocol::id::{AttemptId, BootId, BuilderIndex, Epoch, KeyHash, SessionId, SpoolId};
use farmbell_protocol::version::{self, CloseCode, Features};

use super::checker::{Broken, broken};
use super::faults::Spells;
use super::host::Place;
use super::network::{Down, Up};
use super::offers::offer;
use super::operators::next_name;
use super::world::{Happening, World};

#[derive(Debug)]
pub(super) struct SimAgent {
    pub(super) key: KeyHash,
    pub(super) name: Name,
    pub(super) up: bool,
    /// Counts the agent's starts: what an earlier one began is void.
    pub(super) life: u64,
    /// Counts the host's starts.
    pub(super) boot: u64,
    pub(super) spool: SpoolId,
    pub(super) epoch: Epoch,
    pub(super) joined: bool,
    pub(super) conn: Option<ConnId>,
    /// Set once `conn` is welcomed: before, nothing may be said on it.
    welcomed: bool,
    pub(super) session: Option<SessionId>,
    dials: u32,
    /// Counts the identities that it was given: a revoked one never comes back.
    identity: u64,
    pub(super) spells: Spells,
    pub(super) builders: Vec<SimBuilder>,
}

#[derive(Debug)]
pub(super) struct SimBuilder {
    settings: Settings,
    pub(super) brain: Builder,
    /// Durable.
    journal: Vec<Record>,
    /// On its way to the disk, call by call.
    barrier: VecDeque<(Vec<Record>, Vec<Effect>)>,
    pub(super) place: Place,
    /// Fails every job at once, like a host with a broken disk.
    pub(super) black_hole: bool,
}

impl SimAgent {
    pub(super) fn new(world: &mut World, number: usize) -> Self {
        let builders = (0..world.plan.builders_per_agent)
            .map(|place| {
                let settings = offer(&mut world.rng, number, place);
                SimBuilder {
                    brain: Builder::new(settings.clone()),
                    settings,
                    journal: Vec::new(),
                    barrier: VecDeque::new(),
                    place: Place::default(),
                    black_hole: false,
                }
            })
            .collect();
        let rng = &mut world.rng;
        Self {
            key: KeyHash(rng.bytes()),
            name: Name::cut(format!("agent-{number}")),
            up: false,
            life: 0,
            boot: 1,
            spool: SpoolId(rng.bytes()),
            epoch: Epoch::default(),
            joined: false,
            conn: None,
            welcomed: false,
            session: None,
            dials: 0,
            identity: 0,
            spells: Spells::default(),
            builders,
        }
    }

    /// The connection that it was welcomed on, if it is still open.
    pub(super) fn welcomed_conn(&self) -> Option<ConnId> {
        self.conn.filter(|_| self.welcomed)
    }

    fn boot_id(&self) -> BootId {
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&self.boot.to_le_bytes());
        BootId(boot)
    }
}

impl World {
    /// The agent's process starts: everything it knows is in its journals.
    pub(super) fn agent_start(&mut self, agent: usize) {
        let now = self.now;
        let this = &mut self.agents[agent];
        if this.up {
            return;
        }
        this.up = true;
        this.life += 1;
        let boot = this.boot_id();
        for index in 0..this.builders.len() {
            let builder = &mut self.agents[agent].builders[index];
            let records = builder.journal.clone();
            let host = builder.place.view(boot);
            let (brain, effects) = Builder::restore(builder.settings.clone(), records, &host, now);
            builder.brain = brain;
            if self.rng.per_mille(300) && effects.is_empty() {
                builder.journal = builder.brain.records();
            }
            self.enqueue(agent, index, effects);
        }
        self.dial_in(agent, Duration::from_millis(5));
    }

    pub(super) fn agent_crash(&mut self, agent: usize) {
        let this = &mut self.agents[agent];
        this.up = false;
        this.life += 1;
        for builder in &mut this.builders {
            builder.barrier.clear();
            builder.place.agent_died();
        }
        self.hang_up(agent);
    }

    pub(super) fn reboot(&mut self, agent: usize) {
        self.agent_crash(agent);
        let this = &mut self.agents[agent];
        this.boot += 1;
        for builder in &mut this.builders {
            builder.place.rebooted();
        }
    }

    /// The disk with the spool is replaced.
    pub(super) fn lose_spool(&mut self, agent: usize) {
        self.reboot(agent);
        let spool = SpoolId(self.rng.bytes());
        let this = &mut self.agents[agent];
        this.spool = spool;
        for builder in &mut this.builders {
            builder.journal.clear();
            builder.place.spool_lost();
        }
    }

    // The session.

    pub(super) fn dial_in(&mut self, agent: usize, after: Duration) {
        let life = self.agents[agent].life;
        self.after(after, Happening::Dial { agent, life });
    }

    pub(super) fn dial(&mut self, agent: usize, life: u64) {
        let this = &self.agents[agent];
        if !this.up || this.life != life || this.conn.is_some() {
            return;
        }
        let key = this.key;
        let conn = self.network.open(agent, key, self.coordinator.process);
        let this = &self.agents[agent];
        let up = if this.joined {
            self.hello(agent)
        } else {
            let Some((token, secret)) = self.clients.token else {
                return self.dial_in(agent, Duration::from_secs(1));
            };
            let name = this.name.clone();
            Up::Join(Box::new(Join {
                token,
                secret,
                name,
                software: Name::cut("sim"),
            }))
        };
        let this = &mut self.agents[agent];
        this.conn = Some(conn);
        this.welcomed = false;
        self.send_up(conn, up);
    }

    fn hello(&self, agent: usize) -> Up {
        let this = &self.agents[agent];
        let mut builders: Vec<HelloBuilder> = Vec::new();
        let mut attempts: Vec<HelloAttempt> = Vec::new();
        for (index, builder) in (0u16..).zip(&this.builders) {
            let (hello, held) = builder.brain.hello(BuilderIndex(index));
            builders.push(hello);
            attempts.extend(held);
        }
        let count = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let hello = Hello {
            version_min: version::MIN,
            version_max: version::CURRENT,
            features: Features::ALL,
            software: Name::cut("sim"),
            boot: this.boot_id(),
            incarnation: this.life,
            spool: this.spool,
            epoch: this.epoch,
            previous_session: this.session,
            builders: count(builders.len()),
            attempts: count(attempts.len()),
            facts: List::default(),
        };
        Up::Hello(Box::new(hello), builders, attempts)
    }

    /// The agent's side of its connection is over; it dials again.
    pub(super) fn agent_notices(&mut self, agent: usize, conn: ConnId) {
        if let Some(conn) = self.network.get_mut(conn) {
            conn.agent_open = false;
        }
        let this = &mut self.agents[agent];
        if this.conn != Some(conn) {
            return;
        }
        let linked = this.session.is_some();
        this.conn = None;
        this.dials = this.dials.saturating_add(1).min(8);
        let longest = (200u64 << this.dials).min(30_000);
        let pause = self.rng.millis(1, longest);
        self.dial_in(agent, pause);
        if linked {
            for builder in 0..self.agents[agent].builders.len() {
                self.tell(agent, builder, Event::Unlinked);
            }
        }
    }

    /// It gives its connection up and dials again; the other side sees that
    /// later.
    pub(super) fn redial(&mut self, agent: usize) {
        if let Some(conn) = self.agents[agent].conn {
            let notice = self.notice_time();
            self.after(notice, Happening::CoordinatorNotices { conn });
            self.agent_notices(agent, conn);
        }
    }

    /// The machine joins anew, as its operator is told to do.
    fn new_identity(&mut self, agent: usize) {
        let key = KeyHash(self.rng.bytes());
        let this = &mut self.agents[agent];
        this.identity += 1;
        this.key = key;
        this.name = next_name(agent, this.identity);
        this.joined = false;
    }

    fn hang_up(&mut self, agent: usize) {
        let Some(id) = self.agents[agent].conn.take() else {
            return;
        };
        let lost = self.rng.per_mille(500);
        if let Some(conn) = self.network.get_mut(id) {
            conn.agent_open = false;
            conn.lost |= lost;
        }
        let notice = self.notice_time();
        self.after(notice, Happening::CoordinatorNotices { conn: id });
    }

    pub(super) fn receive_down(&mut self, id: ConnId, down: Down) -> Result<(), Broken> {
        let Some(conn) = self.network.get(id) else {
            return Ok(());
        };
        let agent = conn.agent;
        if conn.lost || !conn.agent_open || self.agents[agent].conn != Some(id) {
            return Ok(());
        }
        match down {
            Down::Welcome {
                session,
                epoch,
                builders,
                attempts,
            } => {
                let this = &mut self.agents[agent];
                if epoch < this.epoch {
                    return broken("I5", "a coordinator came back with a lower epoch");
                }
                this.epoch = epoch;
                this.session = Some(session);
                this.welcomed = true;
                this.dials = 0;
                let held = self.holders(agent);
                for welcomed in builders {
                    let index = usize::from(welcomed.index.0);
                    let standings: Vec<(AttemptId, Standing)> = attempts
                        .iter()
                        .filter(|standing| held.contains(&(standing.attempt, index)))
                        .map(|standing| (standing.attempt, standing.standing.clone()))
                        .collect();
                    let event = Event::Linked {
                        index: welcomed.index,
                        acked: welcomed.acked,
                        standings,
                    };
                    self.tell(agent, index, event);
                    self.resume_uploads(agent, index);
                }
            }
            Down::Order(frame) => self.take_order(agent, id, *frame),
            Down::Close(code) => {
                if code == CloseCode::UnknownKey {
                    self.agents[agent].joined = false;
                } else if code == CloseCode::Revoked {
                    self.new_identity(agent);
                }
                self.agent_notices(agent, id);
            }
        }
        Ok(())
    }

    /// Which builder holds which attempt.
    fn holders(&self, agent: usize) -> Vec<(AttemptId, usize)> {
        let builders = self.agents[agent].builders.iter().enumerate();
        builders
            .flat_map(|(index, builder)| {
                let (_, held) = builder.brain.hello(BuilderIndex(0));
                held.into_iter().map(move |held| (held.attempt, index))
            })
            .collect()
    }

    fn take_order(&mut self, agent: usize, conn: ConnId, frame: CoordinatorFrame) {
        let holder = |world: &Self, attempt: AttemptId| {
            let held = world.holders(agent);
            held.iter().find(|(a, _)| *a == attempt).map(|(_, i)| *i)
        };
        let (index, event) = match frame {
            CoordinatorFrame::Joined(_) => {
                self.agents[agent].joined = true;
                return self.agent_notices(agent, conn);
            }
            CoordinatorFrame::Offer(offer) => (
                Some(usize::from(offer.builder.0)),
                Event::Offer {
                    attempt: offer.attempt,
                    spec: offer.spec,
                },
            ),
            CoordinatorFrame::Abort(abort) => (
                holder(self, abort.attempt),
                Event::Abort {
                    attempt: abort.attempt,
                    why: abort.why,
                },
            ),
            CoordinatorFrame::Abandon(abandon) => (
                holder(self, abandon.attempt),
                Event::Abandon {
                    attempt: abandon.attempt,
                    why: abandon.why,
                },
            ),
            CoordinatorFrame::Committed(committed) => (
                holder(self, committed.attempt),
                Event::Committed {
                    attempt: committed.attempt,
                },
            ),
            CoordinatorFrame::Ack(ack) => (
                holder(self, ack.attempt),
                Event::Acked {
                    attempt: ack.attempt,
                    seq: ack.seq,
                },
            ),
            CoordinatorFrame::Reset(reset) => (
                Some(usize::from(reset.builder.0)),
                Event::ResetOrdered { nonce: reset.nonce },
            ),
            CoordinatorFrame::BuilderAck(ack) => (
                Some(usize::from(ack.builder.0)),
                Event::BuilderAcked { seq: ack.seq },
            ),
            CoordinatorFrame::Welcome(_)
            | CoordinatorFrame::WelcomeBuilder(_)
            | CoordinatorFrame::WelcomeAttempt(_)
            | CoordinatorFrame::WelcomeEnd(_) => (None, Event::Wake),
        };
        if let Some(index) = index {
            self.tell(agent, index, event);
        }
    }

    // The brain and its spool.

    pub(super) fn tell(&mut self, agent: usize, index: usize, event: Event) {
        let now = self.now;
        if !self.agents[agent].up {
            return;
        }
        let effects = self.agents[agent].builders[index].brain.handle(now, event);
        self.enqueue(agent, index, effects);
    }

    fn enqueue(&mut self, agent: usize, index: usize, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let mut records = Vec::new();
        let mut rest = Vec::new();
        for effect in effects {
            match effect {
                Effect::Spool(record) => records.push(record),
                Effect::Say(_)
                | Effect::Start { .. }
                | Effect::Stop { .. }
                | Effect::Seal { .. }
                | Effect::Upload { .. }
                | Effect::Release { .. }
                | Effect::Reset { .. }
                | Effect::Probe { .. } => rest.push(effect),
            }
        }
        let barrier = &mut self.agents[agent].builders[index].barrier;
        let idle = barrier.is_empty();
        barrier.push_back((records, rest));
        if idle {
            self.wait_for_barrier(agent, index);
        }
    }

    fn wait_for_barrier(&mut self, agent: usize, index: usize) {
        let life = self.agents[agent].life;
        // An SD card that thinks about it: mostly seconds, at times longer
        // than any deadline.
        let longest = match self.rng.below(1000) {
            0..4 if self.trouble() => 90_000,
            4..24 => 3_000,
            _ => 4,
        };
        let pause = self.rng.millis(0, longest);
        self.after(pause, Happening::Durable { agent, index, life });
    }

    pub(super) fn durable(&mut self, agent: usize, index: usize, life: u64) -> Result<(), Broken> {
        if self.agents[agent].life != life {
            return Ok(());
        }
        let builder = &mut self.agents[agent].builders[index];
        let Some((records, effects)) = builder.barrier.pop_front() else {
            return Ok(());
        };
        builder.journal.extend(records);
        if !builder.barrier.is_empty() {
            self.wait_for_barrier(agent, index);
        }
        for effect in effects {
            self.perform(agent, index, effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, agent: usize, index: usize, effect: Effect) -> Result<(), Broken> {
        let life = self.agents[agent].life;
        match effect {
            Effect::Spool(_) => {}
            Effect::Say(frame) => {
                let this = &self.agents[agent];
                if let Some(conn) = this.welcomed_conn() {
                    self.send_up(conn, Up::Report(frame));
                }
            }
            Effect::Start { attempt, spec } => self.start(agent, index, attempt, &spec),
            Effect::Stop { attempt, grace } => self.stop(agent, index, attempt, grace),
            Effect::Seal { attempt } => {
                let pause = self.slowly(500, 8_000);
                self.after(
                    pause,
                    Happening::SealDone {
                        agent,
                        index,
                        life,
                        attempt,
                    },
                );
            }
            Effect::Upload { attempt } => {
                self.agents[agent].builders[index]
                    .place
                    .uploads
                    .insert(attempt);
                self.resume_upload(agent, index, attempt);
            }
            Effect::Release { attempt } => {
                let place = &mut self.agents[agent].builders[index].place;
                if place.running() == Some(attempt) {
                    return broken("I1", format!("{attempt} was released while it runs"));
                }
                place.processes.remove(&attempt);
                place.sealed.remove(&attempt);
                place.uploads.remove(&attempt);
            }
            Effect::Reset { nonce } | Effect::Probe { nonce } => {
                return self.reset(agent, index, nonce);
            }
        }
        Ok(())
    }
}

impl SimAgent {
    /// Whether a frame of this kind may come twice without breaking a promise
    /// of the transport: reports may, since they are numbered.
    pub(super) fn may_repeat(frame: &AgentFrame) -> bool {
        match frame {
            AgentFrame::Accepted(_)
            | AgentFrame::Refused(_)
            | AgentFrame::Started(_)
            | AgentFrame::Ended(_)
            | AgentFrame::Sealed(_)
            | AgentFrame::OutputsLost(_)
            | AgentFrame::ResetStarted(_)
            | AgentFrame::ResetFailed(_)
            | AgentFrame::Clean(_)
            | AgentFrame::Condition(_) => true,
            AgentFrame::Join(_)
            | AgentFrame::Hello(_)
            | AgentFrame::HelloBuilder(_)
            | AgentFrame::HelloAttempt(_)
            | AgentFrame::HelloEnd(_) => false,
        }
    }
}
