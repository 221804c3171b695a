//! The shape of the database and the way to it from older ones. Owns the
//! migrations: forward only, each one transaction, so that a crash leaves the
//! old schema whole or the new one.

use rusqlite::Connection;

use super::StoreError;

/// Each brings the schema from the number before to its own; never edited once
/// released.
const MIGRATIONS: &[(u32, &str)] = &[
    (1, include_str!("migrations/0001.sql")),
    (2, include_str!("migrations/0002.sql")),
    (3, include_str!("migrations/0003.sql")),
];

/// "farm" in ASCII: tells the file apart from other databases.
const APPLICATION_ID: i32 = 0x6661_726d;

/// The schema that this program writes.
pub const CURRENT: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// The schema of an open database, before anything is written to it.
pub(super) fn found(connection: &Connection, path: &str) -> Result<u32, StoreError> {
    let failed = |error: rusqlite::Error| StoreError::failed(path, &error);
    let found = version(connection).map_err(failed)?;
    if is_foreign(connection, found).map_err(failed)? {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
        });
    }
    if found > CURRENT {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            known: CURRENT,
        });
    }
    Ok(found)
}

/// Brings an open database from the schema that was found to [`CURRENT`].
pub(super) fn migrate(
    connection: &mut Connection,
    found: u32,
    path: &str,
) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::failed(path, &error);
    for (number, sql) in MIGRATIONS.iter().filter(|(number, _)| *number > found) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(sql).map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", number)
            .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
            .and_then(|()| transaction.commit())
            .map_err(failed)?;
        tracing::info!(path, schema = number, "store brought to a newer schema");
    }
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// A database without our mark, unless it is a new, empty one.
fn is_foreign(connection: &Connection, found: u32) -> rusqlite::Result<bool> {
    let mark: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(mark != APPLICATION_ID && (found > 0 || tables > 0))
}
