//! Reports. Owns numbering and fencing of what agents say after the Welcome:
//! applied once, in order, acknowledged after the commit; everything stale is
//! answered with the stored truth and kept in the ledger. Never decides what a
//! result means (verdicts.rs) nor what a reset proves (reset.rs).

use std::sync::Arc;
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::{
    Accepted, AgentFrame, Ended, OutputsLost, Refusal, Refused, Sealed, Started,
};
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::coordinator_to_agent::{Ack, Committed, CoordinatorFrame};
use farmbell_protocol::id::{AgentId, AttemptId, JobId, Seq};
use farmbell_protocol::outcome::Outcome;
use farmbell_protocol::spec::Output;
use farmbell_protocol::version::CloseCode;

use crate::blame::Judgement;
use crate::clock::{GRACE, grace_floor};
use crate::deadlines::Deadline;
use crate::effect::Effect;
use crate::event::ConnId;
use crate::farm::Farm;
use crate::leases::Loss;
use crate::ledger::About;
use crate::mutation::Mutation;
use crate::record::{AttemptEnd, AttemptRecord, Change, LedgerKind, SealedRecord, Stage};

/// Gathering and hashing what a build left takes this many times as long at
/// most as nothing may arrive on the way: at a card's 20 MB/s, 70 GB by default.
const SEALING: u32 = 6;
/// Progress is written down when it moved the deadline by this part of the
/// whole; in between, memory is enough.
const PROGRESS_WRITE_PART: u32 = 4;

impl Farm {
    pub(crate) fn report(&mut self, conn: ConnId, frame: AgentFrame) {
        let Some(agent) = self.conns.get(&conn).copied() else {
            let why = "this connection is not a session any more";
            return self.close(conn, CloseCode::Replaced, why);
        };
        match frame {
            AgentFrame::Join(_)
            | AgentFrame::Hello(_)
            | AgentFrame::HelloBuilder(_)
            | AgentFrame::HelloAttempt(_)
            | AgentFrame::HelloEnd(_) => {
                self.close(conn, CloseCode::OutOfPlace, "the session is already open");
            }
            AgentFrame::Accepted(report) => {
                self.take(
                    agent,
                    report.attempt,
                    report.seq,
                    &[Stage::Assigned],
                    |farm| {
                        farm.accepted(&report);
                    },
                );
            }
            AgentFrame::Refused(report) => {
                let stages = &[Stage::Assigned, Stage::Accepted];
                self.take(agent, report.attempt, report.seq, stages, |farm| {
                    farm.refused(&report);
                });
            }
            AgentFrame::Started(report) => {
                self.take(
                    agent,
                    report.attempt,
                    report.seq,
                    &[Stage::Accepted],
                    |farm| {
                        farm.started(&report);
                    },
                );
            }
            AgentFrame::Ended(report) => {
                let stages = &[Stage::Accepted, Stage::Running];
                self.take(agent, report.attempt, report.seq, stages, |farm| {
                    farm.ended(&report);
                });
            }
            AgentFrame::Sealed(report) => {
                let stages = &[Stage::Collecting];
                self.take(agent, report.attempt, report.seq, stages, |farm| {
                    farm.sealed(&report);
                });
            }
            AgentFrame::OutputsLost(report) => {
                let stages = &[Stage::Collecting, Stage::Finishing];
                self.take(agent, report.attempt, report.seq, stages, |farm| {
                    farm.outputs_lost(&report);
                });
            }
            AgentFrame::ResetStarted(_)
            | AgentFrame::ResetFailed(_)
            | AgentFrame::Clean(_)
            | AgentFrame::Condition(_) => self.report_of_builder(agent, frame),
        }
    }

