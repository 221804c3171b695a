//! Reads for bulk operations on finished jobs, in bounded steps. Owns how much
//! of the history one of them looks through; whom a filter means the farm knows.

use farmbell_farm::effect::Search;
use farmbell_farm::event::Found;
use farmbell_farm::record::JobRecord;
use farmbell_protocol::id::{JobId, SubmissionId};
use rusqlite::{Connection, params};

use super::{SqliteReader, write};
use crate::store::record::decode;
use crate::store::{Queries as _, QueryError};

/// Jobs that one search looks at: some tens of milliseconds.
const SCAN_MAX: u32 = 10_000;

impl SqliteReader {
    pub(super) fn find_finished(&self, search: &Search) -> Result<Found, QueryError> {
        match search.filter.submission {
            Some(submission) => self.finished_of(submission, search),
            None => self.with(|from| scan(from, search))?,
        }
    }

    /// A submission has few jobs, and says which.
    fn finished_of(&self, of: SubmissionId, search: &Search) -> Result<Found, QueryError> {
        let mut found = Found {
            after: search.after,
            jobs: Vec::new(),
            next: None,
        };
        let submission = self.submission(of)?;
        for id in submission
            .iter()
            .flat_map(|submission| submission.jobs.iter())
        {
            if *id <= search.after || *id > search.last {
                continue;
            }
            let job = self.job(*id)?;
            found
                .jobs
                .extend(job.filter(|job| search.filter.means_finished(job)));
        }
        found.jobs.sort_unstable_by_key(|job| job.id);
        Ok(found)
    }
}

fn scan(from: &Connection, search: &Search) -> rusqlite::Result<Result<Found, QueryError>> {
    let mut found = Found {
        after: search.after,
        jobs: Vec::new(),
        next: None,
    };
    let places = [search.after, search.last].map(|id| i64::try_from(id.0).unwrap_or(i64::MAX));
    let mut statement = from.prepare_cached(
        "SELECT id, standing, record FROM job WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut rows = statement.query(params![places[0], places[1], SCAN_MAX])?;
    let mut looked_at = 0;
    let mut wanted = search.most;
    while let Some(row) = rows.next()? {
        looked_at += 1;
        let id: i64 = row.get(0)?;
        if row.get::<_, u8>(1)? == write::DONE {
            let job: JobRecord = match decode("job", row.get_ref(2)?.as_blob()?) {
                Ok(job) => job,
                Err(error) => return Ok(Err(error)),
            };
            if search.filter.means_finished(&job) {
                found.jobs.push(job);
                wanted = wanted.saturating_sub(1);
            }
        }
        if wanted == 0 || looked_at == SCAN_MAX {
            found.next = Some(JobId(id.cast_unsigned()));
            break;
        }
    }
    Ok(Ok(found))
}
