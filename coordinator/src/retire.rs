//! Retiring, as the coordinator performs it: looks for old history where the
//! farm asks for it, and removes files that no record speaks of any more.
//! Decides nothing about records (the farm does); the files follow from what
//! is committed.
//!
//! Invariant: a file goes only if no committed record speaks of it and nobody
//! can be about to write one that does: it was not touched for `AT_REST`
//! before now, nor before the oldest attempt under way was assigned.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farmbell_farm::effect::Look;
use farmbell_farm::event::Event;
use farmbell_protocol::time::Wall;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::mpsc;

use crate::blobs::{BlobError, Blobs};
use crate::driver::FarmHandle;
use crate::listener::Depots;
use crate::logs::{LogError, Logs};
use crate::statedir::StateDir;
use crate::store::{Mentions, Queries, QueryError};

/// How long a blob that no record speaks of stays: longer than anybody takes
/// from uploading an input to submitting the job.
const AT_REST: Duration = Duration::from_secs(24 * 3600);
/// Orders that may wait: the farm gives one, and the next after its answer.
const ORDERS: usize = 4;

#[derive(Debug)]
enum Order {
    Look(Look),
    Prune,
}

/// Where the farm's effects leave their orders.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

/// Where they are taken from.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<Order>);

#[must_use]
pub fn orders() -> (Orders, Waiting) {
    let (give, take) = mpsc::channel(ORDERS);
    (Orders(give), Waiting(take))
}

impl Orders {
    pub(crate) fn look(&self, look: Look) {
        self.give(Order::Look(look));
    }

    pub(crate) fn prune(&self) {
        self.give(Order::Prune);
    }

    fn give(&self, order: Order) {
        if let Err(error) = self.0.try_send(order) {
            tracing::warn!(%error, "retiring waits for its next round");
        }
    }
}

/// What is retired from.
#[derive(Clone)]
pub struct Archive {
    queries: Arc<dyn Queries>,
    blobs: Blobs,
    logs: Logs,
    /// Held by a backup while it copies files.
    lock: PathBuf,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

/// Why pruning ended early; the next one goes on.
#[derive(Debug, thiserror::Error)]
enum PruneError {
    #[error(transparent)]
    Store(#[from] QueryError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Logs(#[from] LogError),
    #[error("the lock of the files: {0}")]
    Lock(#[from] std::io::Error),
}

/// Carries out orders until `stop`, and those that wait then.
///
/// # Errors
/// Never: what fails is said, and tried again in the next round.
pub async fn run(
    mut waiting: Waiting,
    archive: Archive,
    farm: FarmHandle,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(stop);
    loop {
        let order = tokio::select! {
            biased;
            order = waiting.0.recv() => order,
            () = &mut stop => None,
        };
        let Some(order) = order else { return Ok(()) };
        let archive = archive.clone();
        let done = tokio::task::spawn_blocking(move || archive.carry_out(order)).await;
        match done {
            Ok(Some(event)) => {
                if farm.tell(event).await.is_err() {
                    return Ok(());
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "retiring panicked"),
        }
    }
}

impl Archive {
    #[must_use]
    pub fn of(state: &StateDir, depots: &Depots, queries: Arc<dyn Queries>) -> Self {
        Self {
            queries,
            blobs: depots.blobs.clone(),
            logs: depots.logs.clone(),
            lock: state.files_lock(),
        }
    }

    fn carry_out(&self, order: Order) -> Option<Event> {
        match order {
            Order::Look(look) => match self.queries.aged(&look) {
                Ok(aged) => Some(Event::Aged(aged)),
                Err(error) => {
                    tracing::error!(%error, "old history cannot be read; nothing is retired");
                    None
                }
            },
            Order::Prune => {
                if let Err(error) = self.prune(SystemTime::now()) {
                    tracing::error!(%error, "files of retired jobs stay until the next round");
                }
                None
            }
        }
    }

    fn prune(&self, now: SystemTime) -> Result<(), PruneError> {
        let lock = File::options().create(true).append(true).open(&self.lock)?;
        let Ok(_held) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
            tracing::info!("a backup copies files; those of retired jobs stay for now");
            return Ok(());
        };
        let blobs = self.prune_blobs(now)?;
        let logs = self
            .logs
            .prune(|job| Ok::<_, PruneError>(self.queries.has_job(job)?))?;
        if blobs + logs > 0 {
            tracing::info!(blobs, logs, "files of retired jobs are removed");
        }
        Ok(())
    }

    fn prune_blobs(&self, now: SystemTime) -> Result<u64, PruneError> {
        let mentions = self.queries.mentions()?;
        let before = at_rest(&mentions, now);
        let at_rest: BTreeSet<_> = self.blobs.untouched_since(before)?;
        let mut removed = 0;
        for digest in at_rest.difference(&mentions.blobs) {
            removed += u64::from(self.blobs.remove_untouched(*digest, before)?);
        }
        Ok(removed)
    }
}

/// Whatever was touched later may be meant by a record to come.
fn at_rest(mentions: &Mentions, now: SystemTime) -> SystemTime {
    let assigned = mentions.oldest_attempt.and_then(|Wall(ms)| {
        let since = Duration::from_millis(ms);
        UNIX_EPOCH.checked_add(since)
    });
    let newest = assigned.map_or(now, |assigned| assigned.min(now));
    newest.checked_sub(AT_REST).unwrap_or(UNIX_EPOCH)
}
