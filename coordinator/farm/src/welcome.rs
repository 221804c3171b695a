//! Welcome. Owns bringing both sides level when a session opens: the union of
//! the attempts that either side holds, each answered with its standing.
//!
//! | agent holds | farm holds | standing |
//! |---|---|---|
//! | yes | as live, or lost and adoptable | continue |
//! | yes | as decided by this attempt | committed |
//! | yes | not, or as superseded | abandon |
//! | no | as live | lost |

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use farmbell_protocol::agent_to_coordinator::{
    AttemptPhase, Fitness, Hello, HelloAttempt, HelloBuilder, ResetScope,
};
use farmbell_protocol::bounded::{Reason, Text};
use farmbell_protocol::coordinator_to_agent::{
    Abort, CoordinatorFrame, Reset, Standing, WelcomeAttempt, WelcomeBuilder,
};
use farmbell_protocol::id::{AgentId, BuilderId, BuilderIndex, JobId, Seq, SessionId};

use crate::builders::offer_of;
use crate::deadlines::Deadline;
use crate::effect::Effect;
use crate::event::ConnId;
use crate::farm::Farm;
use crate::leases::Loss;
use crate::ledger::About;
use crate::mutation::Mutation;
use crate::record::{Cleanliness, LedgerKind, Stage};

/// What changed about a host since its last session.
#[derive(Clone, Copy)]
struct Upheaval {
    rebooted: bool,
    respooled: bool,
}

