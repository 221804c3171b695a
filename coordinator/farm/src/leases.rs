//! Leases: who works on what. Owns assignment, the fence, loss, and the return
//! of what was lost. Never decides who should (queue.rs does) nor what a
//! result means (verdicts.rs does).
//!
//! Invariants: assignment, attempt and the builder's dirt are one batch, which
//! consumes the clean proof. A report counts only if its whole attempt id
//! equals the live one's. A lost attempt may come back until a later one runs.

use farmbell_protocol::agent_to_coordinator::HelloAttempt;
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::coordinator_to_agent::{Abandon, CoordinatorFrame};
use farmbell_protocol::id::{AgentId, AttemptId, BuilderId, JobId, Seq};
use farmbell_protocol::outcome::Usage;
use farmbell_protocol::time::Wall;

use crate::deadlines::Deadline;
use crate::effect::Effect;
use crate::farm::Farm;
use crate::jobs::{Job, State};
use crate::ledger::About;
use crate::mutation::Mutation;
use crate::queue::ClassId;
use crate::record::{
    AttemptEnd, AttemptRecord, Change, Cleanliness, LOST_MAX, LedgerKind, Occupation, OperatorMode,
    Stage,
};

/// How an attempt was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its agent fell silent; the attempt may go on and come back.
    Silence,
    /// It is known to be over, or is fenced for good.
    Certain,
    /// The same, and its host is what lost it.
    OfHost,
}

impl Farm {
    /// Gives a free builder the job it should start next.
    pub(crate) fn match_builder(&mut self, builder: BuilderId) -> bool {
        if !self.queue.is_free(builder) {
            return false;
        }
        let Some(profile) = self.builders.get(&builder).map(|b| b.profile) else {
            return false;
        };
        match self.queue.best_for(builder, profile) {
            Some(job) => {
                self.assign(job, builder);
                true
            }
            None => false,
        }
    }

    /// Gives free builders the waiting jobs of a class; says how many.
    pub(crate) fn match_class(&mut self, class: ClassId) -> usize {
        let mut assigned = 0;
        while self.queue.classes.is_wanting(class) {
            let Some(builder) = self.queue.free_for(class) else {
                break;
            };
            if !self.match_builder(builder) {
                break;
            }
            assigned += 1;
        }
        if !self.dormant.is_empty() {
            self.wake_dormant(class);
        }
        assigned
    }

    fn assign(&mut self, job_id: JobId, builder_id: BuilderId) {
        let random = self.random();
        let wall = self.clock.wall();
        let (Some(job), Some(builder)) = (
            self.jobs.get_mut(&job_id),
            self.builders.get_mut(&builder_id),
        ) else {
            return;
        };
        let Some(agent) = self.agents.get_mut(&builder.record.agent) else {
            return;
        };
        let (Some(conn), Some(index), Some(spool)) =
            (agent.conn, builder.index, agent.record.spool)
        else {
            return;
        };
        if !self.planted.is(Mutation::ReuseNumber) || job.number == 0 {
            job.number += 1;
        }
        let seal = &self.settings.seal;
        let attempt = seal.attempt(job_id, job.generation, job.number, random);
        self.queue.remove(job_id, job.owner, job.class, job.rank());
        self.queue.owners.charge(job.owner, ASSIGNMENT_COST_SECONDS);
        self.queue.owners.starts(job.owner);
        job.state = State::Live(Box::new(AttemptRecord {
            id: attempt,
            builder: builder_id,
            builder_name: builder.record.name.clone(),
            agent: builder.record.agent,
            spool,
            stage: Stage::Assigned,
            acked: Seq(0),
            assigned: wall,
            started: None,
            ended: None,
            outcome: None,
            exit: None,
            usage: Usage::default(),
            sealed: None,
            log_closed: None,
            collected: false,
            progress_deadline: None,
            end: None,
        }));
        builder.record.occupation = Occupation::Held { attempt };
        if !self.planted.is(Mutation::ProofNotConsumed) {
            builder.record.cleanliness = Cleanliness::Dirty;
            builder.record.nonce = None;
        }
        agent.live.insert(job_id);
        let agent = builder.record.agent;
        self.queue.unset_free(builder_id);
        self.step.touch_job(job_id);
        self.step.touch_builder(builder_id);
        let until = self.clock.now() + self.settings.accept_after;
        self.deadlines.arm(Deadline::Accept(job_id), until);
        let about = About::attempt(attempt).on(builder_id).of(agent);
        self.note(LedgerKind::JobAssigned, about, "");
        self.step.effects.push(Effect::Admit { agent, attempt });
        self.step.effects.push(Effect::Offer {
            conn,
            builder: index,
            attempt,
        });
    }

