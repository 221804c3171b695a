//! The coordinator's process round the real [`Farm`]: one batch at a time is
//! handled, committed to the store, and only then its effects are performed.
//! It can die before the commit, between commit and effects, and amid them;
//! the store can be slow or full.

use std::collections::VecDeque;
use std::time::Duration;

use farmbell_farm::Farm;
use farmbell_farm::effect::{Effect, Search};
use farmbell_farm::event::{ConnId, Event};
use farmbell_farm::record::Change;
use farmbell_protocol::agent_to_coordinator::AgentFrame;
use farmbell_protocol::bounded::Text;
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, Offer};
use farmbell_protocol::id::{AttemptId, BuilderId, BuilderIndex, JobId};
use farmbell_protocol::time::{Now, Time, Wall};

use super::agent::SimAgent;
use super::bulk::Bulk;
use super::checker::{Broken, Checker, broken};
use super::network::{Down, Up};
use super::store::SimStore;
use super::what_if::{Session, Sessions};
use super::world::{Happening, World, print_trace};

/// Events of one transaction at most.
const BATCH: usize = 64;

/// Where in a batch the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CrashPoint {
    BeforeCommit,
    /// The store fails, and nobody knows whether it had committed.
    InCommit,
    AfterCommit,
    AmidEffects,
}

#[derive(Debug, Default)]
pub(super) struct Coordinator {
    /// Counts the starts.
    pub(super) process: u64,
    pub(super) farm: Option<Farm>,
    waiting: VecDeque<Event>,
    committing: Option<(Vec<Change>, Vec<Effect>)>,
    /// The host's clock when virtual time was `started`.
    clock: Time,
    started: Time,
    pub(super) wall_offset: u64,
    pub(super) crash_at: Option<CrashPoint>,
    /// No commit works before this.
    pub(super) store_fails_until: Time,
    pub(super) store_slow_until: Time,
    pub(super) store: SimStore,
    pub(super) bulk: Bulk,
    /// The farm's sessions, as their Welcomes said.
    pub(super) sessions: Sessions,
    batches: u64,
    wake: Option<Time>,
}

impl Coordinator {
    pub(super) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }
}

impl World {
    pub(super) fn coordinator_start(&mut self) -> Result<(), Broken> {
        if self.coordinator.farm.is_some() {
            return Ok(());
        }
        self.trace(|| "coordinator starts".to_owned());
        let clock = Time(self.rng.below(1 << 40));
        let seed = self.rng.bytes();
        let this = &mut self.coordinator;
        this.process += 1;
        this.clock = clock;
        this.started = self.now;
        let now = self.driver_now();
        let this = &mut self.coordinator;
        let settings = self.plan.settings.clone();
        let (mut farm, effects) = Farm::restore(
            settings,
            this.store.snapshot(),
            this.store.unfinished(),
            now,
            seed,
        );
        if let Some(mutation) = self.plan.mutation {
            farm.plant(mutation);
        }
        if let Err(error) = farm.check_all() {
            return broken(error.invariant, format!("after a restore: {}", error.what));
        }
        self.checker.submits_exist(&self.coordinator.store)?;
        self.coordinator.farm = Some(farm);
        self.begin_commit(effects);
        Ok(())
    }

    /// The process is gone with all it had not committed.
    pub(super) fn coordinator_crash(&mut self) {
        if self.coordinator.farm.take().is_none() {
            return;
        }
        self.trace(|| "coordinator dies".to_owned());
        let this = &mut self.coordinator;
        this.waiting.clear();
        this.committing = None;
        this.crash_at = None;
        this.wake = None;
        this.bulk.crash();
        this.sessions.clear();
        for id in self.network.of_process(self.coordinator.process) {
            let lost = self.rng.per_mille(500);
            let notice = self.notice_time();
            if let Some(conn) = self.network.get_mut(id) {
                conn.coordinator_open = false;
                conn.lost |= lost;
                let agent = conn.agent;
                self.after(notice, Happening::AgentNotices { agent, conn: id });
            }
        }
        self.requests_lost();
        let pause = if self.rng.per_mille(700) {
            self.rng.millis(50, 3_000)
        } else {
            self.rng.millis(3_000, 120_000)
        };
        self.after(pause, Happening::CoordinatorStart);
    }

