//! Floors of the disk: one fsync, one durable commit.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use rusqlite::Connection;

use super::sample::Samples;

/// Appends 4 KiB and syncs, `runs` times.
///
/// # Errors
/// If `dir` cannot be written.
pub fn fsyncs(dir: &Path, runs: usize) -> anyhow::Result<Samples> {
    let path = dir.join("floor-fsync");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut samples = Samples::default();
    for _ in 0..runs {
        samples.time(|| {
            file.write_all(&[7; 4096])?;
            Ok(file.sync_data()?)
        })?;
    }
    std::fs::remove_file(path)?;
    Ok(samples)
}

/// Commits one row of 300 bytes the way the store does, `runs` times.
///
/// # Errors
/// If `dir` cannot be written.
pub fn commits(dir: &Path, runs: usize) -> anyhow::Result<Samples> {
    let path = dir.join("floor-commit.db");
    let db = Connection::open(&path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let mut samples = Samples::default();
    for _ in 0..runs {
        samples.time(|| Ok(db.execute("INSERT INTO t (body) VALUES (?1)", [[7u8; 300]])?))?;
    }
    drop(db);
    for end in ["", "-wal", "-shm"] {
        let file = dir.join(format!("floor-commit.db{end}"));
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    Ok(samples)
}
