//! What a store keeps of a farm's changes, in memory.

use std::collections::BTreeSet;

use super::*;
use crate::record::{BulkRecord, DurationRecord, PackageKey, PackageRecord};

/// What a store keeps.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) meta: Option<Meta>,
    pub(crate) jobs: BTreeMap<JobId, JobRecord>,
    pub(crate) attempts: BTreeMap<AttemptId, AttemptRecord>,
    pub(crate) builders: BTreeMap<u32, BuilderRecord>,
    pub(crate) agents: BTreeMap<u32, AgentRecord>,
    pub(crate) tokens: BTreeMap<u64, TokenRecord>,
    pub(crate) submissions: Vec<SubmissionRecord>,
    pub(crate) ledger: Vec<LedgerEntry>,
    pub(crate) waits: BTreeSet<JobId>,
    pub(crate) packages: BTreeMap<PackageKey, PackageRecord>,
    pub(crate) bulk: BTreeMap<u64, BulkRecord>,
    pub(crate) durations: BTreeMap<(Text<128>, Name), DurationRecord>,
}

impl Store {
    pub(super) fn commit(&mut self, change: Change) {
        match change {
            Change::Meta(meta) => self.meta = Some(meta),
            Change::Submission(record) => self.submissions.push(record),
            Change::Job(record) => {
                if let Some(JobState::Done(before)) = self.jobs.get(&record.id).map(|j| &j.state)
                    && self.jobs[&record.id].generation == record.generation
                    && JobState::Done(before.clone()) != record.state
                {
                    panic!("I3: {before:?} is overwritten by {record:?}");
                }
                self.jobs.insert(record.id, *record);
            }
            Change::Spec { .. } | Change::Artifacts { .. } => {}
            Change::Attempt(record) => {
                self.attempts.insert(record.id, *record);
            }
            Change::Builder(record) => {
                self.builders.insert(record.id.0, *record);
            }
            Change::BuilderRemoved(id) => {
                self.builders.remove(&id.0);
            }
            Change::Agent(record) => {
                self.agents.insert(record.id.0, *record);
            }
            Change::AgentRemoved(id) => {
                self.agents.remove(&id.0);
            }
            Change::Token(record) => {
                self.tokens.insert(record.id, record);
            }
            Change::Waits(job) => {
                self.waits.insert(job);
            }
            Change::WaitOver(job) => {
                self.waits.remove(&job);
            }
            Change::Package(record) => {
                self.packages.insert(record.key.clone(), *record);
            }
            Change::Duration(record) => {
                let key = (record.name.clone(), record.architecture.clone());
                self.durations.insert(key, *record);
            }
            Change::PackageForgotten(key) => {
                self.packages.remove(&key);
            }
            Change::Bulk(record) => {
                self.bulk.insert(record.id, *record);
            }
            Change::BulkOver(id) => {
                self.bulk.remove(&id);
            }
            Change::Ledger(entry) => {
                // The oldest may be retired, all of them in a short story.
                if let Some(last) = self.ledger.last() {
                    assert_eq!(entry.seq, last.seq + 1, "the ledger has no gaps");
                }
                self.ledger.push(entry);
            }
            Change::SubmissionRetired { submission, jobs } => {
                self.submissions.retain(|one| one.id != submission);
                self.jobs.retain(|job, _| !jobs.contains(job));
                self.attempts
                    .retain(|attempt, _| !jobs.contains(&attempt.job));
            }
            Change::LedgerRetired { up_to } => self.ledger.retain(|entry| entry.seq > up_to),
        }
    }

    pub(crate) fn snapshot(&self) -> (Snapshot, Vec<JobRecord>) {
        let snapshot = Snapshot {
            meta: self.meta.clone(),
            submissions: self.submissions.clone(),
            dependents: self
                .waits
                .iter()
                .map(|job| self.jobs[job].clone())
                .collect(),
            packages: self.packages.values().cloned().collect(),
            bulk: self.bulk.values().cloned().collect(),
            durations: self.durations.values().cloned().collect(),
            builders: self.builders.values().cloned().collect(),
            agents: self.agents.values().cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
        };
        let unfinished = self
            .jobs
            .values()
            .filter(|job| !matches!(job.state, JobState::Done(_)));
        (snapshot, unfinished.cloned().collect())
    }

    pub(crate) fn kinds(&self) -> Vec<LedgerKind> {
        self.ledger.iter().map(|entry| entry.kind).collect()
    }
}
