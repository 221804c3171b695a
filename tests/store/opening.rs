//! What a store refuses, by name: newer and foreign files, damage, a second
//! writer.

use std::path::{Path, PathBuf};

use farmbell_coordinator::store::{CommitError, SCHEMA, Sqlite, Store, StoreError};
use farmbell_farm::record::Change;

use crate::contract::jobs_of;
use crate::records::{submit, waiting};

fn store_with_a_job() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.db");
    Sqlite::open(&path).unwrap().commit(&submit(1)).unwrap();
    (directory, path)
}

fn run(path: &Path, sql: &str) {
    rusqlite::Connection::open(path)
        .unwrap()
        .execute_batch(sql)
        .unwrap();
}

#[test]
fn a_newer_schema_is_refused_by_its_number_and_left_alone() {
    let (_directory, path) = store_with_a_job();
    let newer = SCHEMA + 1;
    run(&path, &format!("PRAGMA user_version = {newer}"));
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found, .. } if found == newer));
    assert!(error.to_string().contains(&newer.to_string()), "{error}");
    run(&path, &format!("PRAGMA user_version = {SCHEMA}"));
    assert_eq!(jobs_of(&mut Sqlite::open(&path).unwrap()), [waiting(1)]);
}

#[test]
fn a_database_of_something_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.db");
    run(&path, "CREATE TABLE recipes (cake TEXT)");
    assert!(matches!(
        Sqlite::open(&path),
        Err(StoreError::Foreign { .. })
    ));
    run(&path, "INSERT INTO recipes VALUES ('still here')");
    let text = directory.path().join("text");
    std::fs::write(&text, "not a database, but long enough to look at").unwrap();
    assert!(Sqlite::open(&text).is_err());
}

#[test]
fn a_damaged_record_is_named_and_not_believed() {
    let (_directory, path) = store_with_a_job();
    run(
        &path,
        "UPDATE job SET record = CAST(substr(record, 1, 20) || x'ff' || substr(record, 22) AS BLOB)",
    );
    let mut store = Sqlite::open(&path).unwrap();
    let error = store.jobs(&mut |_| {}).unwrap_err();
    assert!(
        matches!(error, StoreError::Damaged { record: "job", .. }),
        "{error}"
    );
}

#[test]
fn a_held_store_is_busy_and_takes_the_same_changes_later() {
    let (_directory, path) = store_with_a_job();
    let mut store = Sqlite::open(&path).unwrap();
    let holder = rusqlite::Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let changes = submit(2);
    assert!(matches!(
        store.commit(&changes),
        Err(CommitError::Busy { .. })
    ));
    holder.execute_batch("COMMIT").unwrap();
    store.commit(&changes).unwrap();
    assert_eq!(jobs_of(&mut store).len(), 2);
}

#[test]
fn a_ledger_number_given_out_twice_stops_everything() {
    let (_directory, path) = store_with_a_job();
    let mut store = Sqlite::open(&path).unwrap();
    let twice = [
        Change::Job(Box::new(waiting(2))),
        Change::Ledger(crate::records::entry(1)),
    ];
    assert!(matches!(
        store.commit(&twice),
        Err(CommitError::Unknown { .. })
    ));
    assert_eq!(jobs_of(&mut store).len(), 1, "all or nothing");
}
