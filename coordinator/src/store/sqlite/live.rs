//! A job that is being worked on, in two rows: what seldom changes in `job`,
//! and its live attempt in `live`. Owns which of them a change writes, and that
//! a reader sees one record.
//!
//! Invariant: a row in `live` stands for a live attempt, whatever the row in
//! `job` says of the state; without one the row in `job` tells all.

use std::collections::BTreeMap;

use farmbell_farm::record::{AttemptRecord, JobRecord, JobState};
use farmbell_protocol::id::JobId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::bits;
use crate::store::StoreError;
use crate::store::record::{decode, encode};

/// The newest attempt number of the generation (of an attempt that was adopted
/// again it is not the live one's), and the attempt.
pub(super) type LiveRow = (u16, Box<AttemptRecord>);

/// The rows in `live`, each with what is known of the job's row beside it: a
/// report changes the attempt alone, and what was written a moment ago need
/// not be read again to know that. Few, where jobs are many.
///
/// Of the open transaction: whoever rolls it back has to make a new one.
#[derive(Debug)]
pub(super) struct Live(BTreeMap<JobId, Option<Box<JobRecord>>>);

impl Live {
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("SELECT job FROM live")?;
        let jobs = statement.query_map([], |row| row.get::<_, i64>(0))?;
        let unknown = jobs.map(|job| Ok((JobId(job?.cast_unsigned()), None)));
        unknown.collect::<rusqlite::Result<_>>().map(Self)
    }

    /// Writes the attempt; says whether the row in `job` has to be written too.
    pub(super) fn write(
        &mut self,
        to: &Connection,
        job: &JobRecord,
        attempt: &AttemptRecord,
        scratch: &mut Vec<u8>,
    ) -> rusqlite::Result<bool> {
        encode(&(job.attempt_number, attempt), scratch);
        to.prepare_cached(
            "INSERT INTO live (job, record) VALUES (?1, ?2)
             ON CONFLICT (job) DO UPDATE SET record = ?2",
        )?
        .execute(params![bits(job.id.0), &*scratch])?;
        let known = self.0.entry(job.id).or_default();
        if known.is_none() {
            *known = stored(to, job.id)?;
        }
        if known.as_mut().is_some_and(|row| tells_the_rest(row, job)) {
            return Ok(false);
        }
        *known = Some(Box::new(job.clone()));
        Ok(true)
    }

    /// The job has no live attempt any more.
    pub(super) fn remove(&mut self, from: &Connection, job: JobId) -> rusqlite::Result<()> {
        if self.0.remove(&job).is_some() {
            from.prepare_cached("DELETE FROM live WHERE job = ?1")?
                .execute(params![bits(job.0)])?;
        }
        Ok(())
    }
}

/// A row that cannot be read is none: it is written anew.
fn stored(from: &Connection, job: JobId) -> rusqlite::Result<Option<Box<JobRecord>>> {
    from.prepare_cached("SELECT record FROM job WHERE id = ?1")?
        .query_row(params![bits(job.0)], |row| {
            Ok(decode("job", row.get_ref(0)?.as_blob()?).ok())
        })
        .optional()
        .map(Option::flatten)
}

/// Whether nothing but the attempt is news. The row of a finished job has to
/// say that it is not.
fn tells_the_rest(row: &mut JobRecord, job: &JobRecord) -> bool {
    if matches!(row.state, JobState::Done(_)) {
        return false;
    }
    row.attempt_number = job.attempt_number;
    row.state.clone_from(&job.state);
    row == job
}

/// A job as it lies in the store, read as `job.record, live.record`.
pub(super) struct Rows {
    job: Vec<u8>,
    live: Option<Vec<u8>>,
}

impl Rows {
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            job: row.get(0)?,
            live: row.get(1)?,
        })
    }

    pub(super) fn decode(&self) -> Result<JobRecord, StoreError> {
        let mut job = decode("job", &self.job)?;
        if let Some(live) = &self.live {
            put(&mut job, decode("live", live)?);
        }
        Ok(job)
    }
}

/// The live attempts of all jobs: few, where jobs are many.
pub(super) struct All(BTreeMap<JobId, LiveRow>);

impl All {
    pub(super) fn from(rows: Vec<LiveRow>) -> Self {
        Self(rows.into_iter().map(|row| (row.1.id.job, row)).collect())
    }

    /// Makes one record of both rows.
    pub(super) fn join(&mut self, job: &mut JobRecord) {
        if let Some(live) = self.0.remove(&job.id) {
            put(job, live);
        }
    }
}

fn put(job: &mut JobRecord, (attempt_number, attempt): LiveRow) {
    job.attempt_number = attempt_number;
    job.state = JobState::Live(attempt);
}
