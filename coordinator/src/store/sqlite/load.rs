//! What a start reads. Owns the SQL of [`Snapshot`] and of unfinished jobs;
//! history is not touched.

use farmbell_farm::record::{JobRecord, KEYS_MAX, Snapshot};
use rusqlite::{Connection, Params, params};
use serde::de::DeserializeOwned;

use super::live;
use crate::store::StoreError;
use crate::store::record::decode;

pub(super) fn snapshot(from: &Connection, path: &str) -> Result<Snapshot, StoreError> {
    let reading = Reading { from, path };
    let mut submissions = reading.all(
        "submission",
        "SELECT record FROM submission WHERE id IN (
             SELECT id FROM submission INDEXED BY submission_keyed WHERE keyed = 1
             ORDER BY id DESC LIMIT ?1)
         ORDER BY id",
        params![i64::try_from(KEYS_MAX).unwrap_or(i64::MAX)],
    )?;
    submissions.shrink_to_fit();
    Ok(Snapshot {
        meta: reading.all("meta", "SELECT record FROM meta", [])?.pop(),
        submissions,
        dependents: reading.all(
            "job",
            "SELECT record FROM job WHERE id IN (SELECT job FROM dependent) ORDER BY id",
            [],
        )?,
        bulk: reading.all("bulk", "SELECT record FROM bulk ORDER BY id", [])?,
        durations: reading.all("duration", "SELECT record FROM duration", [])?,
        packages: reading.all("package", "SELECT record FROM package", [])?,
        builders: reading.all("builder", "SELECT record FROM builder ORDER BY id", [])?,
        agents: reading.all("agent", "SELECT record FROM agent ORDER BY id", [])?,
        tokens: reading.all("token", "SELECT record FROM token ORDER BY id", [])?,
    })
}

pub(super) fn jobs(
    from: &Connection,
    path: &str,
    give: &mut dyn FnMut(JobRecord),
) -> Result<(), StoreError> {
    let reading = Reading { from, path };
    let mut live = live::All::from(reading.all("live", "SELECT record FROM live", [])?);
    reading.each(
        "job",
        "SELECT record FROM job INDEXED BY job_unfinished WHERE standing < 2 ORDER BY id",
        [],
        &mut |mut job| {
            live.join(&mut job);
            give(job);
        },
    )
}

/// A database that is read for a start, and its name for complaints.
struct Reading<'a> {
    from: &'a Connection,
    path: &'a str,
}

impl Reading<'_> {
    fn all<T: DeserializeOwned>(
        &self,
        record: &'static str,
        sql: &str,
        values: impl Params,
    ) -> Result<Vec<T>, StoreError> {
        let mut records = Vec::new();
        self.each(record, sql, values, &mut |one| records.push(one))?;
        Ok(records)
    }

    fn each<T: DeserializeOwned>(
        &self,
        record: &'static str,
        sql: &str,
        values: impl Params,
        give: &mut dyn FnMut(T),
    ) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| StoreError::failed(self.path, &error);
        let mut statement = self.from.prepare(sql).map_err(failed)?;
        let mut rows = statement.query(values).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let bytes = row
                .get_ref(0)
                .and_then(|value| value.as_blob().map_err(Into::into))
                .map_err(failed)?;
            give(decode(record, bytes)?);
        }
        Ok(())
    }
}
