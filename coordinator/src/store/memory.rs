//! A store without a disk, for the simulation: the same contract, so that the
//! same suite judges both. What was committed survives a crash of the farm,
//! because the store is kept and only the farm is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use farmbell_farm::record::{
    AgentRecord, AttemptRecord, BuilderRecord, Change, JobRecord, JobState, LedgerEntry, Meta,
    Snapshot, SubmissionRecord, TokenRecord,
};
use farmbell_protocol::id::{AgentId, AttemptId, BuilderId, JobId, SubmissionId};
use farmbell_protocol::spec::{JobSpec, Output};

use super::{CommitError, Store, StoreError};

/// Everything that was committed, to look at.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    pub meta: Option<Meta>,
    pub submissions: BTreeMap<SubmissionId, SubmissionRecord>,
    pub jobs: BTreeMap<JobId, JobRecord>,
    pub specs: BTreeMap<JobId, Arc<JobSpec>>,
    pub attempts: BTreeMap<AttemptId, AttemptRecord>,
    pub artifacts: BTreeMap<AttemptId, Arc<[Output]>>,
    pub builders: BTreeMap<BuilderId, BuilderRecord>,
    pub agents: BTreeMap<AgentId, AgentRecord>,
    pub tokens: BTreeMap<u64, TokenRecord>,
    pub ledger: BTreeMap<u64, LedgerEntry>,
}

impl MemoryStore {
    fn take(&mut self, change: &Change) {
        match change.clone() {
            Change::Meta(meta) => self.meta = Some(meta),
            Change::Submission(submission) => {
                self.submissions.insert(submission.id, submission);
            }
            Change::Job(job) => {
                self.jobs.insert(job.id, *job);
            }
            Change::Spec { job, spec } => {
                self.specs.insert(job, spec);
            }
            Change::Attempt(attempt) => {
                self.attempts.insert(attempt.id, *attempt);
            }
            Change::Artifacts { attempt, outputs } => {
                self.artifacts.insert(attempt, outputs);
            }
            Change::Builder(builder) => {
                self.builders.insert(builder.id, *builder);
            }
            Change::BuilderRemoved(builder) => {
                self.builders.remove(&builder);
            }
            Change::Agent(agent) => {
                self.agents.insert(agent.id, *agent);
            }
            Change::AgentRemoved(agent) => {
                self.agents.remove(&agent);
            }
            Change::Token(token) => {
                self.tokens.insert(token.id, token);
            }
            Change::Ledger(entry) => {
                self.ledger.insert(entry.seq, entry);
            }
        }
    }

    fn unfinished(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs
            .values()
            .filter(|job| !matches!(job.state, JobState::Done(_)))
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        let mut wanted: std::collections::BTreeSet<_> =
            self.unfinished().map(|job| job.submission).collect();
        let keyed = self.submissions.values().filter(|one| one.key.is_some());
        wanted.extend(keyed.map(|one| one.id));
        Ok(Snapshot {
            meta: self.meta.clone(),
            submissions: wanted
                .iter()
                .filter_map(|id| self.submissions.get(id).cloned())
                .collect(),
            jobs: self.unfinished().cloned().collect(),
            builders: self.builders.values().cloned().collect(),
            agents: self.agents.values().cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
        })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        let doubled = changes.iter().find_map(|change| match change {
            Change::Ledger(entry) if self.ledger.contains_key(&entry.seq) => Some(entry.seq),
            Change::Ledger(_)
            | Change::Meta(_)
            | Change::Submission(_)
            | Change::Job(_)
            | Change::Spec { .. }
            | Change::Attempt(_)
            | Change::Artifacts { .. }
            | Change::Builder(_)
            | Change::BuilderRemoved(_)
            | Change::Agent(_)
            | Change::AgentRemoved(_)
            | Change::Token(_) => None,
        });
        if let Some(seq) = doubled {
            let why = format!("ledger entry {seq} was given out twice");
            return Err(CommitError::Unknown { why });
        }
        for change in changes {
            self.take(change);
        }
        Ok(())
    }
}
