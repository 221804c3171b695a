//! Operators and impatient users: every command that there is, wise or not, at
//! random while trouble lasts; and the round that puts everything right after.

use farmbell_farm::effect::Search;
use farmbell_farm::event::{AgentAct, BuilderAct, Command, Ending, Filter, JobAct};
use farmbell_farm::record::{
    AgentStanding, AttemptRecord, BuilderRecord, Envelope, JobRecord, JobState, OperatorMode,
    ResetRule, ResetWhen, Stage,
};
use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::id::{AgentId, BuilderId, JobId};

use super::clients::Wish;
use super::faults::Fault;
use super::script::{ARCHITECTURES, Script, WANTED_VERSION, list, wanted_package};
use super::world::World;

/// Scores of submitted jobs are below this.
const SCORES: u64 = 100;

/// Such a builder stays dirty until an operator comes.
const BY_HAND: ResetRule = ResetRule {
    when: ResetWhen::ByHand,
    reporter: None,
};

fn why(text: &str) -> Text<256> {
    Text::cut(text)
}

impl World {
    /// A user or an operator does something.
    pub(super) fn act(&mut self) {
        let job = self.any_job();
        self.act_on(job);
    }

    /// Any act; on this job, if it is one on a job.
    pub(super) fn act_on(&mut self, job: Option<JobId>) {
        match (self.rng.below(100), job) {
            (0..18, Some(job)) => self.cancel(job),
            (18..40, Some(job)) => self.act_on_job(job),
            (40..48, Some(job)) => self.retry(job),
            (48..51, Some(job)) => self.once(Command::Explain { job }),
            (51..53, _) => self.ask_around(),
            (53..54, _) => self.dependencies_come(),
            (54..56, Some(job)) => self.act_in_bulk(job),
            (56..58, _) => self.brake(),
            (58..66, _) => self.tidy_agents(),
            (66..68, _) => self.act_on_agent(),
            (68..69, _) => self.act_on_tokens(),
            (69..72, _) => self.let_jobs_go(),
            (72..86, _) => self.act_on_builder(),
            _ => self.take_builder_back(),
        }
    }

    fn once(&mut self, command: Command) {
        self.request(Wish::Once, command);
    }

    fn cancel(&mut self, job: JobId) {
        self.strike_job(Fault::Cancel, job);
        let why = why("changed my mind");
        self.once(Command::Cancel { job, why });
    }

    fn act_on_job(&mut self, job: JobId) {
        let score = i32::try_from(self.rng.below(SCORES)).unwrap_or(0);
        let (fault, act) = match self.rng.below(10) {
            0 => (Fault::Supersede, JobAct::Supersede),
            1..4 => (Fault::Suspend, JobAct::Suspend),
            4..7 => (Fault::Resume, JobAct::Resume),
            _ => (Fault::Rescore, JobAct::SetPriority(score)),
        };
        self.strike_job(fault, job);
        let why = why("an act of the simulation");
        self.once(Command::Job { job, act, why });
    }

    fn retry(&mut self, job: JobId) {
        let record = self.coordinator.store.jobs.get(&job).cloned();
        if let Some(record) = record
            && matches!(record.state, JobState::Done(_))
        {
            let job = Box::new(record);
            let why = Text::default();
            self.once(Command::Retry { job, why });
        }
    }

    /// The hook of an archive tells of a package, or an operator knows better.
    fn dependencies_come(&mut self) {
        let architecture = ARCHITECTURES[self.rng.index(ARCHITECTURES.len())];
        let old = self.rng.per_mille(300);
        let version = if old { "1.0" } else { WANTED_VERSION };
        let waits = self.coordinator.store.dependents.first().copied();
        match waits.filter(|_| self.rng.per_mille(300)) {
            Some(job) => {
                let why = why("it does not need them");
                self.once(Command::Wake { job, why });
            }
            None => self.once(Command::Provide {
                package: wanted_package(&Name::cut(architecture)),
                version: Text::cut(version),
            }),
        }
    }

