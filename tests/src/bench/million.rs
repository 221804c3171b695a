//! A store of a million waiting jobs, filled by the real farm through the real
//! store; and `restore`, the way back from it. The floor is a scan of the same
//! records by SQLite and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use farmbell_coordinator::driver::{self, FarmHandle, Guard, Outbox, Parts, Running};
use farmbell_coordinator::specs::Specs;
use farmbell_coordinator::store::{Sqlite, SqliteReader, Store};
use farmbell_farm::Settings;
use farmbell_farm::effect::Effect;
use farmbell_farm::record::Change;
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};

use super::Plan;
use super::brain::{accepted, agent, farm_with_agents, now, submit};
use super::process::cpu_ms_of;
use super::row::{Floor, Mark, Row};
use super::sample::Samples;

/// Submits of one transaction: the fewer flushes, the sooner it is full.
const SUBMITS: u32 = 4096;
/// Agents that the store knows, for whoever lets them work.
pub(super) const AGENTS: u32 = 10;

/// The directory with a full store.
#[derive(Debug)]
pub(super) struct Million {
    directory: tempfile::TempDir,
    pub(super) jobs: u32,
}

impl Million {
    pub(super) fn fill(plan: &Plan) -> anyhow::Result<Self> {
        let this = Self {
            directory: tempfile::tempdir()?,
            jobs: if plan.short { 100_000 } else { 1_000_000 },
        };
        let mut store = Sqlite::open(&this.path())?;
        let (mut farm, effects) = farm_with_agents(AGENTS);
        let mut changes: Vec<Change> = (1..=AGENTS)
            .map(|number| Change::Agent(Box::new(agent(number))))
            .collect();
        changes.extend(effects.into_iter().filter_map(change));
        for number in 0..this.jobs {
            let effects = farm.handle(now(u64::from(number)), submit(number)?);
            accepted(&effects)?;
            changes.extend(effects.into_iter().filter_map(change));
            if number % SUBMITS == 0 || number + 1 == this.jobs {
                store.commit(&changes)?;
                changes.clear();
            }
        }
        Ok(this)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("farm.db")
    }

    /// The driver over this store, as the service starts it, at its first commit.
    pub(super) async fn start<S: Store + 'static>(
        &self,
        store: S,
        outbox: impl Outbox + 'static,
    ) -> anyhow::Result<(FarmHandle, Running)> {
        let (farm, lanes) = driver::lanes();
        let reader = SqliteReader::of(&self.path());
        let parts = Parts {
            settings: Settings::default(),
            store,
            outbox,
            specs: Specs::new(Arc::new(reader)),
            guard: Guard::open(&self.directory.path().join("in-hand"))?,
        };
        let mut running = driver::start(lanes, parts)?;
        running.ready().await;
        Ok((farm, running))
    }
}

fn change(effect: Effect) -> Option<Change> {
    match effect {
        Effect::Change(change) => Some(change),
        Effect::Reply { .. }
        | Effect::Send { .. }
        | Effect::Offer { .. }
        | Effect::Welcome { .. }
        | Effect::Close { .. }
        | Effect::Admit { .. }
        | Effect::Dismiss { .. }
        | Effect::Expect { .. }
        | Effect::Look(_)
        | Effect::Search { .. }
        | Effect::Prune => None,
    }
}

struct Nowhere;

impl Outbox for Nowhere {
    fn perform(&mut self, _effect: Effect) {}
}

pub(super) fn restore(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let million = plan.million()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut starts = Samples::default();
    let mut scans = Samples::default();
    let mut cpu_ms = 0.0;
    let runs = plan.runs(5);
    for _ in 0..runs {
        scans.time(|| scan(&million.path()))?;
        let before = cpu_ms_of(Pid::this())?;
        let began = Instant::now();
        let store = Sqlite::open(&million.path())?;
        let (_farm, running) = runtime.block_on(million.start(store, Nowhere))?;
        starts.push(began.elapsed());
        cpu_ms += cpu_ms_of(Pid::this())? - before;
        runtime.block_on(running.stop())?;
    }
    let each = u32::try_from(runs)?;
    Ok(vec![Row {
        id: "restore",
        what: format!("farm from a store of {} waiting jobs", million.jobs),
        unit: "s",
        median: starts.median().as_secs_f64(),
        p99: Some(starts.p99().as_secs_f64()),
        runs,
        floor: Some(Floor {
            what: "scan by SQLite",
            median: scans.median().as_secs_f64(),
            runs,
        }),
        mark: Mark::AtMost(3.0),
        note: format!(
            "from opening the file to the first commit; {:.2} s of CPU on two threads",
            cpu_ms / f64::from(each) / 1000.0
        ),
    }])
}

/// What reading costs where nothing is made of it.
fn scan(path: &Path) -> anyhow::Result<()> {
    let from = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = from.prepare("SELECT record FROM job WHERE standing < 2")?;
    let mut rows = statement.query([])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += row.get_ref(0)?.as_blob()?.len();
    }
    (bytes > 0).then_some(()).context("the store has jobs")
}
