//! The shape of the database and the way to it from older ones. Owns the
//! migrations: forward only, each one transaction, so that a crash leaves the
//! old schema whole or the new one.

use rusqlite::Connection;

use super::StoreError;

/// Each brings the schema from the number before to its own; never edited once
/// released.
const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("migrations/0001.sql"))];

/// "farm" in ASCII: tells the file apart from other databases.
const APPLICATION_ID: i32 = 0x6661_726d;

/// The schema that this program writes.
pub const CURRENT: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Brings an open database to [`CURRENT`].
pub(super) fn migrate(connection: &mut Connection, path: &str) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::failed(path, &error);
    let found = version(connection).map_err(failed)?;
    if found > CURRENT {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            known: CURRENT,
        });
    }
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
