//! Life cycles of jobs per second: submitted, assigned, accepted, started,
//! ended, sealed, stored, decided, and the builder reset, each step durable
//! before the next. The real farm, the real store and the real driver; only the
//! builders are simulated, and there are no sockets. They look at what they
//! are told once a millisecond, as a network brings words together: a thread
//! that is woken for each would take the processors from what is measured.
//!
//! The floor is the store alone with the same changes: what the driver
//! committed in the run before, committed again without farm and builders.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a simulated builder answers a few of the many things it is told"
)]

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use farmbell_coordinator::driver::{DriverGone, FarmHandle, Health, Outbox, Unavailable};
use farmbell_coordinator::store::{CommitError, Sqlite, Store, StoreError};
use farmbell_farm::effect::{Effect, Reply};
use farmbell_farm::event::{Actor, ConnId, Event};
use farmbell_farm::record::{Change, JobRecord, Snapshot};
use farmbell_protocol::agent_to_coordinator::{
    Accepted, AgentFrame, Clean, Ended, Sealed, Started,
};
use farmbell_protocol::bounded::Text;
use farmbell_protocol::coordinator_to_agent::CoordinatorFrame;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AttemptId, BuilderIndex, Seq};
use farmbell_protocol::outcome::{ExitStatus, Outcome, Usage};

use super::Plan;
use super::brain::{hello, submit_command};
use super::million::{AGENTS, Million};
use super::row::{Floor, Mark, Row};

/// Submits under way: as many jobs as are finished come in again.
const SUBMITTERS: usize = 128;
/// Between two looks of the builders and of those who submit.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let million = plan.million()?;
    let mut rates = Vec::new();
    let mut floors = Vec::new();
    let wanted = plan.runs(40_000);
    let mut events_per_commit = 0.0;
    let mut rows_per_cycle = 0.0;
    let rounds = 3;
    let recorded = wanted.div_ceil(4);
    for round in 0..rounds {
        let run = run(million, wanted, recorded, round)?;
        rates.push(run.per_second);
        events_per_commit = run.events_per_commit;
        rows_per_cycle = run.changes_per_cycle;
        floors.push(alone(million, run)?);
    }
    Ok(vec![Row {
        id: "cycles",
        what: format!(
            "durable life cycles of jobs per second, {} waiting",
            million.jobs
        ),
        unit: "/s",
        median: middle(rates),
        p99: None,
        runs: rounds * wanted,
        floor: Some(Floor {
            what: "the store alone",
            median: middle(floors),
            runs: rounds * recorded,
        }),
        mark: Mark::AtLeast(8_000.0),
        note: format!(
            "{:.0} events a commit, {rows_per_cycle:.1} changes a cycle",
            events_per_commit
        ),
    }])
}

/// What a run did.
struct Run {
    per_second: f64,
    events_per_commit: f64,
    changes_per_cycle: f64,
    /// Cycles in what was recorded.
    recorded: f64,
    commits: Vec<Vec<Change>>,
}

fn run(million: &Million, wanted: usize, recorded: usize, round: usize) -> anyhow::Result<Run> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        // It never waits, so it never gets a new budget.
        .block_on(tokio::task::unconstrained(work(
            million, wanted, recorded, round,
        )))
}

/// Measures so many cycles, then records as many as the floor takes: keeping a
/// copy of all that is committed is no part of the figure.
async fn work(
    million: &Million,
    wanted: usize,
    recorded: usize,
    round: usize,
) -> anyhow::Result<Run> {
    let commits = Commits::default();
    let store = Recording {
        store: Sqlite::open(&million.path())?,
        commits: commits.clone(),
    };
    let wire = Wire::default();
    let (farm, running) = million.start(store, wire.clone()).await?;
    let mut submitters = Submitters::new(&farm, round * (wanted + recorded) * 2)?;
    let mut lane = Lane::new(&farm);
    for agent in 1..=AGENTS {
        lane.waiting.push_back(hello(agent)?);
    }
    let mut builders = Builders::default();
    let warm = wanted / 4;
    let mut marks: Vec<(Instant, Health)> = Vec::new();
    let mut cycles = 0;
    while cycles < warm + wanted + recorded {
        std::thread::sleep(LOOK_EVERY);
        for effect in wire.take() {
            lane.waiting.extend(builders.answers(effect));
        }
        lane.tell()?;
        let fresh = std::mem::take(&mut builders.committed);
        submitters.go_on(fresh)?;
        cycles += fresh;
        if marks.is_empty() && cycles >= warm {
            marks.push((Instant::now(), farm.health()));
        }
        if marks.len() == 1 && cycles >= warm + wanted {
            marks.push((Instant::now(), farm.health()));
            commits.begin();
        }
    }
    running.stop().await?;
    let [(began, before), (ended, after)] = marks.as_slice() else {
        anyhow::bail!("the driver ended before it was told to");
    };
    let cycles = f64::from(u32::try_from(wanted)?);
    let difference = |later: u64, earlier: u64| -> anyhow::Result<f64> {
        Ok(f64::from(u32::try_from(later - earlier)?))
    };
    let count = difference(
        after.commits.counts.iter().sum(),
        before.commits.counts.iter().sum(),
    )?;
    Ok(Run {
        per_second: cycles / ended.duration_since(*began).as_secs_f64(),
        events_per_commit: difference(after.events, before.events)? / count,
        changes_per_cycle: difference(after.changes, before.changes)? / cycles,
        recorded: f64::from(u32::try_from(recorded)?),
        // To the very last: a store that forgot some would give ids out twice.
        commits: commits.end(),
    })
}