    pub(super) fn driver_now(&self) -> Now {
        let this = &self.coordinator;
        Now {
            time: this.clock + self.now.since(this.started),
            wall: Wall(self.now.0 / 1000 + this.wall_offset),
        }
    }

    /// Something for the farm. Lost if the process is down.
    pub(super) fn submit_event(&mut self, event: Event) -> Result<(), Broken> {
        if self.coordinator.farm.is_none() {
            return Ok(());
        }
        self.coordinator.waiting.push_back(event);
        self.pump()
    }

    /// Handles what waits, unless a batch is being committed.
    fn pump(&mut self) -> Result<(), Broken> {
        let now = self.driver_now();
        let this = &mut self.coordinator;
        if this.committing.is_some() || this.waiting.is_empty() {
            return Ok(());
        }
        let Some(farm) = &mut this.farm else {
            return Ok(());
        };
        let mut effects = Vec::new();
        for _ in 0..BATCH {
            let Some(event) = this.waiting.pop_front() else {
                break;
            };
            if self.tracing {
                print_trace(self.now, &format!("farm <- {event:?}"));
            }
            self.events += 1;
            effects.extend(farm.handle(now, event));
            if let Err(error) = farm.check_touched() {
                return broken(error.invariant, error.what);
            }
        }
        this.batches += 1;
        if this.batches.is_multiple_of(self.plan.check_all_every)
            && let Err(error) = farm.check_all()
        {
            return broken(error.invariant, error.what);
        }
        if this.crash_at == Some(CrashPoint::BeforeCommit) {
            self.coordinator_crash();
            return Ok(());
        }
        self.begin_commit(effects);
        Ok(())
    }

    fn begin_commit(&mut self, effects: Vec<Effect>) {
        let mut changes = Vec::new();
        let mut rest = Vec::new();
        for effect in effects {
            match effect {
                Effect::Change(change) => changes.push(change),
                Effect::Reply { .. }
                | Effect::Send { .. }
                | Effect::Offer { .. }
                | Effect::Welcome { .. }
                | Effect::Close { .. }
                | Effect::Admit { .. }
                | Effect::Dismiss { .. }
                | Effect::Expect { .. }
                | Effect::Look(_)
                | Effect::Search { .. }
                | Effect::Prune => rest.push(effect),
            }
        }
        self.coordinator.committing = Some((changes, rest));
        self.try_commit();
    }

    /// A full or busy store keeps the batch and is asked again.
    fn try_commit(&mut self) {
        let slow = self.now < self.coordinator.store_slow_until;
        let pause = self.rng.millis(0, if slow { 2_000 } else { 3 });
        let pause = pause.max(self.coordinator.store_fails_until.since(self.now));
        let process = self.coordinator.process;
        self.after(pause, Happening::Commit { process });
    }

