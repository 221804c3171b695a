//! Verdicts. Owns what a finished attempt means for its job: the end of the
//! generation, or another try. Never decides who is to blame (blame.rs does).
//!
//! Invariant: a generation gets exactly one verdict; it rests on at most one
//! attempt, whose log and outputs are durable; the job leaves the farm with it.

use farmbell_protocol::bounded::Reason;
use farmbell_protocol::coordinator_to_agent::{Committed, CoordinatorFrame};
use farmbell_protocol::id::{AttemptId, JobId};
use farmbell_protocol::outcome::{FailureKind, Outcome, Verdict};

use crate::blame::Judgement;
use crate::deadlines::Deadline;
use crate::dependencies::missing_of;
use crate::farm::Farm;
use crate::jobs::{Job, State};
use crate::ledger::About;
use crate::mutation::Mutation;
use crate::record::{
    AttemptEnd, AttemptRecord, Change, JobState, LedgerKind, Stage, VerdictRecord,
};

/// What an attempt's outcome asks for.
enum Finding {
    Verdict(Verdict),
    /// Somebody wished its end before.
    Wished,
    /// Not a result of the job: it waits again.
    Return(String),
}

impl Farm {
    /// Decides about an attempt once all that is wanted of it is durable.
    pub(crate) fn settle(&mut self, job_id: JobId) {
        let Some(job) = self.jobs.get(&job_id) else {
            return;
        };
        let Some(live) = job.live() else { return };
        if live.stage != Stage::Finishing || !self.is_complete(job, live) {
            return;
        }
        let (attempt, agent) = (live.id, live.agent);
        let finding = match &live.outcome {
            _ if job.cancel().is_some() => Finding::Wished,
            Some(outcome) => finding(outcome),
            None => Finding::Return("it sealed outputs without an end".to_owned()),
        };
        match finding {
            Finding::Wished => {
                self.end_attempt(job_id, AttemptEnd::Cancelled);
                self.finish_as_wished(job_id, "as wished");
            }
            Finding::Verdict(verdict) => self.conclude(job_id, verdict),
            Finding::Return(why) => self.give_back(job_id, &why),
        }
        self.send(agent, CoordinatorFrame::Committed(Committed { attempt }));
    }

    /// The whole log, and the outputs unless the job is cancelled anyway. The
    /// log may have more than its agent still has after a power cut there.
    fn is_complete(&self, job: &Job, live: &AttemptRecord) -> bool {
        let log = match (live.log_closed, &live.sealed) {
            (Some(closed), Some(sealed)) => closed >= sealed.log_bytes,
            (None, _) | (_, None) => false,
        };
        let log = log || self.planted.is(Mutation::LogClosedEarly);
        let outputs = live.collected
            || job.cancel().is_some()
            || self.planted.is(Mutation::CollectedUnverified);
        log && outputs
    }

    /// The generation's verdict rests on its live attempt.
    fn conclude(&mut self, job_id: JobId, verdict: Verdict) {
        self.learn(job_id, &verdict);
        let Some(attempt) = self.end_attempt(job_id, AttemptEnd::Verdict) else {
            return;
        };
        self.credit_builder(attempt.builder, &verdict);
        self.watch_pace(&attempt);
        let why = verdict_words(&verdict);
        self.finish(job_id, verdict, Some(attempt.id), &why);
    }

    /// The attempt was no result of the job: it waits again, or, where it has
    /// had its attempts and is itself to blame, has failed.
    fn give_back(&mut self, job_id: JobId, why: &str) {
        let Some(attempt) = self.live_mut(job_id).cloned() else {
            return;
        };
        let judgement = self.blame(&attempt, why);
        let worn_out = self.jobs.get(&job_id).is_some_and(Job::is_worn_out);
        if judgement == Judgement::Job && worn_out {
            let verdict = Verdict::Failed {
                kind: FailureKind::Build,
                why: Reason::cut(format!(
                    "it failed on every builder it was given, and they are well; the last: {why}"
                )),
            };
            return self.conclude(job_id, verdict);
        }
        let end = AttemptEnd::Returned {
            why: Reason::cut(why),
        };
        self.end_attempt(job_id, end);
        self.watch_pace(&attempt);
        self.requeue(job_id, why);
    }

