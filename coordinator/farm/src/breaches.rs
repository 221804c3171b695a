//! Isolation breaches. Owns what counts as one and what follows: the builder
//! is taken out and reset, and the job that was found on it ends, both at once
//! and whatever their strikes. What a breach did nobody knows, so nothing
//! that took part in it is believed.
//!
//! | what the books say | what the agent says | |
//! |---|---|---|
//! | proved clean | an attempt occupies it | clean but busy |
//! | it holds one attempt | it does, and another occupies it | the wrong attempt |
//! | it was free when the offer was made | refused: occupied | nothing we asked for |

use farmbell_protocol::agent_to_coordinator::{HelloAttempt, HelloBuilder};
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::id::{AgentId, AttemptId, BuilderId};
use farmbell_protocol::outcome::Verdict;

use crate::farm::Farm;
use crate::leases::Loss;
use crate::ledger::About;
use crate::record::{Cleanliness, LedgerKind, Occupation};

impl Farm {
    /// Compares what a Hello says of its builders with the books, before each
    /// attempt is told how it stands. A builder that has another attempt than
    /// the books say, and not theirs, has lost theirs (welcome.rs): no breach.
    pub(crate) fn check_occupations(
        &mut self,
        agent: AgentId,
        hellos: &[HelloBuilder],
        attempts: &[HelloAttempt],
    ) {
        for hello in hellos {
            let known = self.agents.get(&agent);
            let (Some(found), Some(id)) = (
                hello.occupied_by,
                known.and_then(|agent| agent.indexes.get(&hello.index).copied()),
            ) else {
                continue;
            };
            let Some(record) = self.builders.get(&id).map(|builder| &builder.record) else {
                continue;
            };
            match record.occupation {
                Occupation::Held { attempt }
                    if attempt != found && attempts.iter().any(|held| held.attempt == attempt) =>
                {
                    let line = format!("it holds {attempt}, and its agent says {found} is there");
                    self.breach(id, Some(found), &line);
                    self.lose(attempt.job, Loss::Certain, &line);
                }
                Occupation::Free if record.cleanliness == Cleanliness::Clean => {
                    let line = format!("proved clean, and its agent says {found} is there");
                    self.breach(id, Some(found), &line);
                }
                Occupation::Held { .. } | Occupation::Free => {}
            }
        }
    }

    /// Something ran where nothing should have.
    pub(crate) fn breach(&mut self, id: BuilderId, found: Option<AttemptId>, what: &str) {
        let line = format!("isolation breach: {what}");
        let about = found.map_or_else(About::default, About::attempt);
        self.note(LedgerKind::IsolationBreach, about.on(id), &*line);
        self.soil(id);
        self.quarantine(id, &line);
        let Some(found) = found.filter(|found| self.ran_there(id, *found)) else {
            return;
        };
        let verdict = Verdict::Infrastructure {
            why: Reason::cut(&*line),
        };
        self.finish(found.job, verdict, None, &line);
    }

    /// Whether this attempt was given to that builder and its job waits to be
    /// run again. What an agent makes up ends nobody's job.
    fn ran_there(&self, id: BuilderId, attempt: AttemptId) -> bool {
        self.jobs.get(&attempt.job).is_some_and(|job| {
            let silent = job.lost().iter();
            job.is_waiting()
                && silent
                    .into_iter()
                    .any(|l| l.id == attempt && l.builder == id)
        })
    }
}
