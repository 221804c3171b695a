//! Stories of the driver over the real farm and a store that does as told.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use farmbell_farm::effect::{Effect, Reply};
use farmbell_farm::event::{Actor, Command, Event};
use farmbell_farm::record::{Change, Envelope, JobRecord, LedgerKind, Snapshot};
use farmbell_protocol::bounded::Text;

use super::*;
use crate::specs::Specs;
use crate::store::{CommitError, Sqlite, Store, StoreError};

/// What the store's next commits are to do; when there is nothing more, they
/// succeed.
enum Next {
    Fail(CommitError),
    /// Says that it is there, then waits.
    Wait(Sender<()>, Receiver<()>),
}

struct Scripted {
    script: Arc<Mutex<VecDeque<Next>>>,
    committed: Arc<Mutex<Vec<Change>>>,
}

#[expect(
    clippy::unwrap_in_result,
    reason = "a broken script is a broken test, not an answer of the store's"
)]
impl Store for Scripted {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::default())
    }

    fn jobs(&mut self, _give: &mut dyn FnMut(JobRecord)) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        let next = self.script.lock().unwrap().pop_front();
        match next {
            Some(Next::Fail(error)) => return Err(error),
            Some(Next::Wait(here, go)) => {
                here.send(()).unwrap();
                go.recv().unwrap();
            }
            None => {}
        }
        self.committed.lock().unwrap().extend_from_slice(changes);
        Ok(())
    }
}

struct Nowhere;

impl Outbox for Nowhere {
    fn perform(&mut self, _effect: Effect) {}
}

struct World {
    farm: FarmHandle,
    running: Running,
    script: Arc<Mutex<VecDeque<Next>>>,
    committed: Arc<Mutex<Vec<Change>>>,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = Arc::<Mutex<VecDeque<Next>>>::default();
        let committed = Arc::<Mutex<Vec<Change>>>::default();
        let reader = Sqlite::open(&directory.path().join("farm.db"))
            .unwrap()
            .reader();
        let (farm, lanes) = lanes();
        let parts = Parts {
            settings: farmbell_farm::Settings::default(),
            store: Scripted {
                script: script.clone(),
                committed: committed.clone(),
            },
            outbox: Nowhere,
            specs: Specs::new(Arc::new(reader)),
            guard: Guard::open(&directory.path().join("in-hand")).unwrap(),
        };
        let mut running = start(lanes, parts).unwrap();
        running.ready().await;
        Self {
            farm,
            running,
            script,
            committed,
            _directory: directory,
        }
    }

    fn next(&self, next: Next) {
        self.script.lock().unwrap().push_back(next);
    }

    fn tokens(&self) -> usize {
        let committed = self.committed.lock().unwrap();
        let tokens = committed
            .iter()
            .filter(|change| matches!(change, Change::Token(_)));
        tokens.count()
    }

    /// A command that changes something.
    async fn create_token(&self) -> Result<Reply, Unavailable> {
        let by = Actor {
            name: Text::cut("kim"),
        };
        let command = Command::TokenCreate {
            uses: 1,
            ttl_ms: 60_000,
            envelope: Envelope::default(),
            secret_hash: [0; 32],
        };
        self.farm.request(by, command).await
    }
}

fn full() -> Next {
    Next::Fail(CommitError::Full {
        why: "no space".to_owned(),
    })
}

