//! The store in one SQLite file: write-ahead log, a flush at every commit.
//! Owns the connection that writes; there is one, on one thread. Reads for
//! people go by [`reader`] on connections of their own.

mod aged;
mod audit;
mod live;
mod load;
mod newest;
mod reader;
mod search;
mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use farmbell_farm::record::{Change, JobRecord, Snapshot};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

pub use audit::Audit;
pub use reader::SqliteReader;

use self::live::Live;
use super::{CommitError, Store, StoreError, schema};
use crate::failpoint::{self, Failpoint};

/// How long a commit waits for another process (a backup, a person's shell)
/// before it counts as busy.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// The writer's page cache. Small: what is written is hot in the log anyway.
const CACHE_KIB: i32 = 8 << 10;
/// Pages in the write-ahead log before a checkpoint: 16 MiB, so that the
/// flushes of a checkpoint come seldom.
const CHECKPOINT_PAGES: i32 = 4096;
/// What the log file is cut back to after a burst.
const LOG_BYTES_KEPT: i64 = 64 << 20;
/// Statements of one connection that stay compiled: all there are.
const STATEMENTS: usize = 32;

/// The writer.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// None after a commit that failed: to be read again.
    live: Option<Live>,
    scratch: Vec<u8>,
}

impl Sqlite {
    /// Opens the file, makes it if there is none, and brings it to the
    /// present schema.
    ///
    /// # Errors
    /// If it cannot be opened, is no farm's, or has a newer schema.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let failed = |error| StoreError::failed(&shown, &error);
        let mut connection = connect(path, OpenFlags::default()).map_err(failed)?;
        let found = schema::found(&connection, &shown)?;
        tuned(&connection).map_err(failed)?;
        schema::migrate(&mut connection, found, &shown)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            live: None,
            scratch: Vec::with_capacity(4096),
        })
    }

    /// Reads beside this writer.
    #[must_use]
    pub fn reader(&self) -> SqliteReader {
        SqliteReader::of(&self.path)
    }

    fn try_commit(&mut self, changes: &[Change]) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut live = match self.live.take() {
            Some(live) => live,
            None => Live::of(&transaction)?,
        };
        for change in newest::of(changes) {
            write::change(&transaction, change, &mut live, &mut self.scratch)?;
        }
        failpoint::pass(Failpoint::CommitOpen);
        transaction.commit()?;
        self.live = Some(live);
        Ok(())
    }
}

impl Store for Sqlite {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        load::snapshot(&self.connection, &self.path.display().to_string())
    }

    fn jobs(&mut self, give: &mut dyn FnMut(JobRecord)) -> Result<(), StoreError> {
        load::jobs(&self.connection, &self.path.display().to_string(), give)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        let Err(error) = self.try_commit(changes) else {
            return Ok(());
        };
        let why = error.to_string();
        // Dropping the transaction rolled back; if one is still open, nobody
        // knows what the next commit would carry along.
        if !self.connection.is_autocommit() {
            return Err(CommitError::Unknown { why });
        }
        Err(match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => CommitError::Full { why },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => CommitError::Busy { why },
            Some(_) | None => CommitError::Unknown { why },
        })
    }
}

impl StoreError {
    pub(super) fn failed(path: &str, error: &rusqlite::Error) -> Self {
        Self::Failed {
            path: path.to_owned(),
            why: error.to_string(),
        }
    }
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn tuned(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Numbers as SQLite keeps them: 64 bits with a sign, the same bits.
fn bits(number: u64) -> i64 {
    number.cast_signed()
}
