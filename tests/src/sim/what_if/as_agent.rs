//! What an agent says to the copy that holds exactly what the farm believes it
//! to hold: Hello, with an offer changed or not, proofs, conditions, and the
//! rest of an attempt.

use farmbell_farm::effect::{BuilderView, Effect, Reply, Why};
use farmbell_farm::event::{AgentAct, Command, ConnId, Event};
use farmbell_farm::record::{AgentRecord, AttemptRecord, Envelope, Occupation, Stage};
use farmbell_protocol::agent_to_coordinator::{
    Accepted, AgentFrame, AttemptPhase, Clean, Condition, Ended, Fitness, Hello, HelloAttempt,
    HelloBuilder, Join, Sealed, Started,
};
use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{
    AgentId, AttemptId, BootId, BuilderId, BuilderIndex, JobId, KeyHash, Seq, SpoolId,
};
use farmbell_protocol::outcome::{Outcome, Usage};
use farmbell_protocol::version::{self, Features};

use super::{Session, WhatIf};
use crate::sim::checker::{Broken, broken};
use crate::sim::script::list;

impl WhatIf {
    fn agent(&mut self, id: AgentId) -> Option<AgentRecord> {
        match self.ask(Command::Agents) {
            Reply::Agents(agents) => {
                let mut records = agents.into_iter().map(|(record, _)| record);
                records.find(|record| record.id == id)
            }
            _ => None,
        }
    }

    /// Says Hello on a new connection, with one builder's offer changed.
    pub(super) fn hello(
        &mut self,
        view: &BuilderView,
        change: impl FnOnce(&mut HelloBuilder),
    ) -> Result<(), Broken> {
        let id = view.record.agent;
        let Some(agent) = self.agent(id) else {
            return broken("I9", format!("{} has no agent", view.record.name));
        };
        let all = self.overview().builders;
        let its: Vec<BuilderView> = all.into_iter().filter(|v| v.record.agent == id).collect();
        let mut builders: Vec<HelloBuilder> = (0..).zip(&its).map(offered).collect();
        let at = its.iter().position(|its| its.record.id == view.record.id);
        if let Some(at) = at {
            change(&mut builders[at]);
        }
        let place = |builder: BuilderId| its.iter().position(|its| its.record.id == builder);
        let live = self.live(|_| true).into_iter();
        let attempts: Vec<HelloAttempt> = live
            .filter(|live| live.agent == id)
            .filter_map(|live| {
                let index = u16::try_from(place(live.builder)?).ok()?;
                Some(held(BuilderIndex(index), &live))
            })
            .collect();
        self.say_hello(&agent, builders, attempts)
    }

    fn say_hello(
        &mut self,
        agent: &AgentRecord,
        builders: Vec<HelloBuilder>,
        attempts: Vec<HelloAttempt>,
    ) -> Result<(), Broken> {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let count = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let hello = Hello {
            version_min: version::MIN,
            version_max: version::CURRENT,
            features: Features::ALL,
            software: agent.software.clone(),
            boot: agent.boot.unwrap_or(BootId([0; 16])),
            incarnation: agent.incarnation + 1,
            spool: agent.spool.unwrap_or(SpoolId([0; 16])),
            epoch: self.farm.epoch(),
            previous_session: Some(agent.session),
            builders: count(builders.len()),
            attempts: count(attempts.len()),
            facts: List::default(),
        };
        let effects = self.handle(Event::Hello {
            conn,
            key: agent.key,
            address: agent.address.clone(),
            hello: Box::new(hello),
            builders,
            attempts,
        });
        let welcomed = effects.iter().find_map(|effect| match effect {
            Effect::Welcome { builders, .. } => Some(builders.iter()),
            _ => None,
        });
        let Some(welcomed) = welcomed else {
            return broken("I9", format!("{} is not welcome: {effects:?}", agent.name));
        };
        let indexes = welcomed.map(|one| (one.index, one.builder)).collect();
        self.sessions.insert(agent.id, Session { conn, indexes });
        Ok(())
    }

