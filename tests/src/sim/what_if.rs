//! A copy of the farm, and how to take away on it what keeps a job waiting.
//! Speaks to the copy as operators do and lets time pass on it; what agents
//! say is in as_agent.rs. Changes nothing but the copy.

mod as_agent;

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_farm::Farm;
use farmbell_farm::effect::{BuilderView, Effect, Explanation, Hold, Overview, Reply, Why};
use farmbell_farm::event::{
    Actor, AgentAct, BuilderAct, Command, ConnId, Event, Filter, JobAct, RequestId,
};
use farmbell_farm::record::{AttemptRecord, JobRecord, JobState, OperatorMode};
use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::id::{AgentId, BuilderId, BuilderIndex, JobId};
use farmbell_protocol::time::Now;

use super::checker::{Broken, broken};
use super::script;

/// How long a reason that ends by itself may stand: the farm's longest wait.
const ENDS_BY_ITSELF: Duration = Duration::from_secs(11 * 60);
/// Connections of the copy are numbered from here.
const CONNS_FROM: u64 = 1 << 60;

/// A welcomed session, and how its Hello numbered the builders.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) conn: ConnId,
    pub(super) indexes: Vec<(BuilderIndex, BuilderId)>,
}

pub(super) type Sessions = BTreeMap<AgentId, Session>;

#[derive(Debug)]
pub(super) struct WhatIf {
    farm: Farm,
    now: Now,
    sessions: Sessions,
    conns: u64,
    started: u64,
    /// Where there are two ways, this one.
    by_hand: bool,
}

impl WhatIf {
    pub(super) fn new(farm: Farm, now: Now, sessions: Sessions, by_hand: bool) -> Self {
        Self {
            farm,
            now,
            sessions,
            conns: CONNS_FROM,
            started: 0,
            by_hand,
        }
    }

    /// How many jobs have been offered to builders on this copy.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Whether the farm has more to do at once.
    pub(super) fn is_behind(&self) -> bool {
        let due = self.farm.next_deadline();
        due.is_some_and(|due| due <= self.now.time)
    }

    /// Why a job waits; none if it does not.
    pub(super) fn explain(&mut self, job: JobId) -> Option<Explanation> {
        match self.ask(Command::Explain { job }) {
            Reply::Explained { explanation, .. } => explanation,
            _ => None,
        }
    }

    /// Nobody overtakes the job from now on, and why it waits has not changed
    /// by that.
    pub(super) fn suspend_all_but(&mut self, job: JobId, said: &Explanation) -> Result<(), Broken> {
        self.suspend_others(job, said.held == Some(Hold::Suspended))?;
        let reasons = |said: Explanation| (said.held, said.builders);
        let now = self.explain(job).map(reasons);
        if now == Some(reasons(said.clone())) {
            return Ok(());
        }
        broken(
            "I9",
            format!("{job} waited for {said:?}, and while other jobs are suspended for {now:?}"),
        )
    }

    fn suspend_others(&mut self, job: JobId, as_well: bool) -> Result<(), Broken> {
        self.ask(Command::Bulk {
            filter: Filter::default(),
            act: JobAct::Suspend,
            why: Text::default(),
        });
        self.catch_up()?;
        if !as_well {
            self.act_on_job(job, JobAct::Resume);
        }
        Ok(())
    }

    /// Takes away what holds the job back whatever the builders do.
    pub(super) fn cure_hold(&mut self, job: JobId, held: &Hold) -> Result<(), Broken> {
        match held {
            Hold::Dependencies { .. } => return self.bring_dependencies(job),
            Hold::Suspended => self.act_on_job(job, JobAct::Resume),
            Hold::Brake { least, .. } if self.by_hand => {
                self.act_on_job(job, JobAct::SetPriority(*least));
            }
            Hold::Brake { priority, .. } => {
                let architecture = self.job(job).map(|job| job.needs.architecture);
                for architecture in [None, architecture] {
                    self.ask(Command::Brake {
                        architecture,
                        least: Some(*priority),
                        why: Text::default(),
                    });
                }
                return self.catch_up();
            }
            Hold::OwnerLimit { running, most } => {
                let owner = self.job(job).map(|job| job.owner);
                let its = |job: &JobRecord| Some(&job.owner) == owner.as_ref();
                let surplus = usize::try_from(running - most).unwrap_or(0) + 1;
                let live = self.live(its);
                for attempt in live.into_iter().take(surplus) {
                    self.end(&attempt)?;
                    self.deliver(attempt.id);
                }
            }
        }
        Ok(())
    }