    fn ask_around(&mut self) {
        let command = match self.rng.below(4) {
            0 => Command::Overview,
            1 => Command::Tokens,
            2 => Command::Agents,
            _ => {
                let script = Script::chosen(&mut self.rng, &self.plan);
                let jobs = vec![script.spec(&mut self.rng, 0)];
                Command::DryRun { jobs }
            }
        };
        self.once(command);
    }

    fn act_in_bulk(&mut self, job: JobId) {
        let Some(record) = self.coordinator.store.jobs.get(&job) else {
            return;
        };
        let filter = match self.rng.below(4) {
            0 => Filter {
                owner: Some(record.owner.clone()),
                ..Filter::default()
            },
            1 => Filter {
                architecture: Some(record.needs.architecture.clone()),
                waiting: true,
                ..Filter::default()
            },
            2 => Filter {
                name: Some(record.name.clone()),
                ..Filter::default()
            },
            _ => Filter {
                submission: Some(record.submission),
                ..Filter::default()
            },
        };
        let few = filter.submission.is_some() || filter.name.is_some();
        let act = match self.rng.below(4) {
            0 if few => JobAct::Cancel,
            0 => return self.retry_all(filter.owner),
            1 => JobAct::SetPriority(50),
            2 => JobAct::Suspend,
            _ => JobAct::Resume,
        };
        self.strike_all(Fault::Bulk);
        let why = why("all of these");
        self.once(Command::Bulk { filter, act, why });
    }

    /// Cancelled in haste.
    fn retry_all(&mut self, owner: Option<Name>) {
        let filter = Filter {
            owner,
            verdict: Some(Ending::Cancelled),
            ..Filter::default()
        };
        let found = self
            .coordinator
            .store
            .search(&Search::first(filter.clone()));
        self.strike_all(Fault::Bulk);
        let why = why("they are wanted after all");
        self.once(Command::RetryAll { filter, found, why });
    }

    fn brake(&mut self) {
        let architecture = [None, Some(ARCHITECTURES[0]), Some(ARCHITECTURES[1])];
        let architecture = architecture[self.rng.index(3)].map(Name::cut);
        let least = i32::try_from(self.rng.below(SCORES)).ok();
        let least = least.filter(|_| self.rng.per_mille(700));
        self.strike_all(Fault::Brake);
        self.once(Command::Brake {
            architecture,
            least,
            why: why("first things first"),
        });
    }

    fn act_on_tokens(&mut self) {
        let secret: [u8; 16] = self.rng.bytes();
        self.once(Command::TokenCreate {
            uses: 1,
            ttl_ms: 60_000,
            envelope: Envelope {
                architectures: list(vec![Name::cut(ARCHITECTURES[0])]),
                ..Envelope::default()
            },
            secret_hash: *blake3::hash(&secret).as_bytes(),
        });
        // Never the first one: agents that lost their identity come with it.
        let token = 2 + self.rng.below(8);
        if self.clients.token.map(|(first, _)| first) != Some(token) {
            let why = Text::default();
            self.once(Command::TokenRevoke { token, why });
        }
    }

    /// So often a job whose lost attempt may come back, if there is one.
    fn lost_job(&mut self, per_mille: u64) -> Option<JobId> {
        let wanted = self.rng.per_mille(per_mille);
        let lost = self.coordinator.store.lost.first();
        lost.copied().filter(|_| wanted)
    }

    fn any_job(&mut self) -> Option<JobId> {
        if self.plan.hunts
            && let Some(job) = self.lost_job(500)
        {
            return Some(job);
        }
        if let Some(live) = self.passing() {
            return Some(live.id.job);
        }
        if let Some(job) = self.lost_job(150) {
            return Some(job);
        }
        let finished = self.rng.per_mille(300);
        let store = &self.coordinator.store;
        let count = if finished {
            store.jobs.len()
        } else {
            store.unfinished.len()
        };
        if count == 0 {
            return None;
        }
        let index = self.rng.index(count);
        if finished {
            store.jobs.keys().nth(index).copied()
        } else {
            store.unfinished.iter().nth(index).copied()
        }
    }

