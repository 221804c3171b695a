//! What the coordinator's disk holds: whole records of committed transactions
//! and nothing else. Survives every crash of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use farmbell_farm::effect::Search;
use farmbell_farm::event::Found;
use farmbell_farm::record::{
    AgentRecord, AttemptRecord, BuilderRecord, BulkRecord, Change, DurationRecord, JobRecord,
    JobState, LedgerEntry, Meta, PackageKey, PackageRecord, Snapshot, SubmissionRecord,
    TokenRecord,
};
use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::id::{AgentId, AttemptId, BuilderId, JobId, Seq, SubmissionId};
use farmbell_protocol::spec::{JobSpec, Output};

/// Jobs that one search finds.
const SEARCH_STEP: usize = 3;

#[derive(Debug, Default)]
pub struct SimStore {
    pub(super) meta: Option<Meta>,
    pub(super) submissions: BTreeMap<SubmissionId, SubmissionRecord>,
    pub(super) jobs: BTreeMap<JobId, JobRecord>,
    pub(super) unfinished: BTreeSet<JobId>,
    /// Those that an agent has, by agent.
    live: BTreeMap<AgentId, BTreeSet<JobId>>,
    /// Unfinished ones with a silent attempt that may come back.
    pub(super) lost: BTreeSet<JobId>,
    pub(super) specs: BTreeMap<JobId, Arc<JobSpec>>,
    pub(super) attempts: BTreeMap<AttemptId, AttemptRecord>,
    pub(super) artifacts: BTreeMap<AttemptId, Arc<[Output]>>,
    pub(super) builders: BTreeMap<BuilderId, BuilderRecord>,
    pub(super) agents: BTreeMap<AgentId, AgentRecord>,
    tokens: BTreeMap<u64, TokenRecord>,
    /// Finished ones that wait for their dependencies.
    pub(super) dependents: BTreeSet<JobId>,
    packages: BTreeMap<PackageKey, PackageRecord>,
    bulk: BTreeMap<u64, BulkRecord>,
    durations: BTreeMap<(Text<128>, Name), DurationRecord>,
    pub(super) ledger: Vec<LedgerEntry>,
}

impl SimStore {
    /// Commits one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Meta(meta) => self.meta = Some(meta),
            Change::Submission(submission) => {
                self.submissions.insert(submission.id, submission);
            }
            Change::Job(job) => {
                self.index_live(&job);
                match job.state {
                    JobState::Waiting { .. } | JobState::Live(_) => {
                        self.unfinished.insert(job.id);
                    }
                    JobState::Done(_) => {
                        self.unfinished.remove(&job.id);
                    }
                }
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
            Change::BuilderRemoved(builder) => drop(self.builders.remove(&builder)),
            Change::Agent(agent) => {
                self.agents.insert(agent.id, *agent);
            }
            Change::AgentRemoved(agent) => {
                self.agents.remove(&agent);
            }
            Change::Token(token) => {
                self.tokens.insert(token.id, token);
            }
            Change::Waits(job) => {
                self.dependents.insert(job);
            }
            Change::WaitOver(job) => {
                self.dependents.remove(&job);
            }
            Change::Package(package) => {
                self.packages.insert(package.key.clone(), *package);
            }
            Change::Duration(record) => {
                let key = (record.name.clone(), record.architecture.clone());
                self.durations.insert(key, *record);
            }
            Change::PackageForgotten(key) => {
                self.packages.remove(&key);
            }
            Change::Bulk(bulk) => drop(self.bulk.insert(bulk.id, *bulk)),
            Change::BulkOver(id) => drop(self.bulk.remove(&id)),
            Change::Ledger(entry) => self.ledger.push(entry),
            Change::SubmissionRetired { submission, jobs } => {
                self.submissions.remove(&submission);
                for job in jobs {
                    self.jobs.remove(&job);
                    self.specs.remove(&job);
                    self.attempts.retain(|attempt, _| attempt.job != job);
                    self.artifacts.retain(|attempt, _| attempt.job != job);
                }
            }
            Change::LedgerRetired { up_to } => self.ledger.retain(|entry| entry.seq > up_to),
        }
    }

    fn index_live(&mut self, job: &JobRecord) {
        if job.lost.is_empty() || matches!(job.state, JobState::Done(_)) {
            self.lost.remove(&job.id);
        } else {
            self.lost.insert(job.id);
        }
        let agent_of = |job: &JobRecord| match &job.state {
            JobState::Live(live) => Some(live.agent),
            JobState::Waiting { .. } | JobState::Done(_) => None,
        };
        let before = self.jobs.get(&job.id).and_then(agent_of);
        let now = agent_of(job);
        if before == now {
            return;
        }
        if let Some(jobs) = before.and_then(|agent| self.live.get_mut(&agent)) {
            jobs.remove(&job.id);
        }
        if let Some(agent) = now {
            self.live.entry(agent).or_default().insert(job.id);
        }
    }

    /// The jobs whose live attempt is this agent's.
    pub(super) fn live_of(&self, agent: AgentId) -> Vec<JobId> {
        let live = self.live.get(&agent);
        live.into_iter().flatten().copied().collect()
    }

    /// How many builders the coordinator knows of this agent.
    pub(super) fn builders_of(&self, agent: AgentId) -> usize {
        let builders = self.builders.values();
        builders.filter(|builder| builder.agent == agent).count()
    }

    /// What a starting coordinator reads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            meta: self.meta.clone(),
            submissions: self
                .submissions
                .values()
                .filter(|one| one.key.is_some())
                .cloned()
                .collect(),
            dependents: self.jobs_of(&self.dependents),
            packages: self.packages.values().cloned().collect(),
            bulk: self.bulk.values().cloned().collect(),
            durations: self.durations.values().cloned().collect(),
            builders: self.builders.values().cloned().collect(),
            agents: self.agents.values().cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
        }
    }

    /// Fewer at a time than the farm would take, so that small worlds see
    /// operations of many steps.
    pub(super) fn search(&self, search: &Search) -> Found {
        let place = (Bound::Excluded(search.after), Bound::Included(search.last));
        let jobs = self.jobs.range(place).map(|(_, job)| job);
        let meant = jobs.filter(|job| search.filter.means_finished(job));
        let jobs: Vec<JobRecord> = meant.take(SEARCH_STEP).cloned().collect();
        let last = jobs.last().map(|job| job.id);
        Found {
            after: search.after,
            next: last.filter(|_| jobs.len() == SEARCH_STEP),
            jobs,
        }
    }

    fn jobs_of(&self, ids: &BTreeSet<JobId>) -> Vec<JobRecord> {
        ids.iter()
            .filter_map(|job| self.jobs.get(job).cloned())
            .collect()
    }

    /// The jobs that a starting coordinator reads.
    pub fn unfinished(&self) -> impl Iterator<Item = JobRecord> + '_ {
        let jobs = self.unfinished.iter();
        jobs.filter_map(|job| self.jobs.get(job).cloned())
    }

    /// Up to where this attempt's reports are durable, if it is known at all.
    pub(super) fn acked(&self, attempt: AttemptId) -> Option<Seq> {
        let job = self.jobs.get(&attempt.job)?;
        let live = match &job.state {
            JobState::Live(live) => Some(live.as_ref()),
            JobState::Waiting { .. } | JobState::Done(_) => None,
        };
        live.into_iter()
            .chain(job.lost.iter())
            .chain(self.attempts.get(&attempt))
            .filter(|record| record.id == attempt)
            .map(|record| record.acked)
            .max()
    }
}
