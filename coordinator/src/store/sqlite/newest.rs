//! Of several versions of one record in a batch only the newest is written.

use std::collections::BTreeSet;

use farmbell_farm::record::{Change, PackageKey};
use farmbell_protocol::id::{AgentId, AttemptId, BuilderId, JobId, SubmissionId};

/// What a change overwrites as a whole.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Meta,
    Submission(SubmissionId),
    Job(JobId),
    Spec(JobId),
    Attempt(AttemptId),
    Artifacts(AttemptId),
    Builder(BuilderId),
    Agent(AgentId),
    Token(u64),
    Dependent(JobId),
    Package(&'a PackageKey),
    Bulk(u64),
    Duration(&'a str, &'a str),
}

/// The changes that count, in their order.
pub(super) fn of(changes: &[Change]) -> Vec<&Change> {
    let mut taken = BTreeSet::new();
    let mut newest: Vec<_> = changes
        .iter()
        .rev()
        .filter(|change| place(change).is_none_or(|place| taken.insert(place)))
        .collect();
    newest.reverse();
    newest
}

/// `None`: of the history, which nothing overwrites.
fn place(change: &Change) -> Option<Place<'_>> {
    Some(match change {
        Change::Meta(_) => Place::Meta,
        Change::Submission(submission) => Place::Submission(submission.id),
        Change::Job(job) => Place::Job(job.id),
        Change::Spec { job, .. } => Place::Spec(*job),
        Change::Attempt(attempt) => Place::Attempt(attempt.id),
        Change::Artifacts { attempt, .. } => Place::Artifacts(*attempt),
        Change::Builder(builder) => Place::Builder(builder.id),
        Change::BuilderRemoved(builder) => Place::Builder(*builder),
        Change::Agent(agent) => Place::Agent(agent.id),
        Change::AgentRemoved(agent) => Place::Agent(*agent),
        Change::Token(token) => Place::Token(token.id),
        Change::Waits(job) | Change::WaitOver(job) => Place::Dependent(*job),
        Change::Package(package) => Place::Package(&package.key),
        Change::PackageForgotten(key) => Place::Package(key),
        Change::Bulk(bulk) => Place::Bulk(bulk.id),
        Change::BulkOver(id) => Place::Bulk(*id),
        Change::Duration(duration) => Place::Duration(&duration.name, &duration.architecture),
        Change::Ledger(_) | Change::SubmissionRetired { .. } | Change::LedgerRetired { .. } => {
            return None;
        }
    })
}
