//! From the farm's records to what people see. Owns the words for states;
//! every word of the API that names one comes from here.

mod builder;

use farmbell_farm::effect::{Explanation, Why};
use farmbell_farm::explain::{is_for_good, words};
use farmbell_farm::record::{
    AttemptEnd, AttemptRecord, Envelope, JobRecord, JobState, LedgerEntry, Stage, TokenRecord,
    VerdictRecord,
};
use farmbell_protocol::bounded::{List, Text};
use farmbell_protocol::outcome::{ExitStatus, Outcome, Usage, Verdict};
use farmbell_protocol::spec::Output;

pub(super) use builder::{agent, brakes, builder, builder_and_host, overview};

use super::lookup::Ordinal;
use super::wire::{
    ArtifactView, AttemptView, BuilderReasons, CancelView, CutView, EndView, EnvelopeView,
    EventView, JobView, OutcomeView, PlanView, TokenView, UsageView, VerdictView,
};
use crate::logs::Cut;

pub(super) fn job(job: &JobRecord) -> JobView {
    let live = match &job.state {
        JobState::Live(attempt) => Some(attempt),
        JobState::Waiting { .. } | JobState::Done(_) => None,
    };
    let verdict = match &job.state {
        JobState::Done(verdict) => Some(self::verdict(verdict)),
        JobState::Waiting { .. } | JobState::Live(_) => None,
    };
    JobView {
        id: job.id.to_string(),
        submission: job.submission.to_string(),
        name: job.name.to_string(),
        version: job.version.to_string(),
        recipe: job.needs.recipe.to_string(),
        architecture: job.needs.architecture.to_string(),
        owner: job.owner.to_string(),
        private: job.private,
        priority: job.priority,
        tags: strings(&job.needs.tags),
        submitted: job.submitted_wall.into(),
        state: state_word(&job.state).to_owned(),
        generation: job.generation,
        attempts: job.attempt_number,
        attempts_max: job.attempts_max,
        builder: live.map(|attempt| attempt.builder_name.to_string()),
        started: live.and_then(|attempt| attempt.started).map(Into::into),
        cancel: job.cancel.as_ref().map(|wish| CancelView {
            by: wish.by.to_string(),
            why: wish.why.to_string(),
            wished: wish.wished.into(),
        }),
        suspended: job.suspended,
        verdict,
    }
}

const fn state_word(state: &JobState) -> &'static str {
    match state {
        JobState::Waiting { .. } => "waiting",
        JobState::Live(attempt) => match attempt.stage {
            Stage::Assigned | Stage::Accepted => "assigned",
            Stage::Running => "running",
            Stage::Collecting => "collecting",
            Stage::Finishing => "finishing",
        },
        JobState::Done(_) => "done",
    }
}

fn verdict(record: &VerdictRecord) -> VerdictView {
    let (kind, why) = match &record.verdict {
        Verdict::Succeeded | Verdict::Cancelled | Verdict::Superseded => (None, String::new()),
        Verdict::Failed { kind, why } => (Some(kind.as_str().to_owned()), why.to_string()),
        Verdict::Infrastructure { why } => (None, why.to_string()),
    };
    VerdictView {
        verdict: record.verdict.as_str().to_owned(),
        kind,
        why,
        attempt: record.attempt.map(|id| Ordinal::of(id).to_string()),
        at: record.at.into(),
    }
}

pub(super) fn attempt(attempt: &AttemptRecord) -> AttemptView {
    AttemptView {
        attempt: Ordinal::of(attempt.id).to_string(),
        builder: attempt.builder_name.to_string(),
        stage: stage_word(attempt.stage).to_owned(),
        assigned: attempt.assigned.into(),
        started: attempt.started.map(Into::into),
        ended: attempt.ended.map(Into::into),
        outcome: attempt.outcome.as_ref().map(outcome),
        exit: attempt.exit.map(exit),
        usage: usage(attempt.usage),
        log_bytes: attempt.log_closed,
        end: attempt.end.as_ref().map(end),
    }
}

const fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Assigned => "assigned",
        Stage::Accepted => "accepted",
        Stage::Running => "running",
        Stage::Collecting => "collecting",
        Stage::Finishing => "finishing",
    }
}

