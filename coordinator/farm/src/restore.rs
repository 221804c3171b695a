//! Restore. Owns the way from the store's snapshot to a farm that goes on: a
//! new epoch, floors, indexes, and every stored deadline, with grace for
//! agents to find their way back, which starts in quick succession do not
//! renew for ever. No session survives a coordinator.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farmbell_protocol::id::JobId;
use farmbell_protocol::time::{Now, Time};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::agents::Agent;
use crate::clock::{Clock, GRACE, grace_floor};
use crate::deadlines::{Deadline, Deadlines};
use crate::dependencies::Dependencies;
use crate::effect::Effect;
use crate::estimates::Estimates;
use crate::farm::{Farm, Touched};
use crate::jobs::{Avoid, Decided, State, Suites};
use crate::leases::Loss;
use crate::ledger::About;
use crate::mutation::Planted;
use crate::queue::Queue;
use crate::record::{
    AgentRecord, BuilderRecord, Cleanliness, JobRecord, JobState, LedgerKind, Meta, Snapshot, Stage,
};
use crate::retire::Retiring;
use crate::seal::SealKey;
use crate::settings::Settings;
use crate::step::Step;
use crate::sweep::Sweep;

/// More jobs and submissions than any store gives out in the life that its
/// backup does not know; room for thousands of restores in the ids people see.
const LOST_JOBS_MAX: u64 = 1 << 28;
/// The same of agents and builders.
const LOST_HOSTS_MAX: u32 = 1 << 20;

impl Meta {
    /// The store is a backup, brought back: raises the floors above all that
    /// may have been given out in the life it does not know. What was finished
    /// there nobody will speak of again, so that what agents show is not
    /// enough. Attempts and tokens are told apart by their random parts; the
    /// history's numbers are places in it, not names.
    pub fn rise_above_a_lost_life(&mut self) {
        self.job_floor = self.job_floor.max(self.job_seen) + LOST_JOBS_MAX;
        self.submission_floor += LOST_JOBS_MAX;
        self.agent_floor = self.agent_floor.saturating_add(LOST_HOSTS_MAX);
        self.builder_floor = self.builder_floor.saturating_add(LOST_HOSTS_MAX);
    }
}

impl Farm {
    /// The farm as the store tells it, at a new epoch, and what must be done
    /// at once. `jobs` are the unfinished ones, in order; `seed` is the
    /// operating system's randomness.
    #[must_use]
    pub fn restore(
        settings: Settings,
        snapshot: Snapshot,
        jobs: impl IntoIterator<Item = JobRecord>,
        now: Now,
        seed: [u8; 32],
    ) -> (Self, Vec<Effect>) {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let stored = snapshot.meta.unwrap_or_default();
        let clock = Clock::resume(stored.clock, now);
        let meta = next_life(stored, &settings.seal, rng.next_u64());
        let retiring = Retiring::from(&settings, clock.now());
        let mut farm = Self {
            queue: Queue::with_shares(settings.shares.clone()),
            settings,
            clock,
            rng,
            meta,
            jobs: BTreeMap::new(),
            decided: Decided::default(),
            dependencies: Dependencies::default(),
            bulk: BTreeMap::new(),
            suites: Suites::default(),
            searches: BTreeMap::new(),
            builders: BTreeMap::new(),
            builder_names: BTreeMap::new(),
            agents: BTreeMap::new(),
            keys: BTreeMap::new(),
            conns: BTreeMap::new(),
            submissions: BTreeMap::new(),
            submission_keys: BTreeMap::new(),
            knowing: BTreeSet::new(),
            doubting: BTreeSet::new(),
            estimates: Estimates::restore(snapshot.durations),
            tokens: BTreeMap::new(),
            deadlines: Deadlines::default(),
            sweep: Sweep::default(),
            retiring,
            step: Step::default(),
            dormant: BTreeSet::new(),
            unmatched: VecDeque::new(),
            planted: Planted::default(),
            touched: Touched::default(),
            late: Vec::new(),
        };
        farm.step.meta = true;
        farm.restore_bulk(snapshot.bulk);
        let tokens = snapshot.tokens.into_iter();
        farm.tokens = tokens.map(|token| (token.id, token)).collect();
        for submission in snapshot.submissions {
            farm.remember_submission(submission);
        }
        for agent in snapshot.agents {
            farm.restore_agent(agent);
        }
        for builder in snapshot.builders {
            farm.restore_builder(builder);
        }
        for package in snapshot.packages {
            farm.dependencies.learn(package);
        }
        for job in snapshot.dependents {
            farm.dependencies.insert(job);
        }
        for job in jobs {
            farm.restore_job(job);
        }
        farm.await_agents();
        let line = format!(
            "epoch {}, {} unfinished jobs",
            farm.meta.epoch,
            farm.jobs.len()
        );
        farm.note(LedgerKind::Started, About::default(), line);
        let effects = farm.end_step();
        (farm, effects)
    }

