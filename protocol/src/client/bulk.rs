//! Bulk transfers from the agent's side: logs and outputs out, inputs in.
//!
//! Owns a thread with a runtime and a socket of its own, so that no amount of
//! bytes delays an order, and the repeating of a transfer until it is done.
//! Knows no job and decides nothing: each transfer is the caller's wish, ends
//! when it is durable on the other side, and stops when its future is dropped.
//! Invariant: after a cut only what the receiver had not counted is sent again.

mod blob;
mod input;
mod log;
mod pool;

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use log::{Cut, LogGrowth};

use crate::bounded::Reason;
use crate::bulk::{BulkRefusal, BulkReply, BulkRequest};
use crate::client::backoff::{Backoff, jittered};
use crate::client::framed::{FrameError, FrameReceiver, FrameSender};
use crate::client::identity::Identity;
use crate::client::quic::BulkTuning;
use crate::client::session::LinkState;
use crate::client::transport::{Closed, Connection, StreamError};
use crate::codec::{CodecError, FrameSet};
use crate::digest::{ChunkList, Digest};
use crate::id::AttemptId;
use pool::{Ask, Pool};

/// Outputs that are read and sent at once: enough to fill a line with small
/// files, few enough that their buffers stay below 16 MiB.
const BLOBS_AT_ONCE: usize = 16;
/// Niceness of the threads that move bytes: behind orders, before builds.
const BULK_NICE: i32 = 5;
/// Transfers that may wait for the connection.
const ASKS: usize = 64;
/// The coordinator's disk is full: it takes a person or a clean-up.
const NO_SPACE_WAIT: Duration = Duration::from_secs(30);

/// Why a transfer will not be done.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    #[error("the coordinator does not take it: {refusal:?} ({why})")]
    Refused { refusal: BulkRefusal, why: Reason },
    #[error("on this host: {0}")]
    Local(#[from] io::Error),
    #[error("bulk transfers are shut down")]
    Gone,
}

/// Lets orders and reports go first where they and this thread compete for a
/// processor: bytes in bulk have time, and still more than builds have.
pub fn step_back() {
    if let Err(error) = rustix::process::nice(BULK_NICE) {
        tracing::debug!(%error, "bulk transfers are not nicer than the rest");
    }
}

/// Does transfers. Cheap to clone; its thread ends with the last clone and the
/// last transfer.
#[derive(Clone, Debug)]
pub struct Bulk {
    runtime: Handle,
    asks: mpsc::Sender<Ask>,
    blobs: Arc<Semaphore>,
}

impl Bulk {
    /// Starts the thread. Nothing is dialled before the first transfer.
    ///
    /// # Errors
    /// If no thread or runtime is to be had.
    pub fn start(
        identity: Arc<Identity>,
        link: watch::Receiver<LinkState>,
        tuning: BulkTuning,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("bulk-disk")
            .on_thread_start(step_back)
            .build()?;
        let (asks, asked) = mpsc::channel(ASKS);
        let bulk = Self {
            runtime: runtime.handle().clone(),
            asks,
            blobs: Arc::new(Semaphore::new(BLOBS_AT_ONCE)),
        };
        let pool = Pool::new(identity, link, tuning, asked);
        std::thread::Builder::new()
            .name("bulk".to_owned())
            .spawn(move || {
                step_back();
                runtime.block_on(pool.run());
            })?;
        Ok(bulk)
    }

    /// Sends the attempt's log as it grows, until its end is durable on the
    /// other side.
    ///
    /// # Errors
    /// If the coordinator does not want it, or the file cannot be read.
    pub async fn send_log(
        &self,
        attempt: AttemptId,
        path: PathBuf,
        growth: watch::Receiver<LogGrowth>,
    ) -> Result<(), BulkError> {
        self.repeat(Transfer::Log(log::LogTransfer {
            attempt,
            path,
            growth,
        }))
        .await
    }

    /// Sends one output, or the manifest, until it is durable on the other
    /// side under its digest.
    ///
    /// # Errors
    /// If the coordinator does not want it, or the file cannot be read or is
    /// not what `list` says.
    pub async fn send_blob(
        &self,
        attempt: AttemptId,
        path: PathBuf,
        list: ChunkList,
    ) -> Result<(), BulkError> {
        let place = self.blobs.acquire().await.map_err(|_| BulkError::Gone)?;
        let list = Arc::new(list);
        let sent = self.repeat(Transfer::Blob(blob::BlobTransfer {
            attempt,
            path,
            list,
        }));
        let sent = sent.await;
        drop(place);
        sent
    }