fn outcome(outcome: &Outcome) -> OutcomeView {
    let (word, kind, why) = match outcome {
        Outcome::Succeeded => ("succeeded", None, None),
        Outcome::Failed { kind, why } => ("failed", Some(kind.as_str().to_owned()), Some(why)),
        Outcome::BuilderProblem { why } => ("builder_problem", None, Some(why)),
        Outcome::GivenBack { why } => ("given_back", None, Some(why)),
        Outcome::Aborted => ("aborted", None, None),
        Outcome::SupervisorLost { why } => ("supervisor_lost", None, Some(why)),
    };
    OutcomeView {
        outcome: word.to_owned(),
        kind,
        why: why.map(ToString::to_string).unwrap_or_default(),
    }
}

fn end(end: &AttemptEnd) -> EndView {
    let (word, why) = match end {
        AttemptEnd::Verdict => ("verdict", None),
        AttemptEnd::Refused { why } => ("refused", Some(why)),
        AttemptEnd::Returned { why } => ("returned", Some(why)),
        AttemptEnd::Lost { why } => ("lost", Some(why)),
        AttemptEnd::Withdrawn { why } => ("withdrawn", Some(why)),
        AttemptEnd::Cancelled => ("cancelled", None),
    };
    EndView {
        end: word.to_owned(),
        why: why.map(ToString::to_string).unwrap_or_default(),
    }
}

fn exit(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("code {code}"),
        ExitStatus::Signal(signal) => format!("signal {signal}"),
    }
}

const fn usage(usage: Usage) -> UsageView {
    UsageView {
        wall_ms: usage.wall_ms,
        cpu_ms: usage.cpu_ms,
        memory_peak_bytes: usage.memory_peak_bytes,
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
    }
}

pub(super) fn artifact(attempt: &AttemptRecord, output: &Output) -> ArtifactView {
    ArtifactView {
        job: attempt.id.job.to_string(),
        attempt: Ordinal::of(attempt.id).to_string(),
        name: output.name.to_string(),
        digest: output.digest.to_string(),
        length: output.length,
        executable: output.executable,
    }
}

pub(super) const fn cut(cut: &Cut) -> CutView {
    CutView {
        offset: cut.offset,
        dropped: cut.dropped,
    }
}

pub(super) fn plan(explanation: &Explanation) -> PlanView {
    let builders = explanation
        .builders
        .iter()
        .map(|(_, name, whys)| BuilderReasons {
            builder: name.to_string(),
            matches: !whys.iter().any(is_for_good),
            reasons: whys.iter().map(why).collect(),
        });
    PlanView {
        architecture: explanation.architecture.to_string(),
        summary: explanation.summary.clone(),
        starts_in_ms: explanation
            .starts_in
            .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        builders: builders.collect(),
    }
}

fn why(why: &Why) -> String {
    if let Why::Busy(attempt) = why {
        return format!("busy with {attempt}");
    }
    words(why)
}

pub(super) fn event(entry: &LedgerEntry) -> EventView {
    EventView {
        seq: entry.seq,
        at: entry.at.into(),
        kind: entry.kind.as_str().to_owned(),
        job: entry.job.map(|job| job.to_string()),
        attempt: entry.attempt.map(|attempt| attempt.to_string()),
        builder: entry.builder.map(|builder| builder.0),
        agent: entry.agent.map(|agent| agent.0),
        by: entry.by.to_string(),
        why: entry.why.to_string(),
    }
}

pub(super) fn token(token: &TokenRecord) -> TokenView {
    TokenView {
        id: token.id,
        uses: token.uses,
        used: token.used,
        created: token.created.into(),
        created_by: token.created_by.to_string(),
        expires: token.expires_wall.into(),
        revoked: token.revoked,
        envelope: envelope(&token.envelope),
    }
}

fn envelope(envelope: &Envelope) -> EnvelopeView {
    EnvelopeView {
        names: strings(&envelope.names),
        architectures: strings(&envelope.architectures),
        tags: strings(&envelope.tags),
        virtualized: envelope.virtualized,
    }
}

fn strings<const MAX: usize, const COUNT: usize>(list: &List<Text<MAX>, COUNT>) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