    /// The job waits again, unless it was cancelled or has had its attempts.
    pub(crate) fn requeue(&mut self, job_id: JobId, why: &str) {
        let Some(job) = self.jobs.get(&job_id) else {
            return;
        };
        if job.cancel().is_some() {
            return self.finish_as_wished(job_id, "as wished");
        }
        let (used, max) = (job.attempts_used(), job.attempts_max);
        if job.is_worn_out() {
            let why = format!("{used} of {max} attempts did not give a result; the last: {why}");
            let verdict = Verdict::Infrastructure {
                why: Reason::cut(&*why),
            };
            return self.finish(job_id, verdict, None, &why);
        }
        let line = format!("{used} of {max} attempts used; {why}");
        self.note(LedgerKind::JobReturned, About::job(job_id), line);
        self.enqueue(job_id);
    }

    /// Puts a waiting job in the queue, unless something holds it back.
    pub(crate) fn enqueue(&mut self, job_id: JobId) {
        let Some(job) = self.jobs.get(&job_id) else {
            return;
        };
        let least = self.least_score(&job.needs(&self.queue).architecture);
        let braked = least.is_some_and(|least| job.priority < least);
        if job.is_waiting() && !job.suspended && !braked {
            self.queue.push(job_id, job.owner, job.class, job.rank());
            self.step.wanting.push(job.class);
        }
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.braked = braked;
        }
        self.step.touch_job(job_id);
    }

    pub(crate) fn unqueue(&mut self, job_id: JobId) {
        if let Some(job) = self.jobs.get(&job_id) {
            self.queue.remove(job_id, job.owner, job.class, job.rank());
        }
    }

    /// Ends the generation. The job must not have a live attempt any more.
    pub(crate) fn finish(
        &mut self,
        job_id: JobId,
        verdict: Verdict,
        attempt: Option<AttemptId>,
        why: &str,
    ) {
        self.unqueue(job_id);
        let Some(job) = self.jobs.remove(&job_id) else {
            return;
        };
        let about = attempt.map_or_else(|| About::job(job_id), About::attempt);
        self.note(
            LedgerKind::JobVerdict,
            about,
            format!("{}: {why}", verdict.as_str()),
        );
        let record = job.record(
            job_id,
            &self.queue,
            JobState::Done(VerdictRecord {
                verdict,
                attempt,
                at: self.clock.wall(),
            }),
        );
        let dependent = missing_of(&record).is_some().then(|| record.clone());
        self.step.changes.push(Change::Job(Box::new(record)));
        self.decided.note(job_id, job.generation, attempt);
        if self.planted.is(Mutation::OverwriteVerdict) {
            return self.forget_that_it_is_decided(job_id, job);
        }
        for avoid in job.avoids() {
            if let Some(builder) = self.builders.get_mut(&avoid.builder) {
                builder.refused.remove(&job_id);
            }
        }
        self.deadlines.disarm(Deadline::Avoid(job_id));
        self.deadlines.disarm(Deadline::Cancel(job_id));
        self.queue.classes.release(job.class);
        if let Some(job) = dependent {
            self.await_dependencies(job);
        }
    }

    /// The planted fault: the job waits on although it has its verdict.
    fn forget_that_it_is_decided(&mut self, job_id: JobId, mut job: Job) {
        job.state = State::Waiting {
            since: self.clock.wall(),
        };
        job.rare = None;
        self.jobs.insert(job_id, job);
        self.enqueue(job_id);
    }
}

fn finding(outcome: &Outcome) -> Finding {
    match outcome {
        Outcome::Succeeded => Finding::Verdict(Verdict::Succeeded),
        Outcome::Failed { kind, why } => Finding::Verdict(Verdict::Failed {
            kind: *kind,
            why: why.clone(),
        }),
        Outcome::BuilderProblem { .. }
        | Outcome::GivenBack { .. }
        | Outcome::Aborted
        | Outcome::SupervisorLost { .. } => Finding::Return(outcome_words(outcome)),
    }
}

/// An outcome in words, for the ledger and for people.
pub(crate) fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "succeeded".to_owned(),
        Outcome::Failed { kind, why } => format!("failed ({}): {why}", kind.as_str()),
        Outcome::BuilderProblem { why } => format!("the builder's problem: {why}"),
        Outcome::GivenBack { why } => format!("given back: {why}"),
        Outcome::Aborted => "aborted on its host".to_owned(),
        Outcome::SupervisorLost { why } => format!("its supervisor died: {why}"),
    }
}

fn verdict_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Succeeded => "its attempt succeeded".to_owned(),
        Verdict::Failed { kind, why } => format!("{}: {why}", kind.as_str()),
        Verdict::Cancelled => "as wished".to_owned(),
        Verdict::Superseded => "something newer took its place".to_owned(),
        Verdict::Infrastructure { why } => why.to_string(),
    }
}
