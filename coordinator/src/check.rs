//! `farmbell-coordinator check`: whether everything that the store speaks of
//! is there and is what it says. Reads only; may run beside the service.

use std::io::{self, Write};

use anyhow::bail;
use farmbell_protocol::digest::Digest;

use crate::blobs::{BlobError, Blobs};
use crate::logs::Logs;
use crate::statedir::StateDir;
use crate::store::{Audit, SqliteReader};

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every record, and the lengths of files.
    Lengths,
    /// Every byte of every blob as well.
    Bytes,
}

/// Prints each problem on a line of its own, then the sum.
///
/// # Errors
/// If the store cannot be read, or there are problems.
pub fn run(state: &StateDir, depth: Depth) -> anyhow::Result<()> {
    let audit = SqliteReader::of(&state.store()).audit()?;
    let problems = found(state, &audit, depth)?;
    let mut out = io::stdout().lock();
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    let (records, blobs, logs) = (audit.records, audit.blobs.len(), audit.logs.len());
    writeln!(out, "{records} records, {blobs} blobs, {logs} closed logs")?;
    if problems.is_empty() {
        return Ok(());
    }
    bail!(
        "{} problems; stop the coordinator, keep its state directory, and restore a backup: \
         farmbell-coordinator restore",
        problems.len()
    )
}

/// The problems alone, one line each.
///
/// # Errors
/// If the store cannot be read at all.
pub fn problems(state: &StateDir, depth: Depth) -> anyhow::Result<Vec<String>> {
    let audit = SqliteReader::of(&state.store()).audit()?;
    found(state, &audit, depth)
}

fn found(state: &StateDir, audit: &Audit, depth: Depth) -> anyhow::Result<Vec<String>> {
    let mut problems = audit.problems.clone();
    problems.extend(of_blobs(&Blobs::beside(&state.blobs()), audit, depth)?);
    problems.extend(of_logs(&Logs::beside(&state.logs()), audit)?);
    Ok(problems)
}

fn of_blobs(blobs: &Blobs, audit: &Audit, depth: Depth) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (digest, length) in &audit.blobs {
        match blobs.contains(*digest)? {
            None => problems.push(format!("blob {digest} is missing")),
            Some(found) if found != *length => {
                problems.push(format!("blob {digest} has {found} bytes, not {length}"));
            }
            Some(_) if depth == Depth::Bytes && !is_itself(blobs, *digest)? => {
                problems.push(format!("blob {digest} has other bytes than its name says"));
            }
            Some(_) => {}
        }
    }
    Ok(problems)
}

fn is_itself(blobs: &Blobs, digest: Digest) -> Result<bool, BlobError> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(blobs.read(digest)?)
        .map_err(BlobError::Source)?;
    Ok(*hasher.finalize().as_bytes() == digest.0)
}

fn of_logs(logs: &Logs, audit: &Audit) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (attempt, length) in &audit.logs {
        let found = logs.extent(*attempt)?.length;
        if found < *length {
            problems.push(format!("log of {attempt} has {found} bytes, not {length}"));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Sqlite;

    #[test]
    fn a_blob_that_is_missing_short_or_rotten_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().to_owned());
        Sqlite::open(&state.store()).unwrap();
        let blobs = Blobs::open(&state.blobs()).unwrap();
        run(&state, Depth::Bytes).unwrap();

        let good = blobs.put_reader(&b"good"[..], 9).unwrap();
        let rotten = blobs.put_reader(&b"rotten"[..], 9).unwrap();
        std::fs::write(blobs.path(rotten.digest), b"rOtten").unwrap();
        let short = blobs.put_reader(&b"short"[..], 9).unwrap();
        let missing = Digest::of(b"missing");
        let audit = Audit {
            blobs: [
                (good.digest, 4),
                (rotten.digest, 6),
                (short.digest, 99),
                (missing, 7),
            ]
            .into(),
            ..Audit::default()
        };
        assert_eq!(of_blobs(&blobs, &audit, Depth::Lengths).unwrap().len(), 2);
        let all = of_blobs(&blobs, &audit, Depth::Bytes).unwrap().join("\n");
        assert!(all.contains(&rotten.digest.to_string()), "{all}");
        assert!(!all.contains(&good.digest.to_string()), "{all}");
    }
}