    /// The builder offers what the reason says it lacks.
    pub(super) fn offer_more(
        &mut self,
        job: JobId,
        view: &BuilderView,
        why: &Why,
    ) -> Result<(), Broken> {
        let Some(needs) = self.job(job).map(|job| job.needs) else {
            return Ok(());
        };
        self.hello(view, |builder| match why {
            Why::WrongArchitecture => {
                builder.architectures = with(&builder.architectures, needs.architecture);
            }
            Why::WrongVirtualization => builder.virtualized = needs.virtualized,
            Why::NoRecipe => builder.recipes = with(&builder.recipes, needs.recipe),
            Why::LacksTag(tag) => builder.open_tags = with(&builder.open_tags, tag.clone()),
            Why::RestrictedTag(tag) => {
                let kept = builder.restricted_tags.iter().filter(|kept| *kept != tag);
                builder.restricted_tags = list(kept.cloned().collect());
            }
            Why::RungTooLow => builder.rung = needs.rung,
            Why::TooLittleMemory => builder.memory_bytes = needs.memory_bytes,
            Why::TooLittleDisk => builder.disk_bytes = needs.disk_bytes,
            other => unreachable!("{other:?} is no misfit"),
        })
    }

    /// What a revoked machine's operator is told to do: a new identity.
    pub(super) fn join_anew(&mut self, view: &BuilderView) -> Result<(), Broken> {
        let secret = [7; 16];
        let offer = offered((0, view));
        self.act_on_agent(view, AgentAct::Remove)?;
        let token = match self.ask(Command::TokenCreate {
            uses: 1,
            ttl_ms: 60_000,
            envelope: Envelope::default(),
            secret_hash: *blake3::hash(&secret).as_bytes(),
        }) {
            Reply::Token(token) => token.id,
            other => return broken("I9", format!("no token to join anew: {other:?}")),
        };
        self.conns += 1;
        let key = KeyHash([0xa5; 32]);
        self.handle(Event::Join {
            conn: ConnId(self.conns),
            key,
            address: Text::default(),
            join: Join {
                token,
                secret,
                name: Name::cut("joined-anew"),
                software: Name::cut("sim"),
            },
        });
        let agents = match self.ask(Command::Agents) {
            Reply::Agents(agents) => agents,
            _ => Vec::new(),
        };
        let mut agents = agents.into_iter().map(|(record, _)| record);
        let Some(agent) = agents.find(|agent| agent.key == key) else {
            return broken("I9", "a machine with a new key cannot join".to_owned());
        };
        let fresh = HelloBuilder {
            last_seq: Seq(0),
            ..offer
        };
        self.say_hello(&agent, vec![fresh], Vec::new())
    }

    fn report(&mut self, agent: AgentId, frame: AgentFrame) -> Result<(), Broken> {
        let Some(session) = self.sessions.get(&agent) else {
            return broken("I9", format!("agent {agent} is online without a session"));
        };
        let conn = session.conn;
        self.handle(Event::Report { conn, frame });
        Ok(())
    }

    /// Where the builder is in its agent's session, and its next number.
    fn place(&self, view: &BuilderView) -> Result<(BuilderIndex, Seq), Broken> {
        let session = self.sessions.get(&view.record.agent);
        let mut indexes = session.into_iter().flat_map(|session| &session.indexes);
        match indexes.find(|(_, id)| *id == view.record.id) {
            Some((index, _)) => Ok((*index, view.record.acked.next())),
            None => broken(
                "I9",
                format!("{} is online in no session", view.record.name),
            ),
        }
    }

    pub(super) fn prove_clean(&mut self, view: &BuilderView) -> Result<(), Broken> {
        let (builder, seq) = self.place(view)?;
        let Some(nonce) = view.record.nonce else {
            return broken("I9", format!("{} resets for nobody", view.record.name));
        };
        let report = Clean {
            builder,
            seq,
            nonce,
            reset_ms: 1,
            probe_ms: 1,
        };
        self.report(view.record.agent, AgentFrame::Clean(report))
    }

    pub(super) fn become_fit(&mut self, view: &BuilderView) -> Result<(), Broken> {
        let (builder, seq) = self.place(view)?;
        let report = Condition {
            builder,
            seq,
            fitness: Fitness::Fit,
            why: Text::default(),
        };
        self.report(view.record.agent, AgentFrame::Condition(report))
    }

