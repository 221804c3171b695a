//! The durable farm. Owns the contract of every store: [`Store`] is the one
//! writer, [`Queries`] reads beside it. Never decides anything: records come
//! from the farm and go back to it whole.
//!
//! Invariant: a commit is all of a batch or nothing of it, and it is on the
//! disk when it returns.

mod queries;
mod record;
mod schema;
mod sqlite;

pub use queries::{JobFilter, JobStanding, Mentions, Queries, QueryError};
pub use schema::CURRENT as SCHEMA;
pub use sqlite::{Audit, Sqlite, SqliteReader};

use farmbell_farm::record::{Change, JobRecord, Snapshot};

/// The one writer of a farm's records.
pub trait Store: Send {
    /// What the farm needs to go on, beside its unfinished jobs.
    ///
    /// # Errors
    /// If the store cannot be read or holds something that is not a record.
    fn load(&mut self) -> Result<Snapshot, StoreError>;

    /// Gives every unfinished job, in the order of their numbers.
    ///
    /// # Errors
    /// As [`load`](Self::load); what was given before is not to be used then.
    fn jobs(&mut self, give: &mut dyn FnMut(JobRecord)) -> Result<(), StoreError>;

    /// Makes all changes durable in one transaction.
    ///
    /// # Errors
    /// [`CommitError::Full`] and [`CommitError::Busy`]: nothing was changed,
    /// the same changes may be committed again. [`CommitError::Unknown`]:
    /// nobody knows, so the process has to end and start from the store.
    fn commit(&mut self, changes: &[Change]) -> Result<(), CommitError>;
}

/// Why a commit did not succeed, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("the disk of the store is full: {why}")]
    Full { why: String },
    #[error("another process holds the store: {why}")]
    Busy { why: String },
    #[error("a commit failed and its outcome is unknown: {why}")]
    Unknown { why: String },
}

/// Why a store cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the store {path} has schema {found}, this program knows up to {known}; \
         start the version that wrote it, or a newer one"
    )]
    NewerSchema {
        path: String,
        found: u32,
        known: u32,
    },
    #[error("{path} is a database of something else; name another state directory")]
    Foreign { path: String },
    #[error(
        "a {record} record of the store is damaged: {why}; run `farmbell-coordinator check`, \
         and restore a backup if it confirms this"
    )]
    Damaged { record: &'static str, why: String },
    #[error("the store {path} failed: {why}")]
    Failed { path: String, why: String },
}