    /// Fetches an input into the file `to`, which is there and whole when this
    /// comes back.
    ///
    /// # Errors
    /// If there is no such input for this attempt, or it cannot be written.
    pub async fn fetch_input(
        &self,
        attempt: AttemptId,
        digest: Digest,
        length: u64,
        to: PathBuf,
    ) -> Result<(), BulkError> {
        self.repeat(Transfer::Input(input::InputTransfer {
            attempt,
            digest,
            length,
            to,
        }))
        .await
    }

    async fn repeat(&self, transfer: Transfer) -> Result<(), BulkError> {
        let asks = self.asks.clone();
        let mut task = OnBulk(self.runtime.spawn(repeat(transfer, asks)));
        poll_fn(|context| Pin::new(&mut task.0).poll(context))
            .await
            .map_err(|_| BulkError::Gone)?
    }
}

/// A task of the bulk runtime that stops with its future.
struct OnBulk<T>(JoinHandle<T>);

impl<T> Drop for OnBulk<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One thing to be moved, from wherever the other side has it.
enum Transfer {
    Log(log::LogTransfer),
    Blob(blob::BlobTransfer),
    Input(input::InputTransfer),
}

/// Why a transfer stopped this time.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    /// The connection or the stream is gone: go on where it was.
    #[error(transparent)]
    Cut(#[from] FrameError),
    #[error("{0:?}")]
    Refused(BulkRefusal, Reason),
    #[error(transparent)]
    Local(#[from] io::Error),
}

impl From<StreamError> for Stopped {
    fn from(error: StreamError) -> Self {
        Self::Cut(error.into())
    }
}

impl From<Closed> for Stopped {
    fn from(closed: Closed) -> Self {
        Self::Cut(StreamError::Closed(closed).into())
    }
}

async fn repeat(mut transfer: Transfer, asks: mpsc::Sender<Ask>) -> Result<(), BulkError> {
    let mut backoff = Backoff::default();
    loop {
        let lease = pool::lease(&asks).await.ok_or(BulkError::Gone)?;
        let began = Instant::now();
        let moved = match &mut transfer {
            Transfer::Log(log) => log.run(&lease.connection).await,
            Transfer::Blob(blob) => blob.run(&lease.connection).await,
            Transfer::Input(input) => input.run(&lease.connection).await,
        };
        drop(lease);
        match moved {
            Ok(()) => return Ok(()),
            Err(Stopped::Refused(BulkRefusal::NoSpace, why)) => {
                tracing::warn!(%why, "the coordinator has no space: trying again later");
                tokio::time::sleep(jittered(NO_SPACE_WAIT)).await;
            }
            Err(Stopped::Refused(BulkRefusal::Hole, why)) => {
                tracing::warn!(%why, "the coordinator has less than it said: asking again");
                tokio::time::sleep(backoff.next_wait()).await;
            }
            Err(Stopped::Refused(refusal, why)) => {
                return Err(BulkError::Refused { refusal, why });
            }
            Err(Stopped::Local(error)) => return Err(BulkError::Local(error)),
            Err(Stopped::Cut(error)) => {
                tracing::info!(%error, "a transfer was cut: it will go on");
                tokio::time::sleep(backoff.next_wait_after(began.elapsed())).await;
            }
        }
    }
}

/// A transfer's stream: requests out, replies in.
struct Stream {
    send: FrameSender<BulkRequest>,
    receive: FrameReceiver<BulkReply>,
}

impl Stream {
    async fn open(connection: &Connection) -> Result<Self, Stopped> {
        let (send, receive) = connection.open().await?;
        Ok(Self {
            send: FrameSender::new(send),
            receive: FrameReceiver::new(receive),
        })
    }

    /// The next reply; a refusal is an error.
    async fn reply(&mut self) -> Result<BulkReply, Stopped> {
        taken(self.receive.expect_next().await?)
    }
}

fn taken(reply: BulkReply) -> Result<BulkReply, Stopped> {
    match reply {
        BulkReply::BulkRefused(refused) => Err(Stopped::Refused(refused.refusal, refused.why)),
        BulkReply::BulkReady(_)
        | BulkReply::LogHave(_)
        | BulkReply::LogStored(_)
        | BulkReply::BlobHave(_)
        | BulkReply::BlobStored(_)
        | BulkReply::InputHave(_) => Ok(reply),
    }
}

fn out_of_place(reply: &BulkReply) -> Stopped {
    let kind = reply.kind();
    Stopped::Cut(CodecError::OutOfPlace { kind }.into())
}