#[tokio::test]
async fn nothing_is_said_before_its_commit() {
    let world = World::start().await;
    let (here, arrived) = channel();
    let (go, wait) = channel();
    world.next(Next::Wait(here, wait));
    let mut ledger = world.farm.ledger();
    let asked = world.create_token();
    let driven = async {
        tokio::task::spawn_blocking(move || arrived.recv().unwrap())
            .await
            .unwrap();
        assert!(ledger.try_recv().is_err(), "said before the commit");
        assert_eq!(world.tokens(), 0);
        go.send(()).unwrap();
        ledger.recv().await.unwrap()
    };
    let (reply, entry) = tokio::join!(asked, driven);
    assert!(matches!(reply.unwrap(), Reply::Token(_)));
    assert_eq!(entry.kind, LedgerKind::TokenCreated);
    assert_eq!(world.tokens(), 1);
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_store_keeps_the_changes_and_takes_them_once_when_mended() {
    let world = World::start().await;
    world.next(full());
    let refused = world.create_token().await.unwrap_err();
    assert!(matches!(&refused, Unavailable::Stalled(stall) if stall.why.contains("no space")));
    assert!(world.farm.health().stall.is_some());
    let refused = world.create_token().await.unwrap_err();
    assert!(
        matches!(refused, Unavailable::Stalled(_)),
        "refused at once"
    );
    world.farm.stall_over().await;
    assert!(world.farm.health().stall.is_none());
    assert_eq!(
        world.tokens(),
        1,
        "the first was kept, the second never taken"
    );
    world.create_token().await.unwrap();
    assert_eq!(world.tokens(), 2);
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_ends_the_driver_and_no_reply_is_given() {
    let mut world = World::start().await;
    world.next(Next::Fail(CommitError::Unknown {
        why: "the disk is gone".to_owned(),
    }));
    let refused = world.create_token().await.unwrap_err();
    assert_eq!(refused, Unavailable::Gone(DriverGone));
    let error = world.running.ended().await.unwrap_err().to_string();
    assert!(error.contains("the disk is gone"), "{error}");
    assert_eq!(world.farm.tell(Event::Wake).await, Err(DriverGone));
}

#[tokio::test]
async fn a_stop_commits_what_was_taken_before() {
    let world = World::start().await;
    let (here, arrived) = channel();
    let (go, wait) = channel();
    world.next(Next::Wait(here, wait));
    let farm = world.farm.clone();
    let asked = tokio::spawn(async move {
        let by = Actor {
            name: Text::cut("kim"),
        };
        farm.request(by, Command::Tokens).await
    });
    let first = world.create_token();
    let stopping = async {
        tokio::task::spawn_blocking(move || arrived.recv().unwrap())
            .await
            .unwrap();
        go.send(()).unwrap();
    };
    let (first, ()) = tokio::join!(first, stopping);
    first.unwrap();
    asked.await.unwrap().unwrap();
    let committed = world.committed.clone();
    world.running.stop().await.unwrap();
    assert!(
        committed
            .lock()
            .unwrap()
            .iter()
            .any(|change| matches!(change, Change::Token(_)))
    );
}

#[tokio::test]
async fn a_commit_is_told_of_while_the_store_is_at_the_next() {
    let world = Arc::new(World::start().await);
    let (here, arrived) = channel();
    let (go, wait) = channel();
    world.next(Next::Wait(here.clone(), wait));
    let (go_on, wait) = channel();
    world.next(Next::Wait(here, wait));
    let ask = || {
        let world = world.clone();
        tokio::spawn(async move { world.create_token().await })
    };
    let before = world.farm.health().events;
    let first = ask();
    let arrived = tokio::task::spawn_blocking(move || {
        arrived.recv().unwrap();
        arrived
    });
    let arrived = arrived.await.unwrap();
    let second = ask();
    while world.farm.health().events < before + 2 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    tokio::task::spawn_blocking(move || arrived.recv().unwrap())
        .await
        .unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(world.tokens(), 1);
    assert!(!second.is_finished(), "said before the commit");
    go_on.send(()).unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(world.tokens(), 2);
}

#[tokio::test]
async fn a_flood_of_one_lane_delays_the_other_by_a_batch_at_most() {
    let world = World::start().await;
    let flooding = world.farm.clone();
    let flood = tokio::spawn(async move {
        for _ in 0..20_000 {
            flooding.tell(Event::Wake).await.unwrap();
        }
    });
    let before = world.farm.health().events;
    world.create_token().await.unwrap();
    let between = world.farm.health().events - before;
    assert!(between < 2_000, "{between} events came first");
    flood.abort();
}
