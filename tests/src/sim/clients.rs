//! Users and operators: they submit, cancel, retry and act on builders, and
//! ask again under the same key when no answer came.

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_farm::effect::Reply;
use farmbell_farm::event::{Actor, AgentAct, BuilderAct, Command, Event, RequestId, Submit};
use farmbell_farm::record::{AgentStanding, Envelope, JobState, OperatorMode};
use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::bounded::Text;
use farmbell_protocol::spec::JobSpec;

use super::checker::{Broken, broken};
use super::script::{Script, list};
use super::world::{Happening, World};

/// What is asked until it is answered.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Token,
    Submit {
        key: String,
        jobs: Vec<JobSpec>,
    },
    /// Asked once: cancels, retries, acts, questions.
    Once,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    newest: u64,
    asked: BTreeMap<RequestId, Wish>,
    secret: [u8; 16],
    pub(super) token: Option<(u64, [u8; 16])>,
    pub(super) submits_left: usize,
}

impl World {
    /// Plans every submit of the plan.
    pub(super) fn plan_submits(&mut self) {
        let span = u64::try_from(self.plan.submit_span.as_millis()).unwrap_or(0);
        let mut left = self.plan.jobs;
        while left > 0 {
            let count = self.rng.index(4).min(left - 1) + 1;
            let first = self.plan.jobs - left;
            let jobs = (0..count)
                .map(|n| Script::chosen(&mut self.rng, &self.plan).spec(&mut self.rng, first + n))
                .map(|mut spec| {
                    // One submission has one owner.
                    spec.owner = farmbell_protocol::bounded::Name::cut("ada");
                    spec
                })
                .collect();
            left -= count;
            let key = format!("submit-{first}");
            self.clients.submits_left += 1;
            let at = self.rng.millis(0, span);
            self.after(at, Happening::Ask(Wish::Submit { key, jobs }));
        }
        self.ask(Wish::Token);
    }

    pub(super) fn ask(&mut self, wish: Wish) {
        let command = match &wish {
            Wish::Token => {
                self.clients.secret = self.rng.bytes();
                Command::TokenCreate {
                    uses: 1_000_000,
                    ttl_ms: 1_000_000_000,
                    envelope: Envelope::default(),
                    secret_hash: *blake3::hash(&self.clients.secret).as_bytes(),
                }
            }
            Wish::Submit { key, jobs } => Command::Submit(Submit {
                key: Some(Text::cut(key.clone())),
                jobs: list(jobs.clone()),
                allow_unmatched: true,
            }),
            Wish::Once => return,
        };
        self.request(wish, command);
    }

    pub(super) fn request(&mut self, wish: Wish, command: Command) {
        self.clients.newest += 1;
        let request = RequestId(self.clients.newest);
        if self.coordinator.farm.is_none() {
            return self.ask_again(wish);
        }
        self.clients.asked.insert(request, wish);
        let by = Actor {
            name: Text::cut("sim"),
        };
        let pause = self.rng.millis(0, 5);
        let event = Event::Request {
            request,
            by,
            command,
        };
        self.after(pause, Happening::Request(Box::new(event)));
    }

    fn ask_again(&mut self, wish: Wish) {
        match wish {
            Wish::Token | Wish::Submit { .. } => {
                self.after(Duration::from_secs(2), Happening::Ask(wish));
            }
            Wish::Once => {}
        }
    }

    /// The process died: whoever waits for an answer asks again.
    pub(super) fn requests_lost(&mut self) {
        for wish in std::mem::take(&mut self.clients.asked).into_values() {
            self.ask_again(wish);
        }
    }

    pub(super) fn replied(&mut self, request: RequestId, reply: Reply) -> Result<(), Broken> {
        let Some(wish) = self.clients.asked.remove(&request) else {
            return Ok(());
        };
        match (wish, reply) {
            (Wish::Token, Reply::Token(token)) => {
                self.clients.token = Some((token.id, self.clients.secret));
                Ok(())
            }
            (Wish::Submit { key, .. }, Reply::Submitted { jobs, .. }) => {
                self.clients.submits_left -= 1;
                let store = &self.coordinator.store;
                self.checker.submit_answered(store, &key, &jobs)
            }
            (Wish::Once, _) => Ok(()),
            (wish, reply) => broken("I4", format!("{wish:?} was answered {reply:?}")),
        }
    }

