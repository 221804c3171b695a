//! The farm. Owns the whole state of the brain and the course of one step: an
//! event is routed to the concept it belongs to, then touched builders are
//! reset or made available, waiting jobs are dispatched, and what was touched
//! is written. Decides nothing by itself.
//!
//! Invariant: between two steps no job waits that a free builder could take.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::id::{AgentId, BuilderId, Epoch, JobId, KeyHash, SubmissionId};
use farmbell_protocol::time::{Now, Time};
use rand_chacha::ChaCha12Rng;
use rand_core::RngCore;

use crate::agents::Agent;
use crate::builders::Builder;
use crate::clock::{CHECKPOINT_EVERY, Clock};
use crate::deadlines::{Deadline, Deadlines};
use crate::dependencies::Dependencies;
use crate::effect::{Effect, Reply};
use crate::estimates::Estimates;
use crate::event::{Actor, Command, ConnId, Event, RequestId};
use crate::jobs::{Decided, Job, Suites};
use crate::mutation::{Mutation, Planted};
use crate::queue::{OwnerId, ProfileId, Queue};
use crate::record::{BulkRecord, Change, Meta, SubmissionRecord, TokenRecord};
use crate::retire::Retiring;
use crate::settings::Settings;
use crate::step::Step;
use crate::sweep::Sweep;

/// Deadlines and assignments of one step at most; the rest follows in the
/// next, which is due at once. Keeps the longest step below some 10 ms.
const BULK_STEP: usize = 1000;

/// Everything the farm knows, owned by one task. A clone goes its own way: it
/// answers what would happen if.
#[derive(Clone, Debug)]
pub struct Farm {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) meta: Meta,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) decided: Decided,
    pub(crate) dependencies: Dependencies,
    /// Under way, by number.
    pub(crate) bulk: BTreeMap<u64, BulkRecord>,
    /// When the store is searched again for those that want it.
    pub(crate) searches: BTreeMap<u64, Time>,
    pub(crate) suites: Suites,
    pub(crate) queue: Queue,
    pub(crate) builders: BTreeMap<BuilderId, Builder>,
    pub(crate) builder_names: BTreeMap<Name, BuilderId>,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) keys: BTreeMap<KeyHash, AgentId>,
    pub(crate) conns: BTreeMap<ConnId, AgentId>,
    /// Submissions that a repeated submit has to find again.
    pub(crate) submissions: BTreeMap<SubmissionId, SubmissionRecord>,
    pub(crate) submission_keys: BTreeMap<(OwnerId, Text<128>), SubmissionId>,
    /// Agents that have told of a later life of the store.
    pub(crate) knowing: BTreeSet<AgentId>,
    /// Agents that say they had more sessions than the store knows of.
    pub(crate) doubting: BTreeSet<AgentId>,
    pub(crate) estimates: Estimates,
    pub(crate) tokens: BTreeMap<u64, TokenRecord>,
    pub(crate) deadlines: Deadlines,
    pub(crate) sweep: Sweep,
    pub(crate) retiring: Retiring,
    pub(crate) step: Step,
    /// Dirty builders that are reset when a job wants them.
    pub(crate) dormant: BTreeSet<(ProfileId, BuilderId)>,
    /// Builders that came free and have not been offered to the queue.
    pub(crate) unmatched: std::collections::VecDeque<BuilderId>,
    pub(crate) planted: Planted,
    /// What the last step touched, for the invariants' check.
    pub(crate) touched: Touched,
    /// The planted fault: what a submit should have made durable.
    pub(crate) late: Vec<Change>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    pub(crate) jobs: Vec<JobId>,
    pub(crate) builders: Vec<BuilderId>,
}

