//! Cancelling. Owns the durable wish: it stands beside the job's state until
//! the agent answers or its deadline passes, and is said again at each Welcome.
//!
//! One outcome per race: from the moment a wish is durable, the generation's
//! verdict is cancelled, whatever the attempt comes to.

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
        job_id: JobId,
        why: Text<256>,
    ) -> Result<Reply, Refused> {
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return Err(self.no_such_job(job_id, "cancelled"));
        };
        if job.cancel().is_some() {
            return Ok(Reply::Done);
        }
        let deadline = self.clock.now() + self.settings.cancel_after;
        job.rare_mut().cancel = Some(CancelWish {
            by: by.clone(),
            why: why.clone(),
            wished: self.clock.wall(),
            deadline,
        });
        let live = job.live().map(|live| (live.id, live.agent, live.stage));
        self.step.touch_job(job_id);
        let about = About::job(job_id).by(by);
        self.note(LedgerKind::JobCancelWished, about, why.as_str());
        let Some((attempt, agent, stage)) = live else {
            self.finish(job_id, Verdict::Cancelled, None, "while it waited");
            return Ok(Reply::Done);
        };
        if !self.planted.is(Mutation::CancelForgotten) {
            self.deadlines.arm(Deadline::Cancel(job_id), deadline);
        }
        if stage < Stage::Collecting {
            let why = Reason::cut(why.as_str());
            self.send(agent, CoordinatorFrame::Abort(Abort { attempt, why }));
        }
        self.settle(job_id);
        Ok(Reply::Done)
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
        self.finish(job_id, Verdict::Cancelled, None, &why);
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
