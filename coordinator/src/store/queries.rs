//! Reads for people and programs, beside the writer. Owns the questions that
//! HTTP may ask of a store. What is answered is committed, never pending.

use std::collections::BTreeSet;
use std::sync::Arc;

use farmbell_farm::effect::{Look, Search};
use farmbell_farm::event::{Aged, Found};
use farmbell_farm::record::{AttemptRecord, JobRecord, LedgerEntry, SubmissionRecord};
use farmbell_protocol::bounded::Name;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AttemptId, IdPrefix, JobId, SubmissionId};
use farmbell_protocol::spec::{JobSpec, Output};
use farmbell_protocol::time::Wall;

use super::StoreError;

/// A read that failed; the reason is the store's.
pub type QueryError = StoreError;

/// Which jobs a list shows, newest first. All fields narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub standing: Option<JobStanding>,
    pub owner: Option<Name>,
    pub submission: Option<SubmissionId>,
    /// Only jobs numbered below this one: the place after the last page.
    pub before: Option<JobId>,
}

/// Where a job stands, as lists are filtered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStanding {
    Waiting,
    Live,
    Done,
}

/// Blocking reads on connections of their own: call them off the async
/// threads.
pub trait Queries: Send + Sync {
    /// At most `limit` jobs, newest first.
    ///
    /// # Errors
    /// If the store cannot be read; the same for every method here.
    fn jobs(&self, filter: &JobFilter, limit: u32) -> Result<Vec<JobRecord>, QueryError>;

    fn job(&self, job: JobId) -> Result<Option<JobRecord>, QueryError>;

    /// At most `limit` jobs whose shown id begins so, newest first.
    fn jobs_by_prefix(&self, prefix: IdPrefix, limit: u32) -> Result<Vec<JobId>, QueryError>;

    fn submission(&self, submission: SubmissionId) -> Result<Option<SubmissionRecord>, QueryError>;

    /// The attempts of a job that are over, oldest first; a live one stands in
    /// its [`JobRecord`].
    fn attempts(&self, job: JobId) -> Result<Vec<AttemptRecord>, QueryError>;

    /// What an attempt produced, once all of it is durable.
    fn artifacts(&self, attempt: AttemptId) -> Result<Option<Vec<Output>>, QueryError>;

    fn spec(&self, job: JobId) -> Result<Option<Arc<JobSpec>>, QueryError>;

    /// At most `limit` entries numbered above `after`, in order.
    fn ledger(&self, after: u64, limit: u32) -> Result<Vec<LedgerEntry>, QueryError>;

    /// The number of the newest ledger entry, 0 before the first.
    fn ledger_end(&self) -> Result<u64, QueryError>;

    fn has_job(&self, job: JobId) -> Result<bool, QueryError>;

    /// The highest number of a job that was retired.
    fn retired(&self) -> Result<JobId, QueryError>;

    /// What has grown old, as much as one step takes.
    fn aged(&self, look: &Look) -> Result<Aged, QueryError>;

    /// Finished jobs that a bulk operation means, as much as one step takes.
    fn search(&self, search: &Search) -> Result<Found, QueryError>;

    /// The files that records speak of. Reads all of the history.
    fn mentions(&self) -> Result<Mentions, QueryError>;
}

/// What records say of files, read while commits went on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    pub blobs: BTreeSet<Digest>,
    /// When the oldest attempt that may still deliver was assigned: what has
    /// come since is perhaps spoken of by no record yet.
    pub oldest_attempt: Option<Wall>,
}
