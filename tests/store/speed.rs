//! How quick the store is. Long, and worth something in an optimised build
//! only: `cargo test --profile sim -p farmbell-tests --test store -- --ignored speed`.

use std::time::{Duration, Instant};

use farmbell_coordinator::store::{Sqlite, Store};
use farmbell_farm::record::Change;
use farmbell_farm::{Farm, Settings};
use farmbell_protocol::time::Now;

use crate::records::{done, entry, live, submission, waiting};

/// `restore` of the figures: the farm from a store of so many waiting jobs.
const JOBS: u64 = 1_000_000;
const MARK: Duration = Duration::from_secs(3);
const BATCH: u64 = 1000;

#[test]
#[ignore = "a minute, and a figure only in an optimised build"]
fn a_million_waiting_jobs_are_restored_within_the_mark() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.db");
    let mut store = Sqlite::open(&path).unwrap();
    for first in (1..=JOBS).step_by(usize::try_from(BATCH).unwrap()) {
        let changes: Vec<_> = (first..first + BATCH)
            .flat_map(|job| {
                [
                    Change::Submission(submission(job, None, &[job])),
                    Change::Job(Box::new(waiting(job))),
                ]
            })
            .collect();
        store.commit(&changes).unwrap();
    }
    drop(store);
    let began = Instant::now();
    let snapshot = Sqlite::open(&path).unwrap().load().unwrap();
    let loaded = began.elapsed();
    let (farm, _) = Farm::restore(Settings::default(), snapshot, Now::default(), [1; 32]);
    let took = began.elapsed();
    println!("{JOBS} jobs: loaded in {loaded:?}, the farm stands after {took:?}");
    drop(farm);
    assert!(took <= MARK, "{took:?}");
}

/// The store's part of `cycles`: a job's life is about six changes of it.
#[test]
#[ignore = "a figure, in an optimised build"]
fn lives_of_jobs_per_second() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(&directory.path().join("farm.db")).unwrap();
    let lives = 20_000;
    let mut seq = 0;
    let mut changes = Vec::new();
    let began = Instant::now();
    for job in 1..=lives {
        for record in [waiting(job), live(job), live(job), live(job), done(job)] {
            seq += 1;
            changes.push(Change::Job(Box::new(record)));
            changes.push(Change::Ledger(entry(seq)));
        }
        if job % 50 == 0 {
            store.commit(&changes).unwrap();
            changes.clear();
        }
    }
    let rate = f64::from(u32::try_from(lives).unwrap()) / began.elapsed().as_secs_f64();
    println!("{rate:.0} lives of jobs per second");
}
