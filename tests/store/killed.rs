//! `kill -9` of a process that commits: what it had said is there, and each
//! batch is there whole or not at all.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use farmbell_coordinator::store::{Queries, Sqlite, Store};
use farmbell_farm::record::{Change, Meta};

use crate::contract::jobs_of;
use crate::records::{entry, waiting};

const WRITER: &str = "FARMBELL_TEST_STORE";
const LIVES: u64 = 12;
/// Entries of one batch.
const BATCH: u64 = 7;

fn batch(number: u64) -> Vec<Change> {
    let mut changes: Vec<_> = (1..=BATCH)
        .map(|place| Change::Ledger(entry(number * BATCH + place)))
        .collect();
    changes.push(Change::Job(Box::new(waiting(number + 1))));
    changes.push(Change::Meta(Meta {
        ledger_floor: (number + 1) * BATCH,
        ..Meta::default()
    }));
    changes
}

/// The process that the story kills: this test again, told so.
fn write_for_ever(path: &Path) {
    let mut store = Sqlite::open(path).unwrap();
    let meta = store.load().unwrap().meta.unwrap_or_default();
    let mut out = std::io::stdout();
    for number in meta.ledger_floor / BATCH.. {
        store.commit(&batch(number)).unwrap();
        writeln!(out, "said {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_killed_writer_has_kept_what_it_said() {
    if let Some(path) = std::env::var_os(WRITER) {
        return write_for_ever(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.db");
    let mut batches = 0;
    for life in 0..LIVES {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "killed::a_killed_writer_has_kept_what_it_said",
                "--nocapture",
            ])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = None;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let spoken = lines.filter_map(|line| {
            let line = line.unwrap();
            line.split_once("said ")
                .map(|(_, number)| number.parse::<u64>().unwrap())
        });
        // Each life is cut at another place, in the middle of the next commit.
        for number in spoken.take(usize::try_from(3 + life * 5).unwrap()) {
            said = Some(number);
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let mut store = Sqlite::open(&path).unwrap();
        let snapshot = store.load().unwrap();
        let floor = snapshot.meta.unwrap().ledger_floor;
        let said = said.expect("every life says something");
        assert!(floor > said * BATCH, "batch {said} was said and is lost");
        assert_eq!(floor % BATCH, 0);
        batches = floor / BATCH;
        assert_eq!(store.reader().ledger_end().unwrap(), floor);
        let entries = store.reader().ledger(0, u32::MAX).unwrap();
        assert_eq!(entries.len() as u64, floor, "no gap");
        assert_eq!(jobs_of(&mut store).len() as u64, batches);
    }
    assert!(batches > LIVES);
}