impl Farm {
    pub(crate) fn welcome(
        &mut self,
        id: AgentId,
        conn: ConnId,
        address: Text<64>,
        hello: &Hello,
        builders: &[HelloBuilder],
        attempts: &[HelloAttempt],
    ) {
        let Some((session, upheaval)) = self.open_session(id, address, hello) else {
            return;
        };
        let welcome_builders = self.welcome_builders(id, builders, upheaval);
        for held in attempts {
            self.adopt_if_lost(id, held);
        }
        self.check_occupations(id, builders, attempts);
        let mut standings: BTreeMap<_, _> = attempts
            .iter()
            .map(|held| (held.attempt, self.standing(id, held, upheaval)))
            .collect();
        let live: Vec<JobId> = self.live_jobs(id);
        for job in live {
            let Some(attempt) = self.jobs.get(&job).and_then(|job| job.live()) else {
                continue;
            };
            let attempt = attempt.id;
            if let Entry::Vacant(standing) = standings.entry(attempt) {
                standing.insert(Standing::Lost);
                self.lose(job, Loss::OfHost, "its agent does not hold it any more");
            }
        }
        self.step.effects.push(Effect::Welcome {
            conn,
            agent: id,
            session,
            epoch: self.meta.epoch,
            builders: welcome_builders,
            attempts: standings
                .into_iter()
                .map(|(attempt, standing)| WelcomeAttempt { attempt, standing })
                .collect(),
        });
        self.conns.insert(conn, id);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.conn = Some(conn);
        }
        self.repeat_orders(id);
    }

    fn open_session(
        &mut self,
        id: AgentId,
        address: Text<64>,
        hello: &Hello,
    ) -> Option<(SessionId, Upheaval)> {
        let wall = self.clock.wall();
        let agent = self.agents.get_mut(&id)?;
        agent.conn = None;
        agent.link_since = wall;
        let record = &mut agent.record;
        let upheaval = Upheaval {
            rebooted: record.boot.is_some_and(|boot| boot != hello.boot),
            respooled: record.spool.is_some_and(|spool| spool != hello.spool),
        };
        let known = record
            .session
            .max(hello.previous_session.unwrap_or(record.session));
        record.session = SessionId(known.0.saturating_add(1));
        record.boot = Some(hello.boot);
        record.incarnation = hello.incarnation;
        record.spool = Some(hello.spool);
        record.software = hello.software.clone();
        record.facts = hello.facts.clone();
        record.last_seen = wall;
        record.lost_at = None;
        let line = format!(
            "session {} from {address}, {} builders, {} attempts{}{}",
            record.session,
            hello.builders,
            hello.attempts,
            if upheaval.rebooted { ", rebooted" } else { "" },
            if upheaval.respooled {
                ", another spool"
            } else {
                ""
            },
        );
        record.address = address;
        let session = record.session;
        self.deadlines.disarm(Deadline::Lost(id));
        self.step.touch_agent(id);
        self.note(LedgerKind::AgentLinked, About::agent(id), line);
        Some((session, upheaval))
    }

    fn welcome_builders(
        &mut self,
        id: AgentId,
        hellos: &[HelloBuilder],
        upheaval: Upheaval,
    ) -> Vec<WelcomeBuilder> {
        let known = self.agents.get(&id).map(|agent| agent.builders.clone());
        let known = known.unwrap_or_default();
        for builder in known.values() {
            self.step.touch_builder(*builder);
            if let Some(builder) = self.builders.get_mut(builder) {
                builder.index = None;
            }
        }
        let mut indexes = BTreeMap::new();
        let mut welcomes = Vec::new();
        for hello in hellos {
            let (builder, acked) = match known.get(&hello.name) {
                Some(builder) => {
                    self.update_offer(*builder, offer_of(hello));
                    (*builder, self.level_builder(*builder, hello, upheaval))
                }
                None => {
                    let builder = self.add_builder(id, hello);
                    (builder, self.start_builder(builder, hello))
                }
            };
            indexes.insert(hello.index, builder);
            welcomes.push(WelcomeBuilder {
                index: hello.index,
                builder,
                acked,
            });
        }
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.indexes = indexes;
        }
        welcomes
    }

    /// A builder that has reported to a row which is gone counts on above all
    /// its numbers, or nothing it says would be the next; by that it knows that
    /// it has to tell its condition anew.
    fn start_builder(&mut self, id: BuilderId, hello: &HelloBuilder) -> Seq {
        let Some(builder) = self.builders.get_mut(&id) else {
            return Seq(0);
        };
        builder.index = Some(hello.index);
        if hello.last_seq > Seq(0) {
            builder.record.acked = hello.last_seq.next();
        }
        builder.record.acked
    }

    /// A host that is not the one it was proves nothing. The number of its
    /// reports never goes back: an agent that has forgotten some counts on
    /// above it, and a Hello that comes late says nothing of the agent's spool.
    fn level_builder(&mut self, id: BuilderId, hello: &HelloBuilder, upheaval: Upheaval) -> Seq {
        self.end_refusals(id);
        let Some(builder) = self.builders.get_mut(&id) else {
            return Seq(0);
        };
        builder.index = Some(hello.index);
        let record = &mut builder.record;
        let backwards = upheaval.respooled || hello.last_seq < record.acked;
        if upheaval.respooled {
            // A new spool does not know what the old one said of it, and so
            // would never take it back.
            record.fitness = Fitness::Fit;
            record.fitness_why = Text::default();
        }
        let acked = record.acked;
        // Only where the reset is the reboot does its order outlive one: any
        // other builder may hold a proof from before it that was never heard.
        let is_the_reset = record.offer.reset_scope == ResetScope::Host
            && matches!(
                record.cleanliness,
                Cleanliness::Resetting { .. } | Cleanliness::Probing { .. }
            );
        self.step.touch_builder(id);
        if backwards && upheaval.rebooted && is_the_reset {
            // Whoever has forgotten the order cannot answer it, however often
            // it is given.
            let why = "the reset set the agent's own state back, which has to lie outside of it";
            self.reset_trouble(id, why, why.to_owned());
        } else if backwards || (upheaval.rebooted && !is_the_reset) {
            self.soil(id);
        }
        acked
    }

    fn standing(&mut self, id: AgentId, held: &HelloAttempt, upheaval: Upheaval) -> Standing {
        let attempt = held.attempt;
        let live = self
            .live_attempt(attempt)
            .map(|live| (live.agent, live.acked));
        if let Some((agent, acked)) = live {
            let interrupted = upheaval.rebooted && held.phase < AttemptPhase::Ended;
            let elsewhere = agent != id && !self.planted.is(Mutation::FenceByJobOnly);
            let why = if elsewhere {
                "another agent has it"
            } else if upheaval.respooled {
                "its agent's spool is another one"
            } else if interrupted {
                "its host restarted"
            } else if held.last_seq < acked {
                "its agent has forgotten reports that are stored"
            } else {
                return Standing::Continue { acked };
            };
            if agent == id {
                self.lose(attempt.job, Loss::OfHost, why);
            }
            return Standing::Abandon {
                why: Reason::cut(why),
            };
        }
        if self.decided.by(attempt) {
            return Standing::Committed;
        }
        let why = self.why_stale(attempt);
        let about = About::attempt(attempt).of(id);
        self.note(
            LedgerKind::StaleReport,
            about,
            format!("held by its agent: {why}"),
        );
        Standing::Abandon {
            why: Reason::cut(why),
        }
    }

    pub(crate) fn live_jobs(&self, id: AgentId) -> Vec<JobId> {
        self.agents
            .get(&id)
            .map(|agent| agent.live.iter().copied().collect())
            .unwrap_or_default()
    }

    /// After the Welcome, everything that still stands is said again.
    fn repeat_orders(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(&id) else {
            return;
        };
        let resets: Vec<(BuilderIndex, BuilderId)> = agent
            .indexes
            .iter()
            .map(|(index, builder)| (*index, *builder))
            .collect();
        for job in self.live_jobs(id) {
            self.repeat_for_attempt(id, job);
        }
        for (index, builder) in resets {
            let Some(record) = self.builders.get(&builder).map(|builder| &builder.record) else {
                continue;
            };
            let ordered = matches!(
                record.cleanliness,
                Cleanliness::Resetting { .. } | Cleanliness::Probing { .. }
            );
            if let (true, Some(nonce)) = (ordered, record.nonce) {
                let reset = Reset {
                    builder: index,
                    nonce,
                };
                self.send(id, CoordinatorFrame::Reset(reset));
            }
        }
    }

    fn repeat_for_attempt(&mut self, id: AgentId, job_id: JobId) {
        let Some(job) = self.jobs.get(&job_id) else {
            return;
        };
        let Some(live) = job.live() else {
            return;
        };
        let (attempt, stage, sealed) = (live.id, live.stage, live.sealed.clone());
        let abort = job
            .cancel()
            .filter(|_| stage < Stage::Collecting)
            .map(|wish| Reason::cut(wish.why.as_str()));
        self.step.effects.push(Effect::Admit { agent: id, attempt });
        if let Some(sealed) = sealed {
            self.step.effects.push(Effect::Expect { attempt, sealed });
        }
        self.resume_progress(job_id);
        if let Some(why) = abort
            && !self.planted.is(Mutation::CancelForgotten)
        {
            self.send(id, CoordinatorFrame::Abort(Abort { attempt, why }));
        }
        if stage == Stage::Assigned {
            let at = self.clock.now() + self.settings.accept_after;
            self.deadlines.arm(Deadline::Accept(job_id), at);
        }
        // An adopted attempt may have had everything here before it was lost.
        self.settle(job_id);
    }
}
