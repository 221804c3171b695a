//! Reads every record there is, for `check`. Owns what counts as damage of the
//! database; which files it speaks of is for others to look after.

use std::collections::BTreeMap;

use farmbell_farm::record::{
    AgentRecord, AttemptRecord, BuilderRecord, BulkRecord, DurationRecord, JobRecord, LedgerEntry,
    Meta, PackageRecord, SubmissionRecord, TokenRecord,
};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AttemptId, JobId};
use farmbell_protocol::spec::{JobSpec, Output};
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::{SqliteReader, live};
use crate::store::QueryError;
use crate::store::record::decode;

/// What a database says, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub records: u64,
    pub problems: Vec<String>,
    /// Blobs that records speak of, with their lengths.
    pub blobs: BTreeMap<Digest, u64>,
    /// Closed logs, with their lengths.
    pub logs: Vec<(AttemptId, u64)>,
}

impl SqliteReader {
    /// Reads everything. Blocks for long on a large farm; commits go on.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub fn audit(&self) -> Result<Audit, QueryError> {
        self.with(|from| {
            let mut audit = Audit::default();
            audit.integrity(from)?;
            audit.each(from, "meta", |_, _: Meta| {})?;
            audit.each(from, "submission", |_, _: SubmissionRecord| {})?;
            audit.each(from, "job", |audit, job: JobRecord| {
                job.lost.iter().for_each(|attempt| audit.attempt(attempt));
            })?;
            audit.live(from)?;
            audit.each(from, "spec", |audit, spec: JobSpec| audit.inputs(&spec))?;
            audit.each(from, "attempt", |audit, attempt: AttemptRecord| {
                audit.attempt(&attempt);
            })?;
            audit.each(from, "artifacts", |audit, outputs: Vec<Output>| {
                let blobs = outputs.iter().map(|output| (output.digest, output.length));
                audit.blobs.extend(blobs);
            })?;
            audit.each(from, "package", |_, _: PackageRecord| {})?;
            audit.each(from, "bulk", |_, _: BulkRecord| {})?;
            audit.each(from, "duration", |_, _: DurationRecord| {})?;
            audit.each(from, "builder", |_, _: BuilderRecord| {})?;
            audit.each(from, "agent", |_, _: AgentRecord| {})?;
            audit.each(from, "token", |_, _: TokenRecord| {})?;
            audit.ledger(from)?;
            Ok(audit)
        })
    }
}

impl Audit {
    fn integrity(&mut self, from: &Connection) -> rusqlite::Result<()> {
        let mut statement = from.prepare("PRAGMA integrity_check")?;
        let mut lines = statement.query([])?;
        while let Some(line) = lines.next()? {
            let line: String = line.get(0)?;
            if line != "ok" {
                self.problems.push(format!("database: {line}"));
            }
        }
        Ok(())
    }

    fn each<T: DeserializeOwned>(
        &mut self,
        from: &Connection,
        table: &'static str,
        mut see: impl FnMut(&mut Self, T),
    ) -> rusqlite::Result<()> {
        let mut statement = from.prepare(&format!("SELECT record FROM {table}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.records += 1;
            match decode(table, row.get_ref(0)?.as_blob()?) {
                Ok(record) => see(self, record),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        Ok(())
    }

    fn ledger(&mut self, from: &Connection) -> rusqlite::Result<()> {
        // The oldest entries may be retired; from there on there is no gap.
        let mut last = None;
        self.each(from, "ledger", |audit, entry: LedgerEntry| {
            if let Some(last) = last.filter(|last| entry.seq != last + 1) {
                let problem = format!("ledger: {} follows {last}", entry.seq);
                audit.problems.push(problem);
            }
            last = Some(entry.seq);
        })
    }

    fn live(&mut self, from: &Connection) -> rusqlite::Result<()> {
        self.each(from, "live", |_, _: live::LiveRow| {})?;
        let mut statement = from.prepare(
            "SELECT live.job FROM live LEFT JOIN job ON job.id = live.job
             WHERE job.id IS NULL OR job.standing = 2",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let job = JobId(row.get::<_, i64>(0)?.cast_unsigned());
            let problem = format!("live: an attempt of job {job}, which is over or not there");
            self.problems.push(problem);
        }
        Ok(())
    }

    fn inputs(&mut self, spec: &JobSpec) {
        let blobs = spec.inputs.iter().map(|input| (input.digest, input.length));
        self.blobs.extend(blobs);
    }

    fn attempt(&mut self, attempt: &AttemptRecord) {
        if let Some(sealed) = attempt.sealed.as_ref().filter(|_| attempt.collected) {
            self.blobs.insert(sealed.manifest, sealed.manifest_bytes);
        }
        if let Some(length) = attempt.log_closed {
            self.logs.push((attempt.id, length));
        }
    }
}