    fn report_of_builder(&mut self, agent: AgentId, frame: AgentFrame) {
        match frame {
            AgentFrame::ResetStarted(report) => {
                self.take_of_builder(agent, report.builder, report.seq, |_, _| {});
            }
            AgentFrame::ResetFailed(report) => {
                self.take_of_builder(agent, report.builder, report.seq, |farm, builder| {
                    farm.reset_failed(builder, &report);
                });
            }
            AgentFrame::Clean(report) => {
                self.take_of_builder(agent, report.builder, report.seq, |farm, builder| {
                    farm.proved_clean(builder, &report);
                });
            }
            AgentFrame::Condition(report) => {
                self.take_of_builder(agent, report.builder, report.seq, |farm, builder| {
                    farm.condition(builder, &report);
                });
            }
            AgentFrame::Join(_)
            | AgentFrame::Hello(_)
            | AgentFrame::HelloBuilder(_)
            | AgentFrame::HelloAttempt(_)
            | AgentFrame::HelloEnd(_)
            | AgentFrame::Accepted(_)
            | AgentFrame::Refused(_)
            | AgentFrame::Started(_)
            | AgentFrame::Ended(_)
            | AgentFrame::Sealed(_)
            | AgentFrame::OutputsLost(_) => {}
        }
    }

    /// Applies a report of an attempt if it is the next one and the attempt is
    /// live and at a stage where it has its place.
    fn take(
        &mut self,
        agent: AgentId,
        attempt: AttemptId,
        seq: Seq,
        stages: &[Stage],
        apply: impl FnOnce(&mut Self),
    ) {
        let live = self
            .live_attempt(attempt)
            .filter(|live| live.agent == agent || self.planted.is(Mutation::FenceByJobOnly))
            .map(|live| (live.acked, live.stage));
        let Some((acked, stage)) = live else {
            return self.answer_stale(agent, attempt, seq);
        };
        if seq > acked.next() {
            // A gap: the agent repeats in order what is not acknowledged.
            return;
        }
        if seq <= acked {
            return self.ack(agent, attempt, acked);
        }
        if !stages.contains(&stage) {
            let why = format!("its report {seq} has no place while {}", stage.as_str());
            self.abandon(agent, attempt, &why);
            return self.lose(attempt.job, Loss::Certain, &why);
        }
        if let Some(live) = self.live_mut(attempt.job) {
            live.acked = seq;
        }
        self.step.touch_job(attempt.job);
        self.ack(agent, attempt, seq);
        apply(self);
    }

    fn ack(&mut self, agent: AgentId, attempt: AttemptId, seq: Seq) {
        self.send(agent, CoordinatorFrame::Ack(Ack { attempt, seq }));
    }

    pub(crate) fn live_mut(&mut self, job: JobId) -> Option<&mut AttemptRecord> {
        self.jobs.get_mut(&job)?.live_mut()
    }

    fn answer_stale(&mut self, agent: AgentId, attempt: AttemptId, seq: Seq) {
        if self.decided.by(attempt) {
            self.ack(agent, attempt, seq);
            return self.send(agent, CoordinatorFrame::Committed(Committed { attempt }));
        }
        let why = self.why_stale(attempt);
        let about = About::attempt(attempt).of(agent);
        let line = format!("report {seq} not applied: {why}");
        self.note(LedgerKind::StaleReport, about, line);
        self.abandon(agent, attempt, &why);
    }

    /// Why an attempt that is not live is not.
    pub(crate) fn why_stale(&self, attempt: AttemptId) -> String {
        let Some(job) = self.jobs.get(&attempt.job) else {
            return "its job has its verdict".to_owned();
        };
        match job.live() {
            Some(live) if live.id.generation == attempt.generation => {
                format!("attempt {} took its place", live.id.number)
            }
            Some(live) => format!("generation {} took its place", live.id.generation),
            None => "it was given up, and its job waits again".to_owned(),
        }
    }

    fn accepted(&mut self, report: &Accepted) {
        self.deadlines.disarm(Deadline::Accept(report.attempt.job));
        if let Some(live) = self.live_mut(report.attempt.job) {
            live.stage = Stage::Accepted;
        }
        self.begin_progress(report.attempt.job);
    }