    /// A user or an operator does something, wise or not.
    pub(super) fn act(&mut self) {
        let job = self.any_job();
        match (self.rng.below(100), job) {
            (0..30, Some(job)) => self.request(
                Wish::Once,
                Command::Cancel {
                    job,
                    why: Text::cut("changed my mind"),
                },
            ),
            (30..42, Some(job)) => {
                let record = self.coordinator.store.jobs.get(&job).cloned();
                if let Some(record) = record
                    && matches!(record.state, JobState::Done(_))
                {
                    let job = Box::new(record);
                    self.request(Wish::Once, Command::Retry { job });
                }
            }
            (42..47, Some(job)) => self.request(Wish::Once, Command::Explain { job }),
            (47..50, _) => self.request(Wish::Once, Command::Overview),
            (50..58, _) => self.approve_frozen(),
            _ => self.act_on_builder(),
        }
    }

    fn any_job(&mut self) -> Option<farmbell_protocol::id::JobId> {
        let unfinished = self.rng.per_mille(600);
        let store = &self.coordinator.store;
        let count = if unfinished {
            store.unfinished.len()
        } else {
            store.jobs.len()
        };
        if count == 0 {
            return None;
        }
        let index = self.rng.index(count);
        let store = &self.coordinator.store;
        if unfinished {
            store.unfinished.iter().nth(index).copied()
        } else {
            store.jobs.keys().nth(index).copied()
        }
    }

    fn act_on_builder(&mut self) {
        let count = self.coordinator.store.builders.len();
        if count == 0 {
            return;
        }
        let index = self.rng.index(count);
        let builder = self.coordinator.store.builders.keys().nth(index).copied();
        let Some(builder) = builder else {
            return;
        };
        let act = match self.rng.below(10) {
            0 | 1 => BuilderAct::Set(OperatorMode::Disabled),
            2 => BuilderAct::Set(OperatorMode::Draining),
            3 => BuilderAct::Set(OperatorMode::Manual),
            4 | 5 => BuilderAct::Reset,
            _ => BuilderAct::Set(OperatorMode::Enabled),
        };
        let why = Text::cut("an act of the simulation");
        self.request(Wish::Once, Command::Builder { builder, act, why });
    }

    fn approve_frozen(&mut self) {
        let agents = self.coordinator.store.agents.values();
        let frozen: Vec<_> = agents
            .filter(|agent| agent.standing == AgentStanding::Frozen)
            .map(|agent| agent.id)
            .collect();
        for agent in frozen {
            let act = AgentAct::Approve;
            let why = Text::cut("it is one machine");
            self.request(Wish::Once, Command::Agent { agent, act, why });
        }
    }

    /// After the trouble an operator goes round and puts everything right.
    pub(super) fn put_right(&mut self) {
        let why = || Text::cut("put right");
        let store = &self.coordinator.store;
        let suspect = store
            .meta
            .as_ref()
            .is_some_and(|meta| meta.suspect.is_some());
        let builders: Vec<_> = store
            .builders
            .values()
            .filter(|builder| builder.mode != OperatorMode::Enabled)
            .map(|builder| builder.id)
            .collect();
        let stuck: Vec<_> = store
            .builders
            .values()
            .filter(|builder| builder.fitness == Fitness::Unkillable)
            .filter_map(|builder| store.agents.get(&builder.agent))
            .map(|agent| agent.key)
            .collect();
        if suspect {
            self.request(Wish::Once, Command::AcceptRestore { why: why() });
        }
        for builder in builders {
            let act = BuilderAct::Set(OperatorMode::Enabled);
            self.request(
                Wish::Once,
                Command::Builder {
                    builder,
                    act,
                    why: why(),
                },
            );
        }
        self.approve_frozen();
        for agent in 0..self.agents.len() {
            let hopeless = stuck.contains(&self.agents[agent].key);
            if hopeless {
                self.reboot(agent);
                self.after(Duration::from_secs(5), Happening::AgentStart { agent });
            }
            for index in 0..self.agents[agent].builders.len() {
                self.agents[agent].builders[index].black_hole = false;
                self.condition(agent, index, Fitness::Fit);
            }
        }
    }
}
