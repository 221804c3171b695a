//! Databases of every schema that was ever released, as text that any SQLite
//! reads: each opens here, is brought to the present schema, and says the same.
//!
//! Until the first release the newest one is written again where a record
//! changed its shape: `FARMBELL_WRITE_FIXTURE=1 cargo test -p farmbell-tests
//! --test store old`. After it a changed record is a new format
//! (`coordinator/src/store/record.rs`) and these files stay as they are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::slice;

use farmbell_coordinator::store::{Queries, SCHEMA, Sqlite, Store};
use farmbell_farm::record::{AttemptEnd, BrakeRecord, Change, Meta};
use farmbell_protocol::bounded::List;
use farmbell_protocol::id::{Epoch, JobId, SubmissionId};
use rusqlite::types::ValueRef;

use crate::contract::jobs_of;
use crate::records::{
    agent, attempt, attempt_id, builder, bulk, done, duration, entry, former_bulk, live, outputs,
    package, spec, submission, submit, text, token, waiting,
};

const TABLES: [&str; 14] = [
    "meta",
    "submission",
    "job",
    "spec",
    "attempt",
    "artifacts",
    "builder",
    "agent",
    "token",
    "dependent",
    "package",
    "bulk",
    "duration",
    "ledger",
];

fn fixture(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("store/fixtures/schema-{schema}.sql"))
}

fn meta() -> Meta {
    Meta {
        epoch: Epoch {
            counter: 4,
            random: u64::MAX,
        },
        job_floor: 3,
        ledger_floor: 1,
        brakes: List::new(vec![BrakeRecord {
            architecture: Some(text("riscv64")),
            least: 50,
        }])
        .unwrap(),
        ..Meta::default()
    }
}

fn history() -> Vec<Change> {
    let mut changes = submit(1);
    changes.extend([
        Change::Meta(meta()),
        Change::Job(Box::new(live(2))),
        Change::Job(Box::new(done(3))),
        Change::Submission(submission(3, Some("key"), &[3])),
        Change::Attempt(Box::new(attempt(3, Some(AttemptEnd::Verdict)))),
        Change::Artifacts {
            attempt: attempt_id(3),
            outputs: outputs(3),
        },
        Change::Builder(Box::new(builder(1))),
        Change::Agent(Box::new(agent(1))),
        Change::Token(token(1, 1)),
        Change::Waits(JobId(3)),
        Change::Package(Box::new(package("baz", None, 1))),
        Change::Bulk(Box::new(bulk())),
        Change::Duration(Box::new(duration("hello", 90))),
    ]);
    changes
}

/// The database as SQL text.
fn dump(path: &Path) -> String {
    let from = rusqlite::Connection::open(path).unwrap();
    let number = |pragma: &str| -> i64 {
        from.pragma_query_value(None, pragma, |row| row.get(0))
            .unwrap()
    };
    let (schema, mark) = (number("user_version"), number("application_id"));
    let mut text = format!("PRAGMA user_version = {schema};\nPRAGMA application_id = {mark};\n");
    let mut statement = from
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        writeln!(text, "{};", row.get::<_, String>(0).unwrap()).unwrap();
    }
    for table in TABLES {
        let mut statement = from.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<_> = (0..columns)
                .map(|at| literal(row.get_ref(at).unwrap()))
                .collect();
            writeln!(text, "INSERT INTO {table} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    text
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{digits}'")
        }
    }
}

fn write_fixture_if_asked() {
    if std::env::var_os("FARMBELL_WRITE_FIXTURE").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.db");
    Sqlite::open(&path).unwrap().commit(&history()).unwrap();
    std::fs::write(fixture(SCHEMA), dump(&path)).unwrap();
}

#[test]
fn databases_of_every_released_schema_are_read() {
    write_fixture_if_asked();
    for schema in 1..=SCHEMA {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("farm.db");
        let text = std::fs::read_to_string(fixture(schema)).expect("every schema has a fixture");
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch(&text)
            .unwrap();
        let mut store = Sqlite::open(&path).unwrap();
        let snapshot = store.load().unwrap();
        let (former, bulk) = match schema {
            1 | 2 => (vec![former_bulk()], vec![]),
            _ => (vec![], vec![bulk()]),
        };
        let meta = Meta {
            bulk: List::new(former).unwrap(),
            ..meta()
        };
        assert_eq!(snapshot.meta, Some(meta), "schema {schema}");
        assert_eq!(snapshot.bulk, bulk, "schema {schema}");
        assert_eq!(jobs_of(&mut store), [waiting(1), live(2)]);
        let keyed = submission(3, Some("key"), &[3]);
        assert_eq!(snapshot.submissions, slice::from_ref(&keyed));
        assert_eq!(snapshot.builders, [builder(1)]);
        assert_eq!(snapshot.agents, [agent(1)]);
        assert_eq!(snapshot.tokens, [token(1, 1)]);
        assert_eq!(snapshot.dependents, [done(3)]);
        assert_eq!(snapshot.packages, [package("baz", None, 1)]);
        assert_eq!(snapshot.durations, [duration("hello", 90)]);
        let reader = store.reader();
        assert_eq!(reader.job(JobId(3)).unwrap(), Some(done(3)));
        assert_eq!(reader.spec(JobId(1)).unwrap(), Some(spec(1)));
        let over = attempt(3, Some(AttemptEnd::Verdict));
        assert_eq!(reader.attempts(JobId(3)).unwrap(), [over]);
        assert_eq!(
            reader.artifacts(attempt_id(3)).unwrap().unwrap(),
            *outputs(3)
        );
        assert_eq!(reader.submission(SubmissionId(3)).unwrap(), Some(keyed));
        assert_eq!(reader.ledger(0, 9).unwrap(), [entry(1)]);
        assert!(reader.audit().unwrap().problems.is_empty());
    }
}