    /// The live attempt with exactly this id.
    pub(crate) fn live_attempt(&self, attempt: AttemptId) -> Option<&AttemptRecord> {
        let by_job_only = self.planted.is(Mutation::FenceByJobOnly);
        self.jobs
            .get(&attempt.job)?
            .live()
            .filter(|live| live.id == attempt || by_job_only)
    }

    /// Takes the live attempt out of its job, which waits from now on but is
    /// not queued: the caller decides that.
    pub(crate) fn end_attempt(&mut self, job_id: JobId, end: AttemptEnd) -> Option<AttemptRecord> {
        let since = self.clock.wall();
        let job = self.jobs.get_mut(&job_id)?;
        if job.is_waiting() {
            return None;
        }
        let State::Live(mut attempt) = std::mem::replace(&mut job.state, State::Waiting { since })
        else {
            return None;
        };
        attempt.end = Some(end);
        attempt.progress_deadline = None;
        let owner = job.owner;
        let used = held_seconds(&attempt, since);
        self.queue
            .owners
            .charge(owner, used.saturating_sub(ASSIGNMENT_COST_SECONDS));
        let unlimited = self.queue.owners.ends(owner);
        self.step.wanting.extend(unlimited);
        for deadline in [
            Deadline::Accept(job_id),
            Deadline::Cancel(job_id),
            Deadline::Progress(job_id),
        ] {
            self.deadlines.disarm(deadline);
        }
        if let Some(agent) = self.agents.get_mut(&attempt.agent) {
            agent.live.remove(&job_id);
        }
        if let Some(builder) = self.builders.get_mut(&attempt.builder)
            && builder.uploads.remove(&job_id)
        {
            self.step.touch_builder(attempt.builder);
        }
        self.free_builder(attempt.builder, attempt.id);
        self.step.touch_job(job_id);
        self.step.changes.push(Change::Attempt(attempt.clone()));
        self.step.effects.push(Effect::Dismiss {
            attempt: attempt.id,
        });
        Some(*attempt)
    }