impl Farm {
    /// Takes one event; what must be done comes back in order, changes first.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        self.clock.tick(now);
        self.route(event);
        self.end_step()
    }

    /// When [`Event::Wake`] is due, if ever, on the driver's clock.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let wakes = self.dependencies.is_due() && self.meta.suspect.is_none();
        if wakes || !self.unmatched.is_empty() {
            return Some(self.clock.on_driver(self.clock.now()));
        }
        // None of the others stores a deadline, so the clock need not be written
        // for them.
        let checkpoint = self.clock.checkpoint + CHECKPOINT_EVERY;
        let deadline = self.deadlines.next().map(|next| next.min(checkpoint));
        let others = [self.sweep.due(), self.retiring.next(), self.bulk_due()];
        let due = deadline
            .into_iter()
            .chain(others.into_iter().flatten())
            .min()?;
        Some(self.clock.on_driver(due))
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.meta.epoch
    }

    /// Takes one protection away, to see that the simulation notices.
    #[cfg(any(test, feature = "planted"))]
    pub fn plant(&mut self, mutation: Mutation) {
        self.planted.plant(mutation);
    }

    fn route(&mut self, event: Event) {
        match event {
            Event::Request {
                request,
                by,
                command,
            } => self.request(request, &by, command),
            Event::Join {
                conn,
                key,
                address,
                join,
            } => self.join(conn, key, address, &join),
            Event::Hello {
                conn,
                key,
                address,
                hello,
                builders,
                attempts,
            } => self.hello(conn, key, address, &hello, &builders, &attempts),
            Event::Report { conn, frame } => self.report(conn, frame),
            Event::Closed { conn } => self.closed(conn),
            Event::Parked { key, what } => self.parked(key, &what),
            Event::LogClosed { attempt, bytes } => self.log_closed(attempt, bytes),
            Event::Collected { attempt, outputs } => self.collected(attempt, outputs),
            Event::Progress { attempt } => self.progress(attempt),
            Event::Aged(aged) => self.aged(aged),
            Event::Found { operation, found } => self.found(operation, &found),
            Event::Wake => self.wake(),
        }
    }

    fn request(&mut self, request: RequestId, by: &Actor, command: Command) {
        let by = &by.name;
        let reply = match command {
            Command::Submit(submit) => self.submit(by, submit),
            Command::DryRun { jobs } => Ok(self.dry_run(&jobs)),
            Command::Cancel { job, why } => self.cancel(by, job, &why),
            Command::Job { job, act, why } => self.act_on_job(by, job, act, &why),
            Command::Bulk { filter, act, why } => self.begin_bulk(by, filter, act, &why),
            Command::Brake {
                architecture,
                least,
                why,
            } => self.brake(by, architecture, least, &why),
            Command::Retry { job, why } => self.retry(by, &job, &why),
            Command::RetryAll { filter, found, why } => self.retry_all(by, filter, &found, &why),
            Command::Wake { job, why } => self.wake_by_hand(by, job, &why),
            Command::Provide { package, version } => self.provide(by, package, version),
            Command::Explain { job } => self.explain(job),
            Command::Overview => Ok(self.overview()),
            Command::TokenCreate {
                uses,
                ttl_ms,
                envelope,
                secret_hash,
            } => self.create_token(by, uses, ttl_ms, envelope, secret_hash),
            Command::TokenRevoke { token, why } => self.revoke_token(by, token, &why),
            Command::Tokens => Ok(Reply::Tokens(self.tokens.values().cloned().collect())),
            Command::Agents => Ok(self.list_agents()),
            Command::Builder { builder, act, why } => self.act_on_builder(by, builder, act, &why),
            Command::Agent { agent, act, why } => self.act_on_agent(by, agent, act, &why),
            Command::AcceptRestore { why } => self.accept_restore(by, &why),
        };
        let reply = reply.unwrap_or_else(Reply::Refused);
        self.step.effects.push(Effect::Reply {
            request,
            reply: Box::new(reply),
        });
    }

    fn wake(&mut self) {
        self.step_all_bulk();
        self.sweep();
        self.retire_if_due();
        for _ in 0..BULK_STEP {
            let Some(deadline) = self.deadlines.pop_due(self.clock.now()) else {
                return;
            };
            match deadline {
                Deadline::Lost(agent) => self.silent_too_long(agent),
                Deadline::Accept(job) => self.offer_unanswered(job),
                Deadline::Cancel(job) => self.cancel_unanswered(job),
                Deadline::Progress(job) => self.stalled(job),
                Deadline::Reset(builder) => self.reset_too_long(builder),
                Deadline::ResetRetry(builder) => self.retry_reset(builder),
                Deadline::Avoid(job) => self.avoid_less(job),
                Deadline::Rest(builder) => self.has_rested(builder),
                Deadline::Drain(builder) => self.drain_over(builder),
            }
        }
    }

    /// Brings what this step touched to rest, and writes it.
    pub(crate) fn end_step(&mut self) -> Vec<Effect> {
        self.wake_the_met();
        self.keep_sweeping();
        let mut written = Vec::new();
        let mut budget = BULK_STEP;
        loop {
            let builders = self.step.touched_builders();
            for id in &builders {
                self.order_reset_if_due(*id);
                self.index_dormant(*id);
                if self.index_builder(*id) {
                    self.unmatched.push_back(*id);
                }
            }
            written.extend(builders);
            written.extend(self.step.touched_builders());
            if self.dispatch(&mut budget) == 0 {
                break;
            }
        }
        written.extend(self.step.touched_builders());
        self.write(written);
        debug_assert!(
            !self.planted.is_none() || self.check_touched().is_ok(),
            "{:?}",
            self.check_touched()
        );
        std::mem::take(&mut self.step).finish()
    }

    /// Brings free builders and waiting jobs together; says how many.
    fn dispatch(&mut self, budget: &mut usize) -> usize {
        let mut assigned = 0;
        while *budget > 0 {
            let Some(builder) = self.unmatched.pop_front() else {
                break;
            };
            *budget -= 1;
            assigned += usize::from(self.match_builder(builder));
        }
        for class in std::mem::take(&mut self.step.wanting) {
            assigned += self.match_class(class);
        }
        assigned
    }

    fn write(&mut self, mut builders: Vec<BuilderId>) {
        builders.sort_unstable();
        builders.dedup();
        let mut changes = Vec::new();
        for id in self.step.touched_agents() {
            if let Some(agent) = self.agents.get(&id) {
                changes.push(Change::Agent(Box::new(agent.record.clone())));
            }
        }
        for id in &builders {
            if let Some(builder) = self.builders.get(id) {
                changes.push(Change::Builder(Box::new(builder.record.clone())));
            }
        }
        let jobs = self.step.touched_jobs();
        for id in &jobs {
            if let Some(job) = self.jobs.get(id)
                && !self.is_hidden(job)
            {
                let record = job.record(*id, &self.queue, job.stored_state());
                changes.push(Change::Job(Box::new(record)));
            }
        }
        self.touched = Touched { jobs, builders };
        let clock_due = self.deadlines.next().is_some()
            && self.clock.now() >= self.clock.checkpoint + CHECKPOINT_EVERY;
        if self.step.meta || clock_due {
            self.meta.clock = self.clock.now();
            self.clock.checkpoint = self.clock.now();
            self.step.meta = false;
            changes.push(Change::Meta(self.meta.clone()));
        }
        self.step.changes.extend(changes);
        if self.planted.is(Mutation::ReplyBeforeCommit) {
            let now = std::mem::take(&mut self.step.changes);
            let replies = self.step.effects.iter().any(|effect| {
                matches!(effect, Effect::Reply { reply, .. }
                    if matches!(**reply, Reply::Submitted { .. }))
            });
            self.step.changes = std::mem::take(&mut self.late);
            if replies {
                self.late = now;
            } else {
                self.step.changes.extend(now);
            }
        }
    }

    /// The planted fault: a report is acknowledged, and not stored.
    fn is_hidden(&self, job: &Job) -> bool {
        self.planted.is(Mutation::AckBeforeCommit)
            && job
                .live()
                .is_some_and(|live| live.stage == crate::record::Stage::Accepted)
    }

    /// A number nobody can guess.
    pub(crate) fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
