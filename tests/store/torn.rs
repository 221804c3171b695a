//! Power cuts, as far as the write-ahead log can show them: its file cut off,
//! or torn, anywhere. What remains is a beginning of the history, batch by
//! batch, and everything before the cut is there.

use std::path::Path;

use farmbell_coordinator::store::{Queries, Sqlite, Store};
use farmbell_farm::record::Change;

use crate::contract::jobs_of;
use crate::records::{entry, waiting};

const BATCHES: u64 = 40;
const IMAGES: u64 = 400;

/// Commits and returns how long the log was after each commit.
fn written(path: &Path) -> (Sqlite, Vec<u64>) {
    let mut store = Sqlite::open(path).unwrap();
    let log = path.with_extension("db-wal");
    let lengths = (1..=BATCHES)
        .map(|number| {
            store
                .commit(&[
                    Change::Job(Box::new(waiting(number))),
                    Change::Ledger(entry(number)),
                ])
                .unwrap();
            std::fs::metadata(&log).unwrap().len()
        })
        .collect();
    (store, lengths)
}

/// What a start makes of this image: how many batches it has.
fn batches_of(image: &Path) -> u64 {
    let mut store = Sqlite::open(image).unwrap();
    let jobs = jobs_of(&mut store).len() as u64;
    let entries = store.reader().ledger(0, u32::MAX).unwrap();
    assert_eq!(entries.len() as u64, jobs, "a batch is whole or not there");
    assert_eq!(entries.last().map_or(0, |entry| entry.seq), jobs, "no gap");
    jobs
}

#[test]
fn a_log_cut_or_torn_anywhere_is_a_beginning_of_the_history() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.db");
    let (store, lengths) = written(&path);
    let database = std::fs::read(&path).unwrap();
    let log = std::fs::read(path.with_extension("db-wal")).unwrap();
    drop(store);
    let image = directory.path().join("image.db");
    let end = *lengths.last().unwrap();
    for number in 0..=IMAGES {
        let cut = end * number / IMAGES;
        let kept = usize::try_from(cut).unwrap();
        let durable = lengths.iter().filter(|length| **length <= cut).count() as u64;
        for torn in [false, true] {
            let mut log = log[..kept].to_vec();
            if torn {
                // The disk had promised a longer file, and wrote something else.
                log.extend((0..5000u32).map(|byte| byte.to_le_bytes()[0] ^ 0x5a));
            }
            std::fs::write(&image, &database).unwrap();
            std::fs::write(image.with_extension("db-wal"), &log).unwrap();
            let shared = image.with_extension("db-shm");
            if shared.exists() {
                std::fs::remove_file(shared).unwrap();
            }
            assert_eq!(batches_of(&image), durable, "cut at {cut}, torn: {torn}");
        }
    }
}