    /// The number does not count towards the cap.
    pub(crate) fn refund(&mut self, job: JobId) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.refunded += 1;
        }
    }

    /// Ends a live attempt that will not report its end.
    pub(crate) fn lose(&mut self, job_id: JobId, loss: Loss, why: &str) {
        let end = AttemptEnd::Lost {
            why: Reason::cut(why),
        };
        let Some(attempt) = self.end_attempt(job_id, end) else {
            return;
        };
        match (loss, attempt.stage) {
            // Accepting is durable before it is said: this one never began.
            (Loss::Certain | Loss::OfHost, Stage::Assigned) => self.refund(job_id),
            (Loss::OfHost, _) => {
                self.weigh(&attempt, why);
                self.avoid(job_id, attempt.builder, true);
            }
            (Loss::Silence | Loss::Certain, _) => {}
        }
        let about = About::attempt(attempt.id)
            .on(attempt.builder)
            .of(attempt.agent);
        let line = format!("lost while {}: {why}", attempt.stage.as_str());
        self.note(LedgerKind::AttemptLost, about, line);
        if loss == Loss::Silence
            && let Some(job) = self.jobs.get_mut(&job_id)
        {
            let lost = &mut job.rare_mut().lost;
            if lost.len() == LOST_MAX {
                lost.remove(0);
            }
            lost.push(attempt);
        }
        if self.planted.is(Mutation::LostRequeueDropped) {
            return;
        }
        self.requeue(job_id, why);
    }

    /// Takes work from a builder that could still do it: fenced now, nobody's
    /// fault, and it costs the job no attempt.
    pub(crate) fn withdraw(&mut self, job_id: JobId, why: &str) {
        let end = AttemptEnd::Withdrawn {
            why: Reason::cut(why),
        };
        let Some(attempt) = self.end_attempt(job_id, end) else {
            return;
        };
        self.refund(job_id);
        let about = About::attempt(attempt.id)
            .on(attempt.builder)
            .of(attempt.agent);
        self.note(LedgerKind::AttemptWithdrawn, about, why);
        self.abandon(attempt.agent, attempt.id, why);
    }

    pub(crate) fn abandon(&mut self, agent: AgentId, attempt: AttemptId, why: &str) {
        let why = Reason::cut(why);
        self.send(agent, CoordinatorFrame::Abandon(Abandon { attempt, why }));
    }

    /// No answer to an offer on a live session: the agent is broken.
    pub(crate) fn offer_unanswered(&mut self, job_id: JobId) {
        let Some(live) = self.jobs.get(&job_id).and_then(Job::live) else {
            return;
        };
        if live.stage != Stage::Assigned {
            return;
        }
        let builder = live.builder;
        let why = format!(
            "the offer was not answered for {} s",
            self.settings.accept_after.as_secs()
        );
        self.withdraw(job_id, &why);
        self.avoid(job_id, builder, false);
        self.blame_builder(builder, &why);
        self.requeue(job_id, &why);
    }

    /// A silent attempt came back before a later one ran: it goes on, and the
    /// later one is withdrawn.
    pub(crate) fn adopt_if_lost(&mut self, agent_id: AgentId, held: &HelloAttempt) {
        let attempt = held.attempt;
        let Some(job) = self.jobs.get(&attempt.job) else {
            return;
        };
        let Some(at) = job.lost().iter().position(|lost| lost.id == attempt) else {
            return;
        };
        let lost = &job.lost()[at];
        let held_elsewhere = match self.builders.get(&lost.builder) {
            Some(builder) => builder.is_held() || builder.record.mode == OperatorMode::Disabled,
            None => true,
        };
        let too_late = job.live().is_some_and(|live| live.stage >= Stage::Running)
            && !self.planted.is(Mutation::AdoptTooLate);
        if lost.agent != agent_id || held_elsewhere || too_late || held.last_seq < lost.acked {
            return;
        }
        if job.live().is_some() {
            let why = format!("attempt {} came back before this one ran", attempt.number);
            self.withdraw(attempt.job, &why);
        }
        self.adopt(attempt.job, at);
    }

    fn adopt(&mut self, job_id: JobId, at: usize) {
        self.unqueue(job_id);
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return;
        };
        let mut attempt = job.rare_mut().lost.remove(at);
        attempt.end = None;
        let (id, builder, agent, stage) =
            (attempt.id, attempt.builder, attempt.agent, attempt.stage);
        job.state = State::Live(Box::new(attempt));
        self.queue.owners.starts(job.owner);
        self.queue.owners.charge(job.owner, ASSIGNMENT_COST_SECONDS);
        // A wish that was made while another attempt was live stands on.
        if let Some(deadline) = job.cancel().map(|wish| wish.deadline) {
            self.deadlines.arm(Deadline::Cancel(job_id), deadline);
        }
        self.step.touch_job(job_id);
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.live.insert(job_id);
        }
        if let Some(entry) = self.builders.get_mut(&builder) {
            if stage == Stage::Finishing {
                entry.uploads.insert(job_id);
            } else {
                entry.record.occupation = Occupation::Held { attempt: id };
            }
        }
        if stage != Stage::Finishing {
            self.soil(builder);
        }
        self.step.touch_builder(builder);
        let about = About::attempt(id).on(builder).of(agent);
        let line = format!("came back while {}", stage.as_str());
        self.note(LedgerKind::AttemptAdopted, about, line);
    }
}

/// What an assignment costs its owner before anybody knows how long it takes.
const ASSIGNMENT_COST_SECONDS: i64 = 60;

/// How long an attempt had its builder. Wall time will do: it only sets what
/// the owner pays.
fn held_seconds(attempt: &AttemptRecord, now: Wall) -> i64 {
    let until = attempt.ended.unwrap_or(now);
    let millis = until.0.saturating_sub(attempt.assigned.0);
    i64::try_from(millis / 1000).unwrap_or(i64::MAX)
}
