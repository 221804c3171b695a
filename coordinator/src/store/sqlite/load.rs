//! What a start reads. Owns the SQL of [`Snapshot`]; history is not touched.

use farmbell_farm::record::Snapshot;
use rusqlite::{Connection, OptionalExtension};
use serde::de::DeserializeOwned;

use crate::store::StoreError;
use crate::store::record::decode;

pub(super) fn snapshot(from: &Connection, path: &str) -> Result<Snapshot, StoreError> {
    let meta = from
        .query_row("SELECT record FROM meta", [], |row| {
            row.get::<_, Vec<u8>>(0)
        })
        .optional()
        .map_err(|error| StoreError::failed(path, &error))?
        .map(|bytes| decode("meta", &bytes))
        .transpose()?;
    let mut jobs: Vec<farmbell_farm::record::JobRecord> = all(
        from,
        path,
        "job",
        "SELECT record FROM job INDEXED BY job_unfinished WHERE standing < 2",
    )?;
    jobs.sort_unstable_by_key(|job| job.id);
    Ok(Snapshot {
        meta,
        submissions: all(
            from,
            path,
            "submission",
            "SELECT record FROM submission WHERE id IN (
                 SELECT id FROM submission INDEXED BY submission_keyed WHERE keyed = 1
                 UNION SELECT submission FROM job INDEXED BY job_unfinished WHERE standing < 2)
             ORDER BY id",
        )?,
        jobs,
        dependents: all(
            from,
            path,
            "job",
            "SELECT record FROM job WHERE id IN (SELECT job FROM dependent) ORDER BY id",
        )?,
        packages: all(from, path, "package", "SELECT record FROM package")?,
        builders: all(
            from,
            path,
            "builder",
            "SELECT record FROM builder ORDER BY id",
        )?,
        agents: all(from, path, "agent", "SELECT record FROM agent ORDER BY id")?,
        tokens: all(from, path, "token", "SELECT record FROM token ORDER BY id")?,
    })
}

fn all<T: DeserializeOwned>(
    from: &Connection,
    path: &str,
    record: &'static str,
    sql: &str,
) -> Result<Vec<T>, StoreError> {
    let failed = |error: rusqlite::Error| StoreError::failed(path, &error);
    let mut statement = from.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let bytes = row
            .get_ref(0)
            .and_then(|value| value.as_blob().map_err(Into::into))
            .map_err(failed)?;
        records.push(decode(record, bytes)?);
    }
    Ok(records)
}