    fn refused(&mut self, report: &Refused) {
        let job = report.attempt.job;
        let end = AttemptEnd::Refused {
            why: report.why.clone(),
        };
        let Some(attempt) = self.end_attempt(job, end) else {
            return;
        };
        let why = format!("refused ({}): {}", report.refusal.as_str(), report.why);
        let about = About::attempt(attempt.id)
            .on(attempt.builder)
            .of(attempt.agent);
        self.note(LedgerKind::AttemptRefused, about, &*why);
        match report.refusal {
            // It lies in the job as much as in the builder: it counts, or a
            // job that nobody can start would be offered for ever.
            Refusal::Input => {
                self.avoid(job, attempt.builder, false);
            }
            // It was matched by what the builder itself offers, so that one of
            // the two is not what it says.
            Refusal::UnknownRecipe | Refusal::Unfit => {
                if self.weigh(&attempt, &why) == Judgement::Builder {
                    self.refund(job);
                }
                self.avoid(job, attempt.builder, false);
            }
            Refusal::NoSpace | Refusal::Backlog | Refusal::Draining => {
                self.refund(job);
                self.rest(attempt.builder);
            }
            Refusal::Occupied => {
                self.refund(job);
                let line = "it was free when the offer was made, and its agent says it is not";
                self.breach(attempt.builder, None, line);
            }
        }
        self.requeue(job, &why);
    }

    fn started(&mut self, report: &Started) {
        let wall = self.clock.wall();
        let Some(job) = self.jobs.get_mut(&report.attempt.job) else {
            return;
        };
        if let Some(rare) = &mut job.rare
            && !self.planted.is(Mutation::AdoptTooLate)
        {
            // From here on whatever comes back is superseded.
            rare.lost.clear();
        }
        job.ran = job.ran.max(report.attempt.number);
        let Some(live) = job.live_mut() else {
            return;
        };
        live.stage = Stage::Running;
        live.started = Some(wall);
        live.progress_deadline = None;
        self.deadlines
            .disarm(Deadline::Progress(report.attempt.job));
        let about = About::attempt(live.id).on(live.builder).of(live.agent);
        self.note(LedgerKind::JobRunning, about, "");
    }

    fn ended(&mut self, report: &Ended) {
        let wall = self.clock.wall();
        let Some(live) = self.live_mut(report.attempt.job) else {
            return;
        };
        live.stage = Stage::Collecting;
        live.ended = Some(wall);
        live.outcome = Some(report.outcome.clone());
        live.exit = report.exit;
        live.usage = report.usage;
        let about = About::attempt(live.id).on(live.builder).of(live.agent);
        let line = crate::verdicts::outcome_words(&report.outcome);
        self.note(LedgerKind::JobCollecting, about, line);
        self.begin_progress(report.attempt.job);
    }

    fn sealed(&mut self, report: &Sealed) {
        let job = report.attempt.job;
        let sealed = SealedRecord {
            manifest: report.manifest,
            manifest_bytes: report.manifest_bytes,
            outputs: report.outputs,
            output_bytes: report.output_bytes,
            log_bytes: report.log_bytes,
        };
        let Some(live) = self.live_mut(job) else {
            return;
        };
        live.stage = Stage::Finishing;
        live.sealed = Some(sealed.clone());
        if report.outcome.is_some() {
            live.outcome.clone_from(&report.outcome);
        }
        let (attempt, builder, agent) = (live.id, live.builder, live.agent);
        if let Some(builder) = self.builders.get_mut(&builder) {
            builder.uploads.insert(job);
        }
        self.free_builder(builder, attempt);
        self.step.touch_builder(builder);
        self.step.effects.push(Effect::Expect { attempt, sealed });
        let about = About::attempt(attempt).on(builder).of(agent);
        let line = format!(
            "{} outputs, {} bytes; log {} bytes",
            report.outputs, report.output_bytes, report.log_bytes
        );
        self.note(LedgerKind::JobFinishing, about, line);
        self.begin_progress(job);
        self.settle(job);
    }

    fn outputs_lost(&mut self, report: &OutputsLost) {
        let why = format!("its outputs are lost: {}", report.why);
        let job = report.attempt.job;
        let agent = self.live_mut(job).map(|live| live.agent);
        self.lose(job, Loss::OfHost, &why);
        if let Some(agent) = agent {
            self.abandon(agent, report.attempt, &why);
        }
    }

    /// The bulk layer has the whole log on disk.
    pub(crate) fn log_closed(&mut self, attempt: AttemptId, bytes: u64) {
        let Some(live) = self.fenced(attempt, "its log is stored") else {
            return;
        };
        live.log_closed = Some(bytes);
        self.step.touch_job(attempt.job);
        self.renew_progress(attempt.job);
        self.settle(attempt.job);
    }