    pub(super) fn commit(&mut self, process: u64) -> Result<(), Broken> {
        if self.coordinator.process != process || self.coordinator.farm.is_none() {
            return Ok(());
        }
        if self.now < self.coordinator.store_fails_until {
            self.try_commit();
            return Ok(());
        }
        let Some((changes, effects)) = self.coordinator.committing.take() else {
            return Ok(());
        };
        let unknown = self.coordinator.crash_at == Some(CrashPoint::InCommit);
        if unknown && self.rng.per_mille(500) {
            self.coordinator_crash();
            return Ok(());
        }
        self.apply(changes)?;
        match self.coordinator.crash_at {
            Some(CrashPoint::AfterCommit | CrashPoint::InCommit) => {
                self.coordinator_crash();
                return Ok(());
            }
            Some(CrashPoint::AmidEffects) => {
                let done = self.rng.index(effects.len() + 1);
                for effect in effects.into_iter().take(done) {
                    self.perform_farm(effect)?;
                }
                self.coordinator_crash();
                return Ok(());
            }
            Some(CrashPoint::BeforeCommit) | None => {}
        }
        for effect in effects {
            self.perform_farm(effect)?;
        }
        self.ask_what_if()?;
        self.pump()?;
        self.plan_wake();
        Ok(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Broken> {
        let this = &mut self.coordinator;
        let mut decided: Vec<JobId> = Vec::new();
        self.checker.transaction();
        let lost_before = this.store.lost.len();
        for change in changes {
            self.checker.change(&this.store, &change)?;
            self.hash.fold(&change);
            if self.tracing {
                print_trace(self.now, &format!("commit {change:?}"));
            }
            if let Change::Job(job) = &change {
                decided.push(job.id);
            }
            this.store.apply(change);
        }
        for job in decided {
            self.checker.decided(&this.store, &this.bulk, job)?;
        }
        if this.store.lost.len() > lost_before {
            self.hunt_soon();
        }
        Ok(())
    }

    fn perform_farm(&mut self, effect: Effect) -> Result<(), Broken> {
        self.trace(|| format!("farm -> {effect:?}"));
        match effect {
            Effect::Change(_) => broken("contract", "a change among the effects"),
            Effect::Reply { request, reply } => self.replied(request, *reply),
            Effect::Send { conn, frame } => self.send_order(conn, frame),
            Effect::Offer {
                conn,
                builder,
                attempt,
            } => self.send_offer(conn, builder, attempt),
            Effect::Welcome {
                conn,
                agent,
                session,
                epoch,
                builders,
                attempts,
            } => {
                // An accepted restore may have raised it within the batch.
                let stored = self.coordinator.store.meta.as_ref();
                if stored.is_none_or(|meta| meta.epoch < epoch) {
                    return broken("I5", "a Welcome with an epoch that is not stored");
                }
                let stored = self.coordinator.store.agents.get(&agent);
                if stored.is_some_and(|agent| agent.session < session) {
                    return broken("I5", "a Welcome with a session that is not stored");
                }
                let indexes = builders.iter().map(|one| (one.index, one.builder));
                let indexes = indexes.collect();
                let sessions = &mut self.coordinator.sessions;
                sessions.insert(agent, Session { conn, indexes });
                if let Some(conn) = self.network.get_mut(conn) {
                    conn.builders = builders.iter().map(|welcome| welcome.builder).collect();
                }
                self.send_down(
                    conn,
                    Down::Welcome {
                        session,
                        epoch,
                        builders,
                        attempts,
                    },
                );
                Ok(())
            }
            Effect::Close { conn, code, why } => {
                self.trace(|| format!("closing {conn:?}: {code} {why}"));
                self.send_down(conn, Down::Close(code));
                if let Some(open) = self.network.get_mut(conn) {
                    open.coordinator_open = false;
                }
                self.submit_event(Event::Closed { conn })
            }
            Effect::Admit { agent, attempt } => {
                self.coordinator.bulk.admit(agent, attempt);
                Ok(())
            }
            Effect::Dismiss { attempt } => {
                self.coordinator.bulk.dismiss(attempt);
                Ok(())
            }
            Effect::Expect { attempt, sealed } => {
                self.coordinator.bulk.expect(attempt, sealed.manifest);
                self.tell_collected(attempt)
            }
            Effect::Search { operation, search } => {
                self.search(operation, &search);
                Ok(())
            }
            // History is what the checker judges by: nobody answers.
            Effect::Look(_) | Effect::Prune => Ok(()),
        }
    }

    /// A read of the store now and then fails.
    fn search(&mut self, operation: u64, search: &Search) {
        if self.trouble() && self.rng.per_mille(100) {
            return;
        }
        let found = self.coordinator.store.search(search);
        let event = Box::new(Event::Found { operation, found });
        // Less than a start takes: what one process asked, no other hears.
        let pause = self.rng.millis(0, 40);
        self.after(pause, Happening::Request(event));
    }

    fn send_order(&mut self, conn: ConnId, frame: CoordinatorFrame) -> Result<(), Broken> {
        let store = &self.coordinator.store;
        match &frame {
            CoordinatorFrame::Ack(ack) => Checker::acknowledged(store, ack.attempt, ack.seq)?,
            CoordinatorFrame::BuilderAck(ack) => {
                if let Some(builder) = self.builder_of(conn, ack.builder) {
                    self.checker.builder_acknowledged(store, builder, ack.seq)?;
                }
            }
            CoordinatorFrame::Joined(_)
            | CoordinatorFrame::Welcome(_)
            | CoordinatorFrame::WelcomeBuilder(_)
            | CoordinatorFrame::WelcomeAttempt(_)
            | CoordinatorFrame::WelcomeEnd(_)
            | CoordinatorFrame::Offer(_)
            | CoordinatorFrame::Abort(_)
            | CoordinatorFrame::Abandon(_)
            | CoordinatorFrame::Committed(_)
            | CoordinatorFrame::Reset(_) => {}
        }
        // An order twice is the same as once.
        if self.trouble() && self.rng.per_mille(10) {
            self.send_down(conn, Down::Order(Box::new(frame.clone())));
        }
        self.send_down(conn, Down::Order(Box::new(frame)));
        Ok(())
    }

    fn send_offer(
        &mut self,
        conn: ConnId,
        builder: BuilderIndex,
        attempt: AttemptId,
    ) -> Result<(), Broken> {
        let Some(spec) = self.coordinator.store.specs.get(&attempt.job).cloned() else {
            return broken(
                "I4",
                format!("{attempt} is offered, its spec is not stored"),
            );
        };
        let offer = Offer {
            builder,
            attempt,
            spec: Box::new(spec.as_ref().clone()),
        };
        self.send_order(conn, CoordinatorFrame::Offer(offer))
    }

    /// The builder behind a place in a session, as its Welcome numbered it.
    fn builder_of(&self, conn: ConnId, index: BuilderIndex) -> Option<BuilderId> {
        let welcomed = &self.network.get(conn)?.builders;
        welcomed.get(usize::from(index.0)).copied()
    }

    pub(super) fn receive_up(&mut self, id: ConnId, up: Up) -> Result<(), Broken> {
        let Some(conn) = self.network.get(id) else {
            return Ok(());
        };
        if conn.lost {
            return Ok(());
        }
        let (agent, key) = (conn.agent, conn.key);
        if !conn.coordinator_open
            || conn.process != self.coordinator.process
            || self.coordinator.farm.is_none()
        {
            // A stateless reset: nobody here knows this connection.
            self.after(
                Duration::from_millis(1),
                Happening::AgentNotices { agent, conn: id },
            );
            return Ok(());
        }
        let address = Text::cut(format!("sim:{agent}"));
        let event = match up {
            Up::Join(join) => Event::Join {
                conn: id,
                key,
                address,
                join: *join,
            },
            Up::Hello(hello, builders, attempts) => Event::Hello {
                conn: id,
                key,
                address,
                hello,
                builders,
                attempts,
            },
            Up::Report(frame) => {
                if let AgentFrame::Clean(clean) = &frame
                    && let Some(builder) = self.builder_of(id, clean.builder)
                {
                    self.checker.clean_shown(builder, clean.nonce);
                }
                if self.trouble() && SimAgent::may_repeat(&frame) && self.rng.per_mille(20) {
                    let again = self.rng.millis(1, 20_000);
                    let up = Up::Report(frame.clone());
                    self.after(again, Happening::Up { conn: id, up });
                }
                Event::Report { conn: id, frame }
            }
        };
        self.submit_event(event)
    }

    pub(super) fn coordinator_notices(&mut self, id: ConnId) -> Result<(), Broken> {
        let Some(conn) = self.network.get_mut(id) else {
            return Ok(());
        };
        if !std::mem::take(&mut conn.coordinator_open) || conn.process != self.coordinator.process {
            return Ok(());
        }
        self.submit_event(Event::Closed { conn: id })
    }

    /// Asks to be woken when the farm wants to be.
    fn plan_wake(&mut self) {
        let this = &mut self.coordinator;
        let Some(due) = this.farm.as_ref().and_then(Farm::next_deadline) else {
            return;
        };
        let at = this.started + due.since(this.clock);
        let at = at.max(self.now);
        if this
            .wake
            .is_some_and(|planned| planned <= at && planned >= self.now)
        {
            return;
        }
        this.wake = Some(at);
        let process = this.process;
        self.at(at, Happening::FarmWake { process });
    }

    pub(super) fn farm_wake(&mut self, process: u64) -> Result<(), Broken> {
        if self.coordinator.process != process || self.coordinator.wake != Some(self.now) {
            return Ok(());
        }
        self.coordinator.wake = None;
        self.submit_event(Event::Wake)
    }
}