    /// Whom trouble strikes next.
    pub(super) fn any_agent(&mut self) -> usize {
        let key = self.passing().and_then(|live| {
            let row = self.coordinator.store.agents.get(&live.agent);
            row.map(|row| row.key)
        });
        let mut agents = self.agents.iter();
        let known = agents.position(|agent| Some(agent.key) == key);
        known.unwrap_or_else(|| self.rng.index(self.agents.len()))
    }

    /// Often an attempt in one of the states that pass quickly, so that they
    /// are struck as well.
    fn passing(&mut self) -> Option<AttemptRecord> {
        if self.rng.per_mille(500) {
            return None;
        }
        let store = &self.coordinator.store;
        let looked_at = store.unfinished.iter().take(512);
        let passing: Vec<&AttemptRecord> = looked_at
            .filter_map(|job| match &store.jobs.get(job)?.state {
                JobState::Live(live) => match live.stage {
                    Stage::Assigned | Stage::Accepted | Stage::Collecting => Some(live.as_ref()),
                    Stage::Running | Stage::Finishing => None,
                },
                JobState::Waiting { .. } | JobState::Done(_) => None,
            })
            .collect();
        if passing.is_empty() {
            return None;
        }
        Some(passing[self.rng.index(passing.len())].clone())
    }

    fn any_builder(&mut self) -> Option<BuilderId> {
        if let Some(live) = self.passing() {
            return Some(live.builder);
        }
        let builders = &self.coordinator.store.builders;
        if builders.is_empty() {
            return None;
        }
        let index = self.rng.index(builders.len());
        builders.keys().nth(index).copied()
    }

    fn act_on_builder(&mut self) {
        let Some(builder) = self.any_builder() else {
            return;
        };
        let abandon = self.rng.per_mille(500);
        let within_ms = 1_000 * self.rng.below(200);
        let rule = if self.rng.per_mille(500) {
            BY_HAND
        } else {
            ResetRule::default()
        };
        let (fault, act) = match self.rng.below(15) {
            0..2 => (Fault::Disable, BuilderAct::Set(OperatorMode::Disabled)),
            2 => (Fault::Drain, BuilderAct::Set(OperatorMode::Draining)),
            3 => (Fault::Drain, BuilderAct::Drain { within_ms }),
            4..6 => (Fault::Manual, BuilderAct::Set(OperatorMode::Manual)),
            6 => (
                Fault::Quarantine,
                BuilderAct::Set(OperatorMode::Quarantined),
            ),
            7..10 => (Fault::HandReset, BuilderAct::Reset),
            10 => (Fault::RemoveBuilder, BuilderAct::Remove { abandon }),
            11..13 => (Fault::SetResetRule, BuilderAct::ResetRule(rule)),
            _ => (Fault::Enable, BuilderAct::Set(OperatorMode::Enabled)),
        };
        self.strike_builder(fault, builder);
        let why = why("an act of the simulation");
        self.once(Command::Builder { builder, act, why });
    }

    /// One that is out of service, if there is one.
    fn take_builder_back(&mut self) {
        let mut builders = self.coordinator.store.builders.values();
        let out = builders.find(|builder| builder.mode != OperatorMode::Enabled);
        let Some(builder) = out.map(|builder| builder.id).or_else(|| self.any_builder()) else {
            return;
        };
        self.strike_builder(Fault::Enable, builder);
        let act = BuilderAct::Set(OperatorMode::Enabled);
        let why = why("looked at");
        self.once(Command::Builder { builder, act, why });
    }

    fn act_on_agent(&mut self) {
        let agent = self.any_agent();
        let Some(row) = self.row_of(agent) else {
            return;
        };
        let (fault, act) = if self.rng.per_mille(500) {
            (Fault::RevokeAgent, AgentAct::Revoke)
        } else {
            (Fault::RemoveAgent, AgentAct::Remove)
        };
        self.strike_agent(fault, agent);
        let why = why("it looks odd");
        self.once(Command::Agent {
            agent: row,
            act,
            why,
        });
    }

    /// The coordinator's row of a simulated agent, once it has joined.
    pub(super) fn row_of(&self, agent: usize) -> Option<AgentId> {
        let key = self.agents[agent].key;
        let mut rows = self.coordinator.store.agents.values();
        rows.find(|row| row.key == key).map(|row| row.id)
    }

