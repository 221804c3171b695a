//! Reads beside the writer, each on a connection that can only read. Owns a
//! few such connections; a read never holds a commit up, nor the other way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farmbell_farm::effect::{Look, Search};
use farmbell_farm::event::{Aged, Found};
use farmbell_farm::record::{AttemptRecord, JobRecord, LedgerEntry, Meta, SubmissionRecord};
use farmbell_protocol::id::{AttemptId, IdPrefix, JobId, SubmissionId};
use farmbell_protocol::spec::{JobSpec, Output};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, params};
use serde::de::DeserializeOwned;

use super::live::Rows;
use super::{bits, connect, write};
use crate::store::record::decode;
use crate::store::{JobFilter, JobStanding, Mentions, Queries, QueryError, StoreError};

/// Connections that stay open between reads: as many as pages are usually
/// made at the same time.
const IDLE_MAX: usize = 4;

/// Committed records, for people and programs.
#[derive(Debug)]
pub struct SqliteReader {
    path: PathBuf,
    // Held to take or give back a connection, never during a read.
    idle: Mutex<Vec<Connection>>,
}

impl SqliteReader {
    /// Reads of a file that another process may be writing.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::default(),
        }
    }

    /// A copy of the store at one moment; commits go on meanwhile. Durable when
    /// this returns. Blocks.
    ///
    /// # Errors
    /// If either file fails.
    pub fn copy_to(&self, path: &Path) -> Result<(), QueryError> {
        self.with(|from| {
            let mut to = Connection::open(path)?;
            // Everything in one step: a copy in pieces would begin anew at
            // every commit in between.
            let all_pages = -1;
            Backup::new(from, &mut to)?.step(all_pages)?;
            to.pragma_update(None, "synchronous", "FULL")?;
            to.close().map_err(|(_, error)| error)
        })
    }

    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, QueryError> {
        let connection = match self.idle().pop() {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
                .map_err(|error| self.failed(&error))?,
        };
        let result = read(&connection).map_err(|error| self.failed(&error));
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::failed(&self.path.display().to_string(), error)
    }

    pub(super) fn one<T: DeserializeOwned>(
        &self,
        record: &'static str,
        sql: &str,
        values: impl Params,
    ) -> Result<Option<T>, QueryError> {
        self.with(|from| {
            from.prepare_cached(sql)?
                .query_row(values, |row| row.get::<_, Vec<u8>>(0))
                .optional()
        })?
        .map(|bytes| decode(record, &bytes))
        .transpose()
    }

    pub(super) fn many<T: DeserializeOwned>(
        &self,
        record: &'static str,
        sql: &str,
        values: impl Params,
    ) -> Result<Vec<T>, QueryError> {
        self.with(|from| {
            from.prepare_cached(sql)?
                .query_map(values, |row| row.get::<_, Vec<u8>>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?
        .iter()
        .map(|bytes| decode(record, bytes))
        .collect()
    }

    fn jobs_of(
        &self,
        submission: SubmissionId,
        filter: &JobFilter,
        limit: u32,
    ) -> Result<Vec<JobRecord>, QueryError> {
        let Some(submission) = self.submission(submission)? else {
            return Ok(Vec::new());
        };
        let mut jobs = Vec::new();
        for job in submission.jobs.iter().rev() {
            if jobs.len() as u64 == u64::from(limit) {
                break;
            }
            jobs.extend(self.job(*job)?.filter(|job| fits(filter, job)));
        }
        Ok(jobs)
    }
}

impl Queries for SqliteReader {
    fn jobs(&self, filter: &JobFilter, limit: u32) -> Result<Vec<JobRecord>, QueryError> {
        if let Some(submission) = filter.submission {
            return self.jobs_of(submission, filter, limit);
        }
        let before = filter.before.map_or(i64::MAX, |job| bits(job.0));
        let standing = filter.standing.map(column);
        let owner = filter.owner.as_ref().map(|owner| owner.as_str());
        let rows: Vec<Rows> = self.with(|from| {
            from.prepare_cached(
                "SELECT job.record, live.record FROM job LEFT JOIN live ON live.job = job.id
                 WHERE id < ?1 AND (?3 IS NULL OR owner = ?3)
                 AND (?2 IS NULL OR iif(live.job IS NULL, standing, ?5) = ?2)
                 ORDER BY id DESC LIMIT ?4",
            )?
            .query_map(
                params![before, standing, owner, limit, write::LIVE],
                Rows::of,
            )?
            .collect()
        })?;
        rows.iter().map(Rows::decode).collect()
    }

    fn job(&self, job: JobId) -> Result<Option<JobRecord>, QueryError> {
        self.with(|from| {
            from.prepare_cached(
                "SELECT job.record, live.record FROM job LEFT JOIN live ON live.job = job.id
                 WHERE id = ?1",
            )?
            .query_row(params![bits(job.0)], Rows::of)
            .optional()
        })?
        .map(|rows| rows.decode())
        .transpose()
    }

    fn jobs_by_prefix(&self, prefix: IdPrefix, limit: u32) -> Result<Vec<JobId>, QueryError> {
        if let Some(number) = prefix.exact() {
            return Ok(self
                .job(JobId(number))?
                .map(|job| job.id)
                .into_iter()
                .collect());
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.with(|from| {
            let mut ids = from.prepare_cached("SELECT id FROM job ORDER BY id DESC")?;
            ids.query_map([], |row| row.get::<_, i64>(0))?
                .map(|id| id.map(i64::cast_unsigned))
                .filter(|id| !matches!(id, Ok(id) if !prefix.matches(*id)))
                .map(|id| id.map(JobId))
                .take(limit)
                .collect()
        })
    }

    fn submission(&self, submission: SubmissionId) -> Result<Option<SubmissionRecord>, QueryError> {
        let sql = "SELECT record FROM submission WHERE id = ?1";
        self.one("submission", sql, params![bits(submission.0)])
    }

    fn attempts(&self, job: JobId) -> Result<Vec<AttemptRecord>, QueryError> {
        let sql = "SELECT record FROM attempt WHERE job = ?1 ORDER BY generation, number";
        self.many("attempt", sql, params![bits(job.0)])
    }

    fn artifacts(&self, attempt: AttemptId) -> Result<Option<Vec<Output>>, QueryError> {
        let AttemptId {
            job,
            generation,
            number,
            nonce,
        } = attempt;
        self.one(
            "artifacts",
            "SELECT record FROM artifacts
             WHERE job = ?1 AND generation = ?2 AND number = ?3 AND nonce = ?4",
            params![bits(job.0), generation, number, bits(nonce)],
        )
    }

    fn spec(&self, job: JobId) -> Result<Option<Arc<JobSpec>>, QueryError> {
        let sql = "SELECT record FROM spec WHERE job = ?1";
        Ok(self.one("spec", sql, params![bits(job.0)])?.map(Arc::new))
    }

    fn ledger(&self, after: u64, limit: u32) -> Result<Vec<LedgerEntry>, QueryError> {
        let sql = "SELECT record FROM ledger WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        self.many("ledger", sql, params![bits(after), limit])
    }

    fn ledger_end(&self) -> Result<u64, QueryError> {
        self.with(|from| {
            from.prepare_cached("SELECT max(seq) FROM ledger")?
                .query_row([], |row| row.get::<_, Option<i64>>(0))
        })
        .map(|end| end.map_or(0, i64::cast_unsigned))
    }

    fn has_job(&self, job: JobId) -> Result<bool, QueryError> {
        self.with(|from| {
            from.prepare_cached("SELECT 1 FROM job WHERE id = ?1")?
                .exists(params![bits(job.0)])
        })
    }

    fn retired(&self) -> Result<JobId, QueryError> {
        let meta: Option<Meta> = self.one("meta", "SELECT record FROM meta", [])?;
        Ok(JobId(meta.map_or(0, |meta| meta.retired)))
    }

    fn aged(&self, look: &Look) -> Result<Aged, QueryError> {
        self.find_aged(look)
    }

    fn search(&self, search: &Search) -> Result<Found, QueryError> {
        self.find_finished(search)
    }

    fn mentions(&self) -> Result<Mentions, QueryError> {
        self.find_mentions()
    }
}

const fn column(standing: JobStanding) -> u8 {
    match standing {
        JobStanding::Waiting => write::WAITING,
        JobStanding::Live => write::LIVE,
        JobStanding::Done => write::DONE,
    }
}

/// The filter again, for jobs that were found by their submission.
fn fits(filter: &JobFilter, job: &JobRecord) -> bool {
    filter
        .standing
        .is_none_or(|standing| column(standing) == write::standing(&job.state))
        && filter
            .owner
            .as_ref()
            .is_none_or(|owner| *owner == job.owner)
        && filter.before.is_none_or(|before| job.id < before)
}