    /// Takes away the first reason why a builder does not take the job.
    pub(super) fn cure(&mut self, job: JobId, name: &Name, why: &Why) -> Result<(), Broken> {
        let Some(view) = self.builder(name) else {
            return broken(
                "I9",
                format!("an explanation names {name}, no overview does"),
            );
        };
        match why {
            Why::WrongArchitecture
            | Why::WrongVirtualization
            | Why::NoRecipe
            | Why::LacksTag(_)
            | Why::RestrictedTag(_)
            | Why::RungTooLow
            | Why::TooLittleMemory
            | Why::TooLittleDisk => self.offer_more(job, &view, why),
            Why::Offline | Why::Unreachable => self.hello(&view, |_| {}),
            Why::AgentFrozen => self.act_on_agent(&view, AgentAct::Approve),
            Why::AgentRevoked => self.join_anew(&view),
            Why::Busy(attempt) => {
                let live = self.live(|job| job.id == attempt.job);
                live.iter().try_for_each(|attempt| self.end(attempt))
            }
            Why::AwaitsUpload => {
                let id = view.record.id;
                let its = |live: &AttemptRecord| live.builder == id && live.sealed.is_some();
                let live = self.live(|_| true);
                for attempt in live.into_iter().filter(its) {
                    self.deliver(attempt.id);
                }
                Ok(())
            }
            Why::Resetting => self.prove_clean(&view),
            Why::AwaitsHand => {
                self.act_on_builder(&view, BuilderAct::Reset);
                Ok(())
            }
            Why::ResetFailing if self.by_hand => {
                self.act_on_builder(&view, BuilderAct::Reset);
                Ok(())
            }
            Why::Unfit(_) => self.become_fit(&view),
            Why::Resting if self.by_hand => self.become_fit(&view),
            Why::Resting | Why::Excluded | Why::ResetFailing => self.wait(job, name, why),
            Why::Manual | Why::Draining | Why::Disabled | Why::Quarantined => {
                self.act_on_builder(&view, BuilderAct::Set(OperatorMode::Enabled));
                Ok(())
            }
            Why::FarmSuspect => {
                let why = Text::default();
                self.ask(Command::AcceptRestore { why });
                Ok(())
            }
            // A dirty builder that nothing else hinders is being reset, and a
            // free one has the job.
            Why::Dirty | Why::Free => Ok(()),
        }
    }

    // As operators.

    fn ask(&mut self, command: Command) -> Reply {
        let effects = self.handle(Event::Request {
            request: RequestId(u64::MAX),
            by: Actor {
                name: Text::default(),
            },
            command,
        });
        let reply = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { reply, .. } => Some(*reply),
            _ => None,
        });
        reply.expect("every request is answered in its own step")
    }

    /// What a finished job waits for comes, or an operator knows better.
    fn bring_dependencies(&mut self, job: JobId) -> Result<(), Broken> {
        let why = || Text::default();
        // A suspect farm starts nothing, whatever comes.
        self.ask(Command::AcceptRestore { why: why() });
        if self.by_hand {
            self.ask(Command::Wake { job, why: why() });
        } else {
            let Some(record) = self.job(job) else {
                return Ok(());
            };
            let package = script::wanted_package(&record.needs.architecture);
            let version = Text::cut(script::WANTED_VERSION);
            self.ask(Command::Provide { package, version });
        }
        self.catch_up()?;
        // Others may have waited for the same.
        let record = self.job(job);
        self.suspend_others(job, record.is_some_and(|record| record.suspended))
    }

    fn act_on_job(&mut self, job: JobId, act: JobAct) {
        let why = Text::default();
        self.ask(Command::Job { job, act, why });
    }

    fn act_on_builder(&mut self, view: &BuilderView, act: BuilderAct) {
        let why = Text::default();
        let builder = view.record.id;
        self.ask(Command::Builder { builder, act, why });
    }

    fn act_on_agent(&mut self, view: &BuilderView, act: AgentAct) -> Result<(), Broken> {
        let why = Text::default();
        let agent = view.record.agent;
        match self.ask(Command::Agent { agent, act, why }) {
            Reply::Refused(refused) => broken("I9", format!("{act:?}: {refused:?}")),
            _ => Ok(()),
        }
    }

    fn overview(&mut self) -> Overview {
        match self.ask(Command::Overview) {
            Reply::Overview(overview) => *overview,
            _ => Overview::default(),
        }
    }

    fn builder(&mut self, name: &Name) -> Option<BuilderView> {
        let builders = self.overview().builders.into_iter();
        builders.into_iter().find(|view| view.record.name == *name)
    }

    fn job(&mut self, job: JobId) -> Option<JobRecord> {
        match self.ask(Command::Explain { job }) {
            Reply::Explained { job, .. } => Some(*job),
            _ => None,
        }
    }

    /// The live attempts of such jobs.
    fn live(&mut self, wanted: impl Fn(&JobRecord) -> bool) -> Vec<AttemptRecord> {
        let running = self.overview().running.into_iter();
        let live = running.filter(wanted).filter_map(|job| match job.state {
            JobState::Live(live) => Some(*live),
            JobState::Waiting { .. } | JobState::Done(_) => None,
        });
        live.collect()
    }

    // As time.

    /// Whatever is due now happens.
    fn catch_up(&mut self) -> Result<(), Broken> {
        for _ in 0..100_000 {
            if !self.is_behind() {
                return Ok(());
            }
            self.handle(Event::Wake);
        }
        broken("I9", "what is due now never ends".to_owned())
    }

    /// Time passes until a reason has ended by itself.
    fn wait(&mut self, job: JobId, name: &Name, why: &Why) -> Result<(), Broken> {
        let end = self.now.time + ENDS_BY_ITSELF;
        let mut looked = self.now.time;
        while let Some(due) = self.farm.next_deadline().filter(|due| *due <= end) {
            self.now.time = self.now.time.max(due);
            self.handle(Event::Wake);
            if self.now.time.since(looked) < Duration::from_secs(5) {
                continue;
            }
            looked = self.now.time;
            let stands = self.explain(job).is_some_and(|said| {
                let mut builders = said.builders.iter();
                builders.any(|(_, builder, whys)| builder == name && whys.contains(why))
            });
            if !stands {
                break;
            }
        }
        self.catch_up()
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.farm.handle(self.now, event);
        for effect in &effects {
            self.started += u64::from(matches!(effect, Effect::Offer { .. }));
            if let Effect::Close { conn, .. } = effect {
                self.sessions.retain(|_, session| session.conn != *conn);
            }
        }
        effects
    }
}
