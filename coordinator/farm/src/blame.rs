//! Blame. Owns strikes: who is at fault when an attempt gave no result, which
//! builders a job passes over for a while, and when a builder is taken out.
//! Network loss is nobody's fault. Never decides what the job does next.

use std::cmp::Ordering;
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::id::{BuilderId, JobId};
use farmbell_protocol::outcome::{FailureKind, Outcome, Verdict};

use crate::deadlines::Deadline;
use crate::effect::Link;
use crate::farm::Farm;
use crate::jobs::Avoid;
use crate::ledger::About;
use crate::placement::misfits;
use crate::record::{AgentStanding, AttemptRecord, LedgerKind, OperatorMode};

/// Strikes that take a builder out of service.
pub(crate) const QUARANTINE_STRIKES: u16 = 5;
/// How long a job passes over a builder that failed it.
const AVOID_FAILED: Duration = Duration::from_secs(10 * 60);
/// How long a job passes over a builder that refused it.
const AVOID_REFUSED: Duration = Duration::from_secs(60);

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// A tie blames neither.
    Neither,
    Builder,
    Job,
}

/// The one with more strikes is guilty, counting those of this failure.
pub(crate) fn judge(of_builder: u16, of_job: u16) -> Judgement {
    match of_builder.cmp(&of_job) {
        Ordering::Equal => Judgement::Neither,
        Ordering::Greater => Judgement::Builder,
        Ordering::Less => Judgement::Job,
    }
}

impl Judgement {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Neither => "neither is to blame",
            Self::Builder => "the builder is to blame",
            Self::Job => "the job is to blame",
        }
    }
}

impl Farm {
    /// An attempt ended without a result of its job.
    pub(crate) fn blame(&mut self, attempt: &AttemptRecord, why: &str) -> Judgement {
        let job_id = attempt.id.job;
        match &attempt.outcome {
            Some(Outcome::BuilderProblem { .. } | Outcome::SupervisorLost { .. }) => {}
            Some(Outcome::GivenBack { .. }) => {
                if !self.avoid(job_id, attempt.builder, true) {
                    // Where it goes to the same again, not in the same moment.
                    self.avoid(job_id, attempt.builder, false);
                }
                return Judgement::Neither;
            }
            Some(Outcome::Aborted | Outcome::Succeeded | Outcome::Failed { .. }) | None => {
                return Judgement::Neither;
            }
        }
        let judgement = self.weigh(attempt, why);
        self.avoid(job_id, attempt.builder, true);
        judgement
    }

    /// A strike for the job, and one for the builder unless the job has more:
    /// then the builder has none at all.
    pub(crate) fn weigh(&mut self, attempt: &AttemptRecord, why: &str) -> Judgement {
        let job_id = attempt.id.job;
        let (Some(job), Some(builder)) = (
            self.jobs.get_mut(&job_id),
            self.builders.get_mut(&attempt.builder),
        ) else {
            return Judgement::Neither;
        };
        job.strikes += 1;
        let (of_job, of_builder) = (job.strikes, builder.record.strikes + 1);
        let judgement = judge(of_builder, of_job);
        let line = format!(
            "{}: the builder has {of_builder} strikes, the job {of_job}; {why}",
            judgement.as_str()
        );
        let about = About::attempt(attempt.id).on(attempt.builder);
        self.note(LedgerKind::Blamed, about, line);
        self.step.touch_job(job_id);
        match judgement {
            Judgement::Neither | Judgement::Builder => self.blame_builder(attempt.builder, why),
            Judgement::Job => self.clear_strikes(attempt.builder),
        }
        judgement
    }

    pub(crate) fn clear_strikes(&mut self, id: BuilderId) {
        if let Some(builder) = self.builders.get_mut(&id)
            && builder.record.strikes != 0
        {
            builder.record.strikes = 0;
            self.step.touch_builder(id);
        }
    }

    /// A strike against a builder; enough of them take it out of service.
    pub(crate) fn blame_builder(&mut self, id: BuilderId, why: &str) {
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        builder.record.strikes += 1;
        self.step.touch_builder(id);
        let strikes = builder.record.strikes;
        if strikes >= QUARANTINE_STRIKES {
            let line = format!("{strikes} strikes, the last: {why}");
            self.quarantine(id, &line);
        }
    }