type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// What has come, without being woken by it.
fn look<T>(pending: &mut Pending<T>) -> Poll<T> {
    pending
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// Those who submit a job for each that is finished.
struct Submitters {
    farm: FarmHandle,
    pending: Vec<Pending<Result<Reply, Unavailable>>>,
    wanted: usize,
    number: u32,
}

impl Submitters {
    fn new(farm: &FarmHandle, first: usize) -> anyhow::Result<Self> {
        Ok(Self {
            farm: farm.clone(),
            pending: Vec::new(),
            wanted: 0,
            number: u32::try_from(first)?,
        })
    }

    fn go_on(&mut self, finished: usize) -> anyhow::Result<()> {
        self.wanted += finished;
        let mut refused = None;
        self.pending.retain_mut(|request| match look(request) {
            Poll::Pending => true,
            Poll::Ready(Ok(_)) => false,
            Poll::Ready(Err(error)) => {
                refused = Some(error);
                false
            }
        });
        if let Some(error) = refused {
            return Err(error.into());
        }
        while self.wanted > 0 && self.pending.len() < SUBMITTERS {
            self.wanted -= 1;
            self.number += 1;
            let command = submit_command(self.number)?;
            let farm = self.farm.clone();
            let by = Actor {
                name: Text::cut("bench"),
            };
            let mut request: Pending<_> = Box::pin(async move { farm.request(by, command).await });
            match look(&mut request) {
                Poll::Pending => self.pending.push(request),
                Poll::Ready(done) => drop(done?),
            }
        }
        Ok(())
    }
}

/// What builders have to say, in its order, as far as the farm has room.
struct Lane {
    farm: FarmHandle,
    waiting: VecDeque<Event>,
    telling: Option<Pending<Result<(), DriverGone>>>,
}

impl Lane {
    fn new(farm: &FarmHandle) -> Self {
        Self {
            farm: farm.clone(),
            waiting: VecDeque::new(),
            telling: None,
        }
    }

    fn tell(&mut self) -> Result<(), DriverGone> {
        loop {
            if self.telling.is_none() {
                let Some(event) = self.waiting.pop_front() else {
                    return Ok(());
                };
                let farm = self.farm.clone();
                self.telling = Some(Box::pin(async move { farm.tell(event).await }));
            }
            match self.telling.as_mut().map(look) {
                Some(Poll::Pending) => return Ok(()),
                Some(Poll::Ready(told)) => told?,
                None => {}
            }
            self.telling = None;
        }
    }
}

/// The same commits by the store and nothing else; how many cycles a second.
fn alone(million: &Million, run: Run) -> anyhow::Result<f64> {
    let mut store = Sqlite::open(&million.path())?;
    let commits = again(run.commits);
    let began = Instant::now();
    for changes in &commits {
        store.commit(changes)?;
    }
    Ok(run.recorded / began.elapsed().as_secs_f64())
}

/// History is never written twice: the entries get the numbers that follow.
fn again(mut commits: Vec<Vec<Change>>) -> Vec<Vec<Change>> {
    let changes = commits.iter().flatten();
    let numbers: Vec<u64> = changes
        .filter_map(|change| match change {
            Change::Ledger(entry) => Some(entry.seq),
            _ => None,
        })
        .collect();
    let span = match (numbers.iter().min(), numbers.iter().max()) {
        (Some(first), Some(last)) => last - first + 1,
        (None, _) | (_, None) => 0,
    };
    for change in commits.iter_mut().flatten() {
        match change {
            Change::Ledger(entry) => entry.seq += span,
            Change::Meta(meta) => meta.ledger_floor += span,
            _ => {}
        }
    }
    commits
}

/// The real store, and a copy of what it was given.
struct Recording {
    store: Sqlite,
    commits: Commits,
}

#[derive(Clone, Default)]
struct Commits(Arc<Mutex<Option<Vec<Vec<Change>>>>>);

impl Commits {
    fn begin(&self) {
        *self.locked() = Some(Vec::new());
    }

    fn end(&self) -> Vec<Vec<Change>> {
        self.locked().take().unwrap_or_default()
    }

    fn locked(&self) -> MutexGuard<'_, Option<Vec<Vec<Change>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Recording {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.store.load()
    }

    fn jobs(&mut self, give: &mut dyn FnMut(JobRecord)) -> Result<(), StoreError> {
        self.store.jobs(give)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        if let Some(commits) = &mut *self.commits.locked() {
            commits.push(changes.to_vec());
        }
        self.store.commit(changes)
    }
}

