//! Cancelling. Owns the durable wish: it stands beside the job's state until
//! the agent answers or its deadline passes, and is said again at each Welcome.
//!
//! One outcome per race: from the moment a wish is durable, the generation's
//! verdict is cancelled (or superseded), whatever the attempt comes to.

use farmbell_protocol::bounded::{Reason, Text};
use farmbell_protocol::coordinator_to_agent::{Abort, CoordinatorFrame};
use farmbell_protocol::id::JobId;
use farmbell_protocol::outcome::Verdict;

use crate::deadlines::Deadline;
use crate::effect::{Refused, RefusedCode, Reply};
use crate::farm::Farm;
use crate::ledger::About;
use crate::mutation::Mutation;
use crate::record::{AttemptEnd, CancelWish, LedgerKind, Stage};

impl Farm {
    pub(crate) fn cancel(
        &mut self,
        by: &Text<128>,
        job: JobId,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        if self.wish(by, job, why, false) || self.jobs.contains_key(&job) {
            return Ok(Reply::Done);
        }
        Err(self.no_such_job(job, "cancelled"))
    }

    /// Wishes a job's end; says whether nobody had before.
    pub(crate) fn wish(
        &mut self,
        by: &Text<128>,
        job_id: JobId,
        why: &Text<256>,
        superseded: bool,
    ) -> bool {
        let deadline = self.clock.now() + self.settings.cancel_after;
        let wish = CancelWish {
            by: by.clone(),
            why: why.clone(),
            wished: self.clock.wall(),
            superseded,
            deadline,
        };
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return self.give_up_wait(job_id, wish);
        };
        if job.cancel().is_some() {
            return false;
        }
        job.rare_mut().cancel = Some(wish);
        let live = job.live().map(|live| (live.id, live.agent, live.stage));
        self.step.touch_job(job_id);
        let about = About::job(job_id).by(by);
        self.note(LedgerKind::JobCancelWished, about, why.as_str());
        let Some((attempt, agent, stage)) = live else {
            self.finish_as_wished(job_id, "while it waited");
            return true;
        };
        if !self.planted.is(Mutation::CancelForgotten) {
            self.deadlines.arm(Deadline::Cancel(job_id), deadline);
        }
        if stage < Stage::Collecting {
            let why = Reason::cut(why.as_str());
            self.send(agent, CoordinatorFrame::Abort(Abort { attempt, why }));
        }
        self.settle(job_id);
        true
    }

    /// Whether somebody wished this job's end.
    pub(crate) fn is_unwanted(&self, job: JobId) -> bool {
        self.jobs
            .get(&job)
            .is_some_and(|job| job.cancel().is_some())
    }

    /// The verdict that the wish leads to.
    pub(crate) fn finish_as_wished(&mut self, job_id: JobId, why: &str) {
        let superseded = self
            .jobs
            .get(&job_id)
            .and_then(|job| job.cancel())
            .is_some_and(|wish| wish.superseded);
        let verdict = if superseded {
            Verdict::Superseded
        } else {
            Verdict::Cancelled
        };
        self.finish(job_id, verdict, None, why);
    }

    /// The agent did not answer in time: the farm stops waiting, and what may
    /// still run there is ended by the reset.
    pub(crate) fn cancel_unanswered(&mut self, job_id: JobId) {
        let Some(attempt) = self.end_attempt(job_id, AttemptEnd::Cancelled) else {
            return;
        };
        let why = format!(
            "its agent did not answer within {} s",
            self.settings.cancel_after.as_secs()
        );
        self.abandon(attempt.agent, attempt.id, &why);
        self.finish_as_wished(job_id, &why);
    }

    /// Why nothing can be done to a job that is not unfinished.
    pub(crate) fn no_such_job(&self, job: JobId, done: &str) -> Refused {
        if job.0 == 0 || job.0 > self.meta.job_floor {
            return Refused {
                code: RefusedCode::NotFound,
                cause: format!("there is no job {job}"),
                fix: "see farmbell jobs".to_owned(),
            };
        }
        Refused {
            code: RefusedCode::Conflict,
            cause: format!("job {job} has its verdict and cannot be {done} any more"),
            fix: format!(
                "farmbell job show {job} tells it; farmbell job retry {job} runs it again"
            ),
        }
    }
}
