//! Whoever asks the coordinator for something: they submit, and ask again under
//! the same key when no answer came. What else they do is in operators.rs.

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_farm::effect::{RefusedCode, Reply};
use farmbell_farm::event::{Actor, Command, Event, RequestId, Submit};
use farmbell_farm::record::Envelope;
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
            let mut jobs: Vec<JobSpec> = (0..count)
                .map(|n| Script::chosen(&mut self.rng, &self.plan).spec(&mut self.rng, first + n))
                .collect();
            // One submission has one owner.
            let owner = jobs[0].owner.clone();
            for spec in &mut jobs {
                spec.owner = owner.clone();
            }
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
            (wish, Reply::Refused(refused)) if refused.code == RefusedCode::Suspect => {
                self.ask_again(wish);
                Ok(())
            }
            (wish, reply) => broken("I4", format!("{wish:?} was answered {reply:?}")),
        }
    }
}
