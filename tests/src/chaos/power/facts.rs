//! What had been said by a moment, and whether an image still has it. What
//! people and the other host know is taken from the history as it was read,
//! so each fact is a little older than the moment that it counts from.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use farmbell_agent::attempt::AttemptDir;
use farmbell_agent::{seal, spool};
use farmbell_coordinator::check::{self, Depth};
use farmbell_coordinator::statedir::StateDir;
use farmbell_coordinator::store::{Queries as _, Sqlite, Store as _};
use farmbell_protocol::builder::Record;
use farmbell_protocol::id::AttemptId;

use super::disk::Disk;
use crate::harness::Entry;

/// What the coordinator's `init` and the agent's `join` promise to keep.
const COORDINATOR_KEEPS: [&str; 3] = ["state/key.pem", "state/quic.keys", "state/api.token"];
const AGENT_KEEPS: [&str; 2] = ["state/identity/key.pem", "state/coordinator.toml"];

/// Moments are microseconds of the wall clock.
#[derive(Debug, Default)]
pub(super) struct Facts {
    coordinator_since: u64,
    agent_since: u64,
    entries: Vec<(u64, Entry)>,
}

impl Facts {
    /// Its start was told just now.
    pub(super) fn coordinator_is_there(&mut self) {
        self.coordinator_since = wall(Instant::now());
    }

    /// Its builders were told to be clean just now.
    pub(super) fn agent_is_there(&mut self) {
        self.agent_since = wall(Instant::now());
    }

    pub(super) fn learn(&mut self, entries: &[Entry]) {
        let timed = entries
            .iter()
            .map(|entry| (wall(entry.seen), entry.clone()));
        self.entries.extend(timed);
    }

    /// Before this nothing was promised.
    pub(super) const fn begin(&self) -> u64 {
        self.coordinator_since
    }

    /// From here on both hosts were told of.
    pub(super) const fn farm_since(&self) -> u64 {
        self.agent_since
    }

    fn said_by(&self, moment: u64) -> impl Iterator<Item = &Entry> {
        let said = self.entries.iter().filter(move |(at, _)| *at <= moment);
        said.map(|(_, entry)| entry)
    }

    /// Jobs that were accepted by then.
    pub(super) fn jobs_by(&self, moment: u64) -> Vec<&str> {
        self.said_by(moment)
            .filter(|entry| entry.kind == "job.submitted")
            .filter_map(|entry| entry.job.as_deref())
            .collect()
    }

    /// # Errors
    /// If something that was said is lost, or the image cannot be opened.
    pub(super) fn of_coordinator(&self, image: &Path, disk: &Disk, at: u64) -> anyhow::Result<()> {
        kept(image, disk, &COORDINATOR_KEEPS)?;
        let state = StateDir::at(image.join("state"));
        let mut store = Sqlite::open(&state.store())?;
        store.load()?;
        let problems = check::problems(&state, Depth::Bytes)?;
        ensure!(problems.is_empty(), "check finds {problems:?}");
        let ledger = store.reader().ledger(0, u32::MAX)?;
        for said in self.said_by(at) {
            let found = ledger.iter().find(|entry| entry.seq == said.seq);
            let found = found.with_context(|| format!("entry {} is lost: {said:?}", said.seq))?;
            let job = found.job.map(|job| job.to_string());
            ensure!(
                found.kind.as_str() == said.kind && job == said.job,
                "entry {} was {said:?} and is {found:?}",
                said.seq
            );
        }
        Ok(())
    }

    /// # Errors
    /// As [`of_coordinator`](Self::of_coordinator).
    pub(super) fn of_agent(&self, image: &Path, disk: &Disk, at: u64) -> anyhow::Result<()> {
        if at < self.agent_since {
            return Ok(());
        }
        kept(image, disk, &AGENT_KEEPS)?;
        for builder in ["b1", "b2"] {
            self.of_builder(image, disk, at, builder)
                .with_context(|| format!("builder {builder}"))?;
        }
        Ok(())
    }

    fn of_builder(&self, image: &Path, disk: &Disk, at: u64, name: &str) -> anyhow::Result<()> {
        let file = Path::new("state/spool").join(format!("{name}.spool"));
        let restored = spool::restore(&image.join(&file))?;
        ensure!(restored.damage.is_none(), "its spool is damaged");
        // What programs saw at that moment, to know what was let go of.
        let seen = image.join("seen");
        std::fs::write(&seen, disk.live_below(&file).context("it has a spool")?)?;
        let live = spool::restore(&seen)?.records;
        for attempt in accepted(&live) {
            if live.contains(&Record::Released { attempt }) {
                continue;
            }
            let has = |kind: &str| {
                let mut said = self.said_by(at);
                said.any(|entry| entry.kind == kind && is_of(entry, attempt))
            };
            let directory = image.join("state/work").join(name);
            let records = &restored.records;
            if has("job.running") {
                let started = records.contains(&Record::Started { attempt });
                ensure!(started, "{attempt} had started, and that is lost");
            }
            let dir = AttemptDir::of(&directory, attempt);
            if has("job.collecting") {
                let exit = dir.read_exit()?.context("its exit record is lost")?;
                let log = std::fs::metadata(dir.log()).map_or(0, |log| log.len());
                ensure!(log >= exit.log.length, "the log of {attempt} is too short");
            }
            if has("job.finishing") {
                let manifest = std::fs::read(dir.manifest()).context("its manifest is lost")?;
                seal::reopen(&dir.sealed(), &manifest).context("its outputs are lost")?;
            }
        }
        Ok(())
    }
}

fn kept(image: &Path, disk: &Disk, files: &[&str]) -> anyhow::Result<()> {
    for file in files {
        let wanted = disk
            .live_below(Path::new(file))
            .with_context(|| format!("no {file}"))?;
        let found = std::fs::read(image.join(file)).with_context(|| format!("{file} is lost"))?;
        ensure!(found == wanted, "{file} is not what it was");
    }
    Ok(())
}

fn accepted(records: &[Record]) -> BTreeSet<AttemptId> {
    let mut accepted = BTreeSet::new();
    for record in records {
        if let Record::Accepted { attempt, .. } = record {
            accepted.insert(*attempt);
        }
    }
    accepted
}

fn is_of(entry: &Entry, attempt: AttemptId) -> bool {
    let named = entry.attempt.as_ref().and_then(serde_json::Value::as_str);
    named == Some(attempt.to_string().as_str())
}

fn wall(moment: Instant) -> u64 {
    let then = SystemTime::now() - moment.elapsed();
    let since = then.duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_micros()).expect("and long before the end of time")
}