    /// The farm itself takes a builder out of service.
    pub(crate) fn quarantine(&mut self, id: BuilderId, why: &str) {
        let wall = self.clock.wall();
        let Some(builder) = self.builders.get_mut(&id) else {
            return;
        };
        let record = &mut builder.record;
        match record.mode {
            OperatorMode::Enabled | OperatorMode::Manual | OperatorMode::Draining => {}
            // It is out of service already, for a reason that stands.
            OperatorMode::Quarantined | OperatorMode::Disabled => return,
        }
        record.mode = OperatorMode::Quarantined;
        record.mode_why = farmbell_protocol::bounded::Text::cut(why);
        record.mode_by = farmbell_protocol::bounded::Text::default();
        record.mode_since = wall;
        record.reset_retry = None;
        self.deadlines.disarm(Deadline::ResetRetry(id));
        self.step.touch_builder(id);
        let line = format!("quarantined: {why}; look at it, then resume it");
        self.note(LedgerKind::BuilderMode, About::builder(id), line);
    }

    /// A result that is not the builder's fault clears it.
    pub(crate) fn credit_builder(&mut self, id: BuilderId, verdict: &Verdict) {
        let clears = match verdict {
            Verdict::Succeeded => true,
            Verdict::Failed { kind, .. } => match kind {
                FailureKind::Build
                | FailureKind::Outputs
                | FailureKind::DependencyWait
                | FailureKind::Limit => true,
                FailureKind::ChrootProblem => false,
            },
            Verdict::Cancelled | Verdict::Superseded | Verdict::Infrastructure { .. } => false,
        };
        if clears {
            self.clear_strikes(id);
        }
    }

    /// The job passes this builder over for a while, unless no other builder
    /// in service could take it; says whether.
    pub(crate) fn avoid(&mut self, job_id: JobId, builder_id: BuilderId, failed: bool) -> bool {
        let Some(job) = self.jobs.get(&job_id) else {
            return false;
        };
        if failed && !self.has_other_builder(job.needs(&self.queue), job.avoids(), builder_id) {
            return false;
        }
        let span = if failed { AVOID_FAILED } else { AVOID_REFUSED };
        let until = self.clock.now() + span;
        if !failed && let Some(builder) = self.builders.get_mut(&builder_id) {
            builder.refused.insert(job_id);
        }
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return false;
        };
        let avoids = &mut job.rare_mut().avoids;
        avoids.retain(|avoid| avoid.builder != builder_id);
        avoids.push(Avoid {
            builder: builder_id,
            until,
            failed,
        });
        self.reclass(job_id);
        true
    }

    fn has_other_builder(
        &self,
        needs: &crate::record::Needs,
        avoids: &[Avoid],
        not: BuilderId,
    ) -> bool {
        self.builders.iter().any(|(id, builder)| {
            *id != not
                && builder.record.mode == OperatorMode::Enabled
                && builder.record.fitness == Fitness::Fit
                && self.link_of(builder) == Link::Online
                && self.standing_of(builder) == AgentStanding::Active
                && avoids.iter().all(|avoid| avoid.builder != *id)
                && misfits(needs, self.queue.classes.profile(builder.profile)).is_empty()
        })
    }

    /// Some of the builders that this job passes over may be asked again.
    pub(crate) fn avoid_less(&mut self, job_id: JobId) {
        let now = self.clock.now();
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return;
        };
        if let Some(rare) = &mut job.rare {
            rare.avoids.retain(|avoid| avoid.until > now);
        }
        self.reclass(job_id);
    }

    pub(crate) fn stop_avoiding(&mut self, job_id: JobId, builder: BuilderId) {
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return;
        };
        if let Some(rare) = &mut job.rare {
            rare.avoids
                .retain(|avoid| avoid.failed || avoid.builder != builder);
        }
        self.reclass(job_id);
    }

    /// Moves the job to the class that its needs and its avoided builders make.
    fn reclass(&mut self, job_id: JobId) {
        let Some(job) = self.jobs.get(&job_id) else {
            return;
        };
        let queued = self
            .queue
            .contains(job_id, job.owner, job.class, job.rank());
        let avoided = job.avoids().iter().map(|avoid| avoid.builder).collect();
        let next = job.avoids().iter().map(|avoid| avoid.until).min();
        let needs = job.needs(&self.queue).clone();
        let before = job.class;
        let class = self.queue.intern_class(&needs, avoided);
        if queued {
            self.unqueue(job_id);
        }
        self.queue.classes.release(before);
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.class = class;
        }
        match next {
            Some(at) => self.deadlines.arm(Deadline::Avoid(job_id), at),
            None => self.deadlines.disarm(Deadline::Avoid(job_id)),
        }
        self.step.touch_job(job_id);
        if queued {
            self.enqueue(job_id);
        }
    }
}