    /// The bulk layer has the manifest and every blob it names on disk.
    pub(crate) fn collected(&mut self, attempt: AttemptId, outputs: Arc<[Output]>) {
        let Some(live) = self.fenced(attempt, "its outputs are stored") else {
            return;
        };
        if live.sealed.is_none() || live.collected {
            return;
        }
        live.collected = true;
        let succeeded = live.outcome == Some(Outcome::Succeeded);
        self.step.touch_job(attempt.job);
        if succeeded && !self.is_unwanted(attempt.job) {
            self.packages_stored(attempt.job, &outputs);
        }
        self.step
            .changes
            .push(Change::Artifacts { attempt, outputs });
        self.settle(attempt.job);
    }

    /// Bytes of inputs or outputs travelled.
    pub(crate) fn progress(&mut self, attempt: AttemptId) {
        if self.live_attempt(attempt).is_some() {
            self.renew_progress(attempt.job);
        }
    }

    /// The live attempt of a fact about stored bytes; a stale fact goes to the
    /// ledger only.
    fn fenced(&mut self, attempt: AttemptId, fact: &str) -> Option<&mut AttemptRecord> {
        if self.live_attempt(attempt).is_none() {
            if !self.decided.by(attempt) {
                let why = format!("{fact}, but {}", self.why_stale(attempt));
                self.note(LedgerKind::StaleReport, About::attempt(attempt), why);
            }
            return None;
        }
        self.live_mut(attempt.job)
    }

    /// How long an attempt at this stage may come no further. One that runs has
    /// its own limit, and an offer its own answer.
    pub(crate) fn patience(&self, stage: Stage) -> Option<Duration> {
        match stage {
            Stage::Accepted | Stage::Finishing => Some(self.settings.upload_after),
            Stage::Collecting => Some(self.settings.upload_after * SEALING),
            Stage::Assigned | Stage::Running => None,
        }
    }

    /// It came to another stage, which has a time of its own.
    fn begin_progress(&mut self, job: JobId) {
        if let Some(live) = self.live_mut(job) {
            live.progress_deadline = None;
        }
        self.renew_progress(job);
    }

    /// It came further: it has the whole time again.
    pub(crate) fn renew_progress(&mut self, job: JobId) {
        let stage = self.live_mut(job).map(|live| live.stage);
        let Some(span) = stage.and_then(|stage| self.patience(stage)) else {
            return;
        };
        let at = self.clock.now() + span;
        let Some(live) = self.live_mut(job) else {
            return;
        };
        let moved = live.progress_deadline.map(|before| at.since(before));
        if moved.is_none_or(|moved| moved >= span / PROGRESS_WRITE_PART) {
            live.progress_deadline = Some(at);
            self.step.touch_job(job);
        }
        self.deadlines.arm(Deadline::Progress(job), at);
    }

    /// The agent is back: what was left of the time is left still, but enough
    /// for the bulk connection to be opened again.
    pub(crate) fn resume_progress(&mut self, job: JobId) {
        let now = self.clock.now();
        let just_started = now < self.meta.started + GRACE;
        let floor = if just_started {
            grace_floor(now, self.meta.grace_from)
        } else {
            now + GRACE
        };
        let stored = self.live_mut(job).and_then(|live| live.progress_deadline);
        match stored {
            Some(at) => self.deadlines.arm(Deadline::Progress(job), at.max(floor)),
            None => self.renew_progress(job),
        }
    }

    pub(crate) fn stalled(&mut self, job: JobId) {
        let Some(live) = self.live_mut(job) else {
            return;
        };
        let (attempt, builder, agent, stage) = (live.id, live.builder, live.agent, live.stage);
        let Some(span) = self.patience(stage) else {
            return;
        };
        let (what, loss) = match stage {
            // The network's fault, it may be, which is nobody's.
            Stage::Accepted => ("it did not start, and no byte of its inputs", Loss::Certain),
            Stage::Collecting => ("no word that its outputs are gathered", Loss::OfHost),
            Stage::Finishing => ("no byte of its outputs", Loss::Certain),
            Stage::Assigned | Stage::Running => return,
        };
        let why = format!("{what} arrived for {} s", span.as_secs());
        if loss == Loss::Certain {
            // Nobody is struck, but the job goes elsewhere.
            self.avoid(job, builder, true);
        }
        self.lose(job, loss, &why);
        self.abandon(agent, attempt, &Reason::cut(&*why));
    }
}