    /// The attempt goes on to its sealed outputs.
    pub(super) fn end(&mut self, live: &AttemptRecord) -> Result<(), Broken> {
        if live.stage == Stage::Finishing {
            return Ok(());
        }
        if !self.is_online(live.agent) {
            let view = self.view_of(live.builder)?;
            self.hello(&view, |_| {})?;
        }
        let attempt = live.id;
        let mut seq = live.acked;
        let mut next = || {
            seq = seq.next();
            seq
        };
        let mut frames = Vec::new();
        if live.stage < Stage::Accepted {
            let seq = next();
            frames.push(AgentFrame::Accepted(Accepted { attempt, seq }));
        }
        if live.stage < Stage::Running {
            let seq = next();
            frames.push(AgentFrame::Started(Started { attempt, seq }));
        }
        if live.stage < Stage::Collecting {
            frames.push(AgentFrame::Ended(Ended {
                attempt,
                seq: next(),
                outcome: Outcome::Succeeded,
                exit: None,
                usage: Usage::default(),
            }));
        }
        frames.push(AgentFrame::Sealed(Sealed {
            attempt,
            seq: next(),
            manifest: Digest::of(b""),
            manifest_bytes: 0,
            outputs: 0,
            output_bytes: 0,
            log_bytes: 0,
            outcome: None,
        }));
        let mut frames = frames.into_iter();
        frames.try_for_each(|frame| self.report(live.agent, frame))
    }

    /// Its log and outputs are stored.
    pub(super) fn deliver(&mut self, attempt: AttemptId) {
        let live = self.live(|job| job.id == attempt.job);
        let sealed = live.iter().find_map(|live| live.sealed.as_ref());
        let bytes = sealed.map_or(0, |sealed| sealed.log_bytes);
        self.handle(Event::LogClosed { attempt, bytes });
        let outputs = Vec::new().into();
        self.handle(Event::Collected { attempt, outputs });
    }

    fn is_online(&mut self, agent: AgentId) -> bool {
        match self.ask(Command::Agents) {
            Reply::Agents(agents) => agents
                .iter()
                .any(|(record, online)| record.id == agent && *online),
            _ => false,
        }
    }

    fn view_of(&mut self, builder: BuilderId) -> Result<BuilderView, Broken> {
        let mut builders = self.overview().builders.into_iter();
        match builders.find(|view| view.record.id == builder) {
            Some(view) => Ok(view),
            None => broken("I1", format!("an attempt is live on no builder, {builder}")),
        }
    }
}

fn offered((index, view): (u16, &BuilderView)) -> HelloBuilder {
    let record = &view.record;
    let offer = &record.offer;
    HelloBuilder {
        index: BuilderIndex(index),
        name: record.name.clone(),
        recipes: offer.recipes.clone(),
        architectures: offer.architectures.clone(),
        open_tags: offer.open_tags.clone(),
        restricted_tags: offer.restricted_tags.clone(),
        virtualized: offer.virtualized,
        rung: offer.rung,
        memory_bytes: offer.memory_bytes,
        disk_bytes: offer.disk_bytes,
        reset_scope: offer.reset_scope,
        spool_survives_reset: offer.spool_survives_reset,
        last_seq: record.acked,
        occupied_by: match record.occupation {
            Occupation::Held { attempt } => Some(attempt),
            Occupation::Free => None,
        },
    }
}

fn held(builder: BuilderIndex, live: &AttemptRecord) -> HelloAttempt {
    HelloAttempt {
        builder,
        attempt: live.id,
        phase: match live.stage {
            Stage::Assigned | Stage::Accepted => AttemptPhase::Accepted,
            Stage::Running => AttemptPhase::Running,
            Stage::Collecting => AttemptPhase::Ended,
            Stage::Finishing => AttemptPhase::Sealed,
        },
        last_seq: live.acked,
    }
}

fn with<const MAX: usize>(names: &List<Name, MAX>, name: Name) -> List<Name, MAX> {
    list(names.iter().cloned().chain([name]).collect())
}
