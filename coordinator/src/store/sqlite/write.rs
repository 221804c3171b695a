//! One change as one statement. Owns the SQL that writes.

use farmbell_farm::record::{
    Change, DurationRecord, JobRecord, JobState, PackageKey, PackageRecord, SubmissionRecord,
};
use farmbell_protocol::id::{AttemptId, JobId, SubmissionId};
use rusqlite::{Connection, Params, params};
use serde::Serialize;

use super::bits;
use super::live::Live;
use crate::store::record::encode;

/// [`JobState`] as the column `standing` has it.
pub(super) const WAITING: u8 = 0;
pub(super) const LIVE: u8 = 1;
pub(super) const DONE: u8 = 2;

const WAITS: &str = "INSERT INTO dependent (job) VALUES (?1) ON CONFLICT (job) DO NOTHING";
const WAIT_OVER: &str = "DELETE FROM dependent WHERE job = ?1";
const BULK: &str = "INSERT INTO bulk (id, record) VALUES (?1, ?2)
     ON CONFLICT (id) DO UPDATE SET record = ?2";
const BULK_OVER: &str = "DELETE FROM bulk WHERE id = ?1";
const LEDGER_RETIRED: &str = "DELETE FROM ledger WHERE seq <= ?1";
const PACKAGE_FORGOTTEN: &str = "DELETE FROM package
     WHERE name = ?1 AND architecture = ?2 AND suite = ?3 AND owner = ?4";

pub(super) fn change(
    to: &Connection,
    change: &Change,
    live: &mut Live,
    scratch: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    match change {
        Change::Meta(meta) => only(to, meta, scratch),
        Change::Submission(submission) => write_submission(to, submission, scratch),
        Change::Job(job) => write_job(to, job, live, scratch),
        Change::Spec { job, spec } => {
            encode(&**spec, scratch);
            let sql = "INSERT INTO spec (job, record) VALUES (?1, ?2)
                 ON CONFLICT (job) DO UPDATE SET record = ?2";
            run(to, sql, params![bits(job.0), &*scratch])
        }
        Change::Attempt(attempt) => {
            encode(&**attempt, scratch);
            let sql = "INSERT INTO attempt (job, generation, number, nonce, record)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (job, generation, number, nonce) DO UPDATE SET record = ?5";
            of_attempt(to, sql, attempt.id, scratch)
        }
        Change::Artifacts { attempt, outputs } => {
            encode(&**outputs, scratch);
            let sql = "INSERT INTO artifacts (job, generation, number, nonce, record)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (job, generation, number, nonce) DO UPDATE SET record = ?5";
            of_attempt(to, sql, *attempt, scratch)
        }
        Change::Builder(builder) => by_id(
            to,
            "INSERT INTO builder (id, record) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET record = ?2",
            u64::from(builder.id.0),
            &**builder,
            scratch,
        ),
        Change::BuilderRemoved(id) => run(to, "DELETE FROM builder WHERE id = ?1", params![id.0]),
        Change::Agent(agent) => by_id(
            to,
            "INSERT INTO agent (id, record) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET record = ?2",
            u64::from(agent.id.0),
            &**agent,
            scratch,
        ),
        Change::AgentRemoved(id) => run(to, "DELETE FROM agent WHERE id = ?1", params![id.0]),
        Change::Token(token) => by_id(
            to,
            "INSERT INTO token (id, record) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET record = ?2",
            token.id,
            token,
            scratch,
        ),
        Change::Waits(job) => run(to, WAITS, params![bits(job.0)]),
        Change::WaitOver(job) => run(to, WAIT_OVER, params![bits(job.0)]),
        Change::Package(package) => write_package(to, package, scratch),
        Change::PackageForgotten(key) => run(to, PACKAGE_FORGOTTEN, key_columns(key)),
        Change::Bulk(bulk) => by_id(to, BULK, bulk.id, &**bulk, scratch),
        Change::BulkOver(id) => run(to, BULK_OVER, params![bits(*id)]),
        Change::Duration(duration) => write_duration(to, duration, scratch),
        // No upsert: a number given out twice is a defect that must not pass.
        Change::Ledger(entry) => by_id(
            to,
            "INSERT INTO ledger (seq, record) VALUES (?1, ?2)",
            entry.seq,
            entry,
            scratch,
        ),
        Change::SubmissionRetired { submission, jobs } => retire(to, *submission, jobs),
        Change::LedgerRetired { up_to } => run(to, LEDGER_RETIRED, params![bits(*up_to)]),
    }
}

