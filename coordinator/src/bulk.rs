//! The bulk door: logs, artifacts and inputs of admitted attempts, on a socket
//! and a runtime thread of their own, so that no amount of bytes delays an
//! order.
//!
//! Owns bulk connections and their streams. Bytes go to `blobs` and `logs`;
//! the farm hears of digests and lengths once they are durable. Invariants:
//! one bulk connection per live session; only admitted attempts of that
//! session's agent are served; a stream of a dismissed attempt ends.

mod admissions;
mod blob;
mod collect;
mod connection;
mod delivered;
mod input;
mod log;
mod sink;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use farmbell_protocol::client::bulk::step_back;
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::quic::{BulkTuning, ListenError, Listener, Profile, ServerKeys};
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::version::CloseCode;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub(crate) use admissions::{Admissions, Door};
pub use delivered::Delivered;

use crate::blobs::Blobs;
use crate::driver::FarmHandle;
use crate::listener::{Depots, DoorError, FAREWELL, screen};
use crate::logs::Logs;
use crate::specs::Specs;

/// The bulk socket, bound on its own runtime.
#[derive(Debug)]
pub(crate) struct BulkDoor {
    runtime: Runtime,
    listener: Listener,
}

/// The thread that serves bulk connections.
#[derive(Debug)]
pub(crate) struct BulkThread {
    stop: oneshot::Sender<String>,
    ended: oneshot::Receiver<()>,
}

/// Bytes moved since the process began, as they came off the wire or went onto
/// it: repeats count twice.
#[derive(Debug, Default)]
pub struct Counters {
    pub log_bytes: AtomicU64,
    /// Chunks of outputs and their lists.
    pub blob_bytes: AtomicU64,
    /// Of them, chunks that were verified.
    pub verified_bytes: AtomicU64,
    pub input_bytes: AtomicU64,
}

/// What transfers work on.
#[derive(Clone, Debug)]
pub(crate) struct Transfers {
    pub(crate) counters: Arc<Counters>,
    pub(crate) farm: FarmHandle,
    pub(crate) admissions: Admissions,
    pub(crate) specs: Specs,
    pub(crate) blobs: Blobs,
    pub(crate) logs: Logs,
    pub(crate) delivered: Delivered,
}

impl BulkDoor {
    pub(crate) fn bind(
        address: SocketAddr,
        identity: &Identity,
        tuning: BulkTuning,
        keys: &ServerKeys,
    ) -> Result<Self, DoorError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("bulk-disk")
            .on_thread_start(step_back)
            .build()
            .map_err(DoorError::Thread)?;
        let listener = {
            let _runtime = runtime.enter();
            Listener::bind(address, identity, Profile::Bulk(tuning), keys)
        };
        let listener = listener.map_err(|error: ListenError| DoorError::Listen(error))?;
        Ok(Self { runtime, listener })
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_address()
    }

    pub(crate) fn open(
        self,
        farm: FarmHandle,
        admissions: Admissions,
        depots: Depots,
        counters: Arc<Counters>,
    ) -> io::Result<BulkThread> {
        let transfers = Transfers {
            counters,
            farm,
            admissions,
            specs: depots.specs,
            blobs: depots.blobs,
            logs: depots.logs,
            delivered: depots.delivered,
        };
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let Self { runtime, listener } = self;
        std::thread::Builder::new()
            .name("bulk".to_owned())
            .spawn(move || {
                step_back();
                runtime.block_on(serve(listener, transfers, stopped));
                if end.send(()).is_err() {
                    tracing::debug!("nobody waits for the bulk door's end");
                }
            })?;
        Ok(BulkThread { stop, ended })
    }
}

impl BulkThread {
    /// Ends every bulk connection. The end can be waited for.
    pub(crate) fn close(self, why: &str) -> BulkEnd {
        if self.stop.send(why.to_owned()).is_err() {
            tracing::debug!("the bulk door ended by itself");
        }
        BulkEnd { ended: self.ended }
    }
}

/// A bulk door that is closing.
#[derive(Debug)]
pub(crate) struct BulkEnd {
    ended: oneshot::Receiver<()>,
}

impl BulkEnd {
    pub(crate) async fn wait(self) {
        if self.ended.await.is_err() {
            tracing::error!("the bulk door's thread panicked");
        }
    }
}

async fn serve(listener: Listener, transfers: Transfers, stop: oneshot::Receiver<String>) {
    let mut connections = JoinSet::new();
    let mut checks = JoinSet::new();
    let mut stop = stop;
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let Some(incoming) = incoming else { break };
                let entered = transfers.admissions.entered();
                let screened = screen(incoming, listener.open_connections(), entered);
                if let Some(incoming) = screened {
                    connections.spawn(connection::serve(incoming, transfers.clone()));
                }
            }
            chores = transfers.admissions.chores() => {
                for attempt in chores.check {
                    let transfers = transfers.clone();
                    checks.spawn(async move { collect::check(attempt, &transfers).await });
                }
                if !chores.forget.is_empty() {
                    let delivered = transfers.delivered.clone();
                    checks.spawn_blocking(move || forget(&delivered, chores.forget));
                }
            }
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a bulk connection's task died");
                }
            }
            Some(ended) = checks.join_next(), if !checks.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a chore of the bulk door died");
                }
            }
            why = &mut stop => {
                let why = why.unwrap_or_else(|_| "the coordinator is going down".to_owned());
                listener.close(CloseCode::Shutdown, &why);
                break;
            }
        }
    }
    if tokio::time::timeout(FAREWELL, listener.drained())
        .await
        .is_err()
    {
        tracing::debug!("some bulk connections may end by silence only");
    }
}

fn forget(delivered: &Delivered, attempts: BTreeSet<AttemptId>) {
    for attempt in attempts {
        if let Err(error) = delivered.forget(attempt) {
            tracing::warn!(%error, %attempt, "the notes of an attempt stay");
        }
    }
}