/// What the farm said since the last look.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<Effect>>>);

impl Wire {
    fn take(&self) -> Vec<Effect> {
        std::mem::take(&mut *self.locked())
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Effect>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox for Wire {
    fn perform(&mut self, effect: Effect) {
        self.locked().push(effect);
    }
}

/// Builders that do at once what they are told. Each speaks again only when
/// what it said before is acknowledged, so that no two steps of one job meet
/// in a commit.
#[derive(Default)]
struct Builders {
    /// Reports of each builder outside attempts.
    seqs: BTreeMap<(ConnId, BuilderIndex), Seq>,
    conns: BTreeMap<AttemptId, ConnId>,
    /// Verdicts since this was last looked at.
    committed: usize,
}

impl Builders {
    fn answers(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::Offer { conn, attempt, .. } => {
                self.conns.insert(attempt, conn);
                vec![report(conn, accepted(attempt))]
            }
            Effect::Expect { attempt, .. } => stored(attempt),
            Effect::Welcome { conn, builders, .. } => {
                // A round starts from what the round before left in the store.
                let known = builders.into_iter();
                self.seqs
                    .extend(known.map(|builder| ((conn, builder.index), builder.acked)));
                Vec::new()
            }
            Effect::Send { conn, frame } => self.told(conn, frame),
            _ => Vec::new(),
        }
    }

    fn told(&mut self, conn: ConnId, frame: CoordinatorFrame) -> Vec<Event> {
        match frame {
            CoordinatorFrame::Reset(order) => {
                let seq = self.seqs.entry((conn, order.builder)).or_default();
                *seq = seq.next();
                let clean = AgentFrame::Clean(Clean {
                    builder: order.builder,
                    seq: *seq,
                    nonce: order.nonce,
                    reset_ms: 1,
                    probe_ms: 1,
                });
                vec![report(conn, clean)]
            }
            CoordinatorFrame::Ack(ack) => next_step(ack.attempt, ack.seq)
                .map(|frame| report(conn, frame))
                .into_iter()
                .collect(),
            CoordinatorFrame::Committed(committed) => {
                self.conns.remove(&committed.attempt);
                self.committed += 1;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

fn report(conn: ConnId, frame: AgentFrame) -> Event {
    Event::Report { conn, frame }
}

fn accepted(attempt: AttemptId) -> AgentFrame {
    let seq = Seq(1);
    AgentFrame::Accepted(Accepted { attempt, seq })
}

/// What an attempt says after its report number `acked` is durable.
fn next_step(attempt: AttemptId, acked: Seq) -> Option<AgentFrame> {
    let seq = acked.next();
    match acked.0 {
        1 => Some(AgentFrame::Started(Started { attempt, seq })),
        2 => Some(AgentFrame::Ended(Ended {
            attempt,
            seq,
            outcome: Outcome::Succeeded,
            exit: Some(ExitStatus::Code(0)),
            usage: Usage::default(),
        })),
        3 => Some(AgentFrame::Sealed(Sealed {
            attempt,
            seq,
            manifest: Digest::of(b"nothing"),
            manifest_bytes: 7,
            outputs: 0,
            output_bytes: 0,
            log_bytes: 100,
            outcome: None,
        })),
        _ => None,
    }
}

/// What the bulk layer tells once log and outputs are on the disk.
fn stored(attempt: AttemptId) -> Vec<Event> {
    vec![
        Event::LogClosed {
            attempt,
            bytes: 100,
        },
        Event::Collected {
            attempt,
            outputs: Arc::new([]),
        },
    ]
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