    fn floor(&self) -> Time {
        grace_floor(self.clock.now(), self.meta.grace_from)
    }

    fn restore_agent(&mut self, record: AgentRecord) {
        self.keys.insert(record.key, record.id);
        let agent = Agent::new(record, self.clock.wall());
        self.agents.insert(agent.record.id, agent);
    }

    fn restore_builder(&mut self, mut record: BuilderRecord) {
        let floor = self.floor();
        let id = record.id;
        match &mut record.cleanliness {
            Cleanliness::Resetting { deadline } | Cleanliness::Probing { deadline } => {
                *deadline = (*deadline).max(floor);
                self.deadlines.arm(Deadline::Reset(id), *deadline);
            }
            Cleanliness::Dirty | Cleanliness::Clean => {}
        }
        if let Some(at) = record.reset_retry {
            self.deadlines.arm(Deadline::ResetRetry(id), at);
        }
        if let Some(at) = record.drain_deadline {
            self.deadlines.arm(Deadline::Drain(id), at.max(floor));
        }
        self.insert_builder(record);
        self.index_dormant(id);
    }

    fn restore_job(&mut self, stored: JobRecord) {
        let id = stored.id;
        let mut job = self.compact(&stored);
        // How long it was passed over is not stored; a crash loop that began
        // that anew would never end it.
        let until = self.floor();
        if !stored.excluded.is_empty() {
            job.rare_mut().avoids = stored
                .excluded
                .iter()
                .map(|builder| Avoid {
                    builder: *builder,
                    until,
                    failed: true,
                })
                .collect();
            let class = self
                .queue
                .intern_class(&stored.needs, stored.excluded.to_vec());
            self.queue.classes.release(job.class);
            job.class = class;
            self.deadlines.arm(Deadline::Avoid(id), until);
        }
        if !stored.lost.is_empty() {
            job.rare_mut().lost = stored.lost.into_vec();
        }
        if let Some(mut wish) = stored.cancel {
            wish.deadline = wish.deadline.max(self.floor());
            self.deadlines.arm(Deadline::Cancel(id), wish.deadline);
            job.rare_mut().cancel = Some(wish);
        }
        match stored.state {
            JobState::Waiting { since } => {
                job.state = State::Waiting { since };
                let least = self.least_score(&stored.needs.architecture);
                job.braked = least.is_some_and(|least| job.priority < least);
                if !job.suspended && !job.braked {
                    self.queue.push(id, job.owner, job.class, job.rank());
                }
            }
            JobState::Live(attempt) => {
                if let Some(agent) = self.agents.get_mut(&attempt.agent) {
                    agent.live.insert(id);
                }
                if attempt.stage == Stage::Finishing
                    && let Some(builder) = self.builders.get_mut(&attempt.builder)
                {
                    builder.uploads.insert(id);
                }
                self.queue.owners.starts(job.owner);
                job.state = State::Live(attempt);
            }
            JobState::Done(_) => return self.queue.classes.release(job.class),
        }
        self.jobs.insert(id, job);
    }

    /// Whoever held work has to come back in time, as if its connection had
    /// just ended; the deadline of one that was away already stays its.
    fn await_agents(&mut self) {
        let floor = self.floor();
        let fresh = self.clock.now() + self.settings.lost_after;
        let mut orphans: Vec<JobId> = Vec::new();
        for (id, agent) in &mut self.agents {
            let at = match agent.record.lost_at {
                Some(at) => at.max(floor),
                None if agent.live.is_empty() => continue,
                None => fresh,
            };
            if agent.record.lost_at != Some(at) {
                agent.record.lost_at = Some(at);
                self.step.touch_agent(*id);
            }
            self.deadlines.arm(Deadline::Lost(*id), at);
        }
        for (id, job) in &self.jobs {
            if let Some(live) = job.live()
                && !self.agents.contains_key(&live.agent)
            {
                orphans.push(*id);
            }
        }
        for job in orphans {
            self.lose(job, Loss::Certain, "its agent is not known any more");
        }
    }
}

/// The farm's own numbers for a new process.
fn next_life(stored: Meta, seal: &SealKey, random: u64) -> Meta {
    let ran_well = stored.clock.since(stored.started) >= GRACE || stored.epoch.counter == 0;
    Meta {
        epoch: seal.epoch(stored.epoch.counter + 1, random),
        started: stored.clock,
        grace_from: if ran_well {
            stored.clock
        } else {
            stored.grace_from
        },
        ..stored
    }
}