fn retire(to: &Connection, submission: SubmissionId, jobs: &[JobId]) -> rusqlite::Result<()> {
    for job in jobs {
        for sql in [
            "DELETE FROM artifacts WHERE job = ?1",
            "DELETE FROM attempt WHERE job = ?1",
            "DELETE FROM spec WHERE job = ?1",
            "DELETE FROM job WHERE id = ?1",
        ] {
            run(to, sql, params![bits(job.0)])?;
        }
    }
    let sql = "DELETE FROM submission WHERE id = ?1";
    run(to, sql, params![bits(submission.0)])
}

/// What is for everybody has no owner, which is no owner's name.
fn key_columns(key: &PackageKey) -> [&str; 4] {
    [
        key.name.as_str(),
        key.architecture.as_str(),
        key.suite.as_str(),
        key.owner.as_ref().map_or("", |owner| owner.as_str()),
    ]
}

pub(super) const fn standing(state: &JobState) -> u8 {
    match state {
        JobState::Waiting { .. } => WAITING,
        JobState::Live(_) => LIVE,
        JobState::Done(_) => DONE,
    }
}

fn write_job(
    to: &Connection,
    job: &JobRecord,
    live: &mut Live,
    scratch: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    match &job.state {
        JobState::Live(attempt) => {
            if !live.write(to, job, attempt, scratch)? {
                return Ok(());
            }
        }
        JobState::Waiting { .. } | JobState::Done(_) => live.remove(to, job.id)?,
    }
    encode(job, scratch);
    run(
        to,
        "INSERT INTO job (id, submission, standing, owner, record) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET standing = ?3, record = ?5",
        params![
            bits(job.id.0),
            bits(job.submission.0),
            standing(&job.state),
            job.owner.as_str(),
            &*scratch,
        ],
    )
}

fn write_duration(
    to: &Connection,
    duration: &DurationRecord,
    scratch: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    encode(duration, scratch);
    run(
        to,
        "INSERT INTO duration (name, architecture, record) VALUES (?1, ?2, ?3)
         ON CONFLICT (name, architecture) DO UPDATE SET record = ?3",
        params![
            duration.name.as_str(),
            duration.architecture.as_str(),
            &*scratch
        ],
    )
}

fn write_package(
    to: &Connection,
    package: &PackageRecord,
    scratch: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    encode(package, scratch);
    let [name, architecture, suite, owner] = key_columns(&package.key);
    run(
        to,
        "INSERT INTO package (name, architecture, suite, owner, record)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name, architecture, suite, owner) DO UPDATE SET record = ?5",
        params![name, architecture, suite, owner, &*scratch],
    )
}

fn write_submission(
    to: &Connection,
    submission: &SubmissionRecord,
    scratch: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    encode(submission, scratch);
    run(
        to,
        "INSERT INTO submission (id, keyed, record) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET keyed = ?2, record = ?3",
        params![bits(submission.id.0), submission.key.is_some(), &*scratch],
    )
}

fn only<T: Serialize>(to: &Connection, record: &T, scratch: &mut Vec<u8>) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (only, record) VALUES (?1, ?2)
         ON CONFLICT (only) DO UPDATE SET record = ?2";
    by_id(to, sql, 1, record, scratch)
}

fn by_id<T: Serialize>(
    to: &Connection,
    sql: &str,
    id: u64,
    record: &T,
    scratch: &mut Vec<u8>,
) -> rusqlite::Result<()> {
    encode(record, scratch);
    run(to, sql, params![bits(id), &*scratch])
}

fn of_attempt(
    to: &Connection,
    sql: &str,
    attempt: AttemptId,
    record: &[u8],
) -> rusqlite::Result<()> {
    let AttemptId {
        job,
        generation,
        number,
        nonce,
    } = attempt;
    run(
        to,
        sql,
        params![bits(job.0), generation, number, bits(nonce), record],
    )
}

fn run(to: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<()> {
    to.prepare_cached(sql)?.execute(values).map(|_rows| ())
}