    /// Frozen agents are looked at and taken back; the rows of revoked ones
    /// are removed, so that their machines may join anew; a farm that an agent
    /// made suspect goes on.
    fn tidy_agents(&mut self) {
        let store = &self.coordinator.store;
        let suspect = store
            .meta
            .as_ref()
            .is_some_and(|meta| meta.suspect.is_some());
        let todo: Vec<(AgentId, AgentAct)> = store
            .agents
            .values()
            .filter_map(|agent| match agent.standing {
                AgentStanding::Active => None,
                AgentStanding::Frozen => Some((agent.id, AgentAct::Approve)),
                AgentStanding::Revoked => Some((agent.id, AgentAct::Remove)),
            })
            .collect();
        if suspect {
            let why = why("nothing was restored");
            self.once(Command::AcceptRestore { why });
        }
        for (agent, act) in todo {
            let why = why("it is one machine");
            self.once(Command::Agent { agent, act, why });
        }
    }

    /// After the trouble an operator goes round and puts everything right.
    pub(super) fn put_right(&mut self) {
        self.tidy_agents();
        self.let_jobs_go();
        let store = &self.coordinator.store;
        let those = |wrong: fn(&BuilderRecord) -> bool| -> Vec<BuilderId> {
            let builders = store.builders.values().filter(|builder| wrong(builder));
            builders.map(|builder| builder.id).collect()
        };
        let out = those(|builder| builder.mode != OperatorMode::Enabled);
        let by_hand = those(|builder| builder.reset_rule != ResetRule::default());
        let stuck: Vec<_> = store
            .builders
            .values()
            .filter(|builder| builder.fitness == Fitness::Unkillable)
            .filter_map(|builder| store.agents.get(&builder.agent))
            .map(|agent| agent.key)
            .collect();
        let enable = |builder| (builder, BuilderAct::Set(OperatorMode::Enabled));
        let reset_after = |builder| (builder, BuilderAct::ResetRule(ResetRule::default()));
        let acts = out.into_iter().map(enable);
        for (builder, act) in acts.chain(by_hand.into_iter().map(reset_after)) {
            let why = why("put right");
            self.once(Command::Builder { builder, act, why });
        }
        for agent in 0..self.agents.len() {
            if stuck.contains(&self.agents[agent].key) {
                self.reboot(agent);
                let at = super::world::Happening::AgentStart { agent };
                self.after(std::time::Duration::from_secs(5), at);
            }
            self.show_removed_builders(agent);
            for index in 0..self.agents[agent].builders.len() {
                self.agents[agent].builders[index].black_hole = false;
                self.condition(agent, index, Fitness::Fit);
            }
        }
    }

    /// Nothing holds a job back any more.
    fn let_jobs_go(&mut self) {
        let store = &self.coordinator.store;
        let brakes = store.meta.as_ref().map(|meta| meta.brakes.to_vec());
        let mut may_run = store.unfinished.iter().chain(&store.dependents);
        let suspended = may_run.any(|job| {
            let job: Option<&JobRecord> = store.jobs.get(job);
            job.is_some_and(|job| job.suspended)
        });
        for brake in brakes.unwrap_or_default() {
            self.once(Command::Brake {
                architecture: brake.architecture,
                least: None,
                why: why("put right"),
            });
        }
        if suspended {
            self.once(Command::Bulk {
                filter: Filter::default(),
                act: JobAct::Resume,
                why: why("put right"),
            });
        }
    }

    /// A builder that was removed while its agent was connected is shown again
    /// when the agent says Hello.
    fn show_removed_builders(&mut self, agent: usize) {
        let Some(row) = self.row_of(agent) else {
            return;
        };
        let shown = self.coordinator.store.builders_of(row);
        let has = self.agents[agent].builders.len();
        if shown < has && self.agents[agent].welcomed_conn().is_some() {
            self.redial(agent);
        }
    }
}

/// A name that no other machine has had, for one that has to join anew.
pub(super) fn next_name(agent: usize, identity: u64) -> Name {
    Name::cut(format!("agent-{agent}-{identity}"))
}
