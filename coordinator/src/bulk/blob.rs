//! An output on its way in: answered with how much of it is verified, then
//! taken chunk by chunk, each checked before it is written or counted. What
//! others have stored has to be shown all the same.

use std::mem;
use std::sync::atomic::Ordering::Relaxed;

use farmbell_protocol::bulk::{BlobHave, BlobOpen, BlobStored, BulkRefusal};
use farmbell_protocol::client::framed::{FRAME_TIME, FrameError};
use farmbell_protocol::client::transport::Receiver;
use farmbell_protocol::digest::{CHUNK_BYTES, Digest, chunk_count};
use farmbell_protocol::id::AttemptId;
use tokio::task::{JoinError, JoinHandle};

use super::connection::{Stopped, Stream, blocking};
use super::sink::Sink;
use super::{Transfers, collect};
use crate::blobs::BlobError;
use crate::failpoint::{self, Failpoint};

/// The longest blob: its chunk list is one mebibyte.
const BLOB_BYTES_MAX: u64 = 32 << 30;

pub(super) async fn take(
    stream: &mut Stream,
    open: BlobOpen,
    transfers: &Transfers,
) -> Result<(), Stopped> {
    if open.length > BLOB_BYTES_MAX {
        let why = format!("{} bytes are more than a blob may have", open.length);
        return Err(Stopped::Refused(BulkRefusal::NoSpace, why));
    }
    let (attempt, digest, length) = (open.attempt, open.digest, open.length);
    let blobs = transfers.blobs.clone();
    let stored = blocking(move || blobs.claim(digest)).await? == Some(length);
    let noted = if stored && proved(attempt, digest, transfers).await? {
        let have = BlobHave {
            chunks: chunk_count(length),
            want_nodes: false,
        };
        stream.send.queue(&have.into());
        false
    } else {
        let sink = if stored {
            Sink::compare(digest, length)
        } else {
            let blobs = transfers.blobs.clone();
            Sink::Store(blocking(move || blobs.begin(digest, length)).await?)
        };
        receive(stream, sink, length, transfers)
            .await?
            .finish()
            .await?;
        let delivered = transfers.delivered.clone();
        blocking(move || delivered.note(attempt, digest, length)).await?
    };
    // The farm first: an agent that was told does not say it again.
    let admissions = &transfers.admissions;
    let collected = admissions.stored(attempt, digest, length, noted);
    collect::tell(attempt, collected, transfers).await?;
    failpoint::pass(Failpoint::BlobUnsaid);
    stream.send.send(BlobStored { digest }).await?;
    stream.send.finish();
    Ok(())
}

/// Whether the attempt has this blob for certain: it has sent it, or it was
/// given it. Then nothing is sent.
async fn proved(
    attempt: AttemptId,
    digest: Digest,
    transfers: &Transfers,
) -> Result<bool, Stopped> {
    let known = transfers.admissions.proved(attempt, digest);
    let known = match known {
        Some(known) => known,
        None => {
            let delivered = transfers.delivered.clone();
            let noted = blocking(move || delivered.of(attempt)).await?;
            transfers.admissions.delivered(attempt, noted);
            transfers.admissions.proved(attempt, digest) == Some(true)
        }
    };
    if known {
        return Ok(true);
    }
    let specs = transfers.specs.clone();
    let spec = blocking(move || specs.get(attempt.job)).await?;
    Ok(spec.inputs.iter().any(|input| input.digest == digest))
}

async fn receive(
    stream: &mut Stream,
    sink: Sink,
    length: u64,
    transfers: &Transfers,
) -> Result<Sink, Stopped> {
    let (from, want_nodes) = (sink.verified_chunks(), sink.wants_nodes());
    let have = BlobHave {
        chunks: from,
        want_nodes,
    };
    stream.send.send(have).await?;
    if from > 0 {
        let chunks = chunk_count(length);
        tracing::info!(
            verified_chunks = from,
            chunks,
            "an upload goes on where it was"
        );
    }
    let mut writer = Writer::Idle(sink);
    if want_nodes {
        let mut nodes = vec![0; usize_of(chunk_count(length) * 32)];
        fill(stream.receive.raw(), &mut nodes, transfers).await?;
        let nodes = nodes.as_chunks::<32>().0.to_vec();
        writer = writer
            .run(move |mut sink| {
                sink.nodes(nodes)?;
                Ok((sink, Vec::new()))
            })
            .await?;
    }
    // While one chunk is hashed and written, the next is read, and what was
    // written before is flushed.
    let mut spare = Vec::new();
    let mut flushing = Flushing::default();
    for index in from..chunk_count(length) {
        let bytes = CHUNK_BYTES.min(length - index * CHUNK_BYTES);
        let mut chunk = mem::take(&mut spare);
        chunk.resize(usize_of(bytes), 0);
        fill(stream.receive.raw(), &mut chunk, transfers).await?;
        let (mut idle, buffer) = writer.idle().await?;
        spare = buffer;
        flushing.go_on(&mut idle).await?;
        let counters = transfers.counters.clone();
        writer = Writer::Idle(idle)
            .run(move |mut sink| {
                sink.chunk(&chunk)?;
                counters.verified_bytes.fetch_add(bytes, Relaxed);
                Ok((sink, chunk))
            })
            .await?;
        stream.progressed(transfers).await?;
    }
    let (sink, _) = writer.idle().await?;
    flushing.end().await?;
    Ok(sink)
}

/// At most one flush beside the writing.
#[derive(Default)]
struct Flushing(Option<JoinHandle<Result<(), BlobError>>>);

impl Flushing {
    /// Begins one that is due, unless the one before is still at it.
    async fn go_on(&mut self, sink: &mut Sink) -> Result<(), BlobError> {
        if self.0.as_ref().is_some_and(|flush| !flush.is_finished()) {
            return Ok(());
        }
        self.end().await?;
        let due = sink.flush_due();
        self.0 = due.map(|flush| tokio::task::spawn_blocking(move || flush.run()));
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BlobError> {
        match self.0.take() {
            Some(flush) => joined(flush.await),
            None => Ok(()),
        }
    }
}

fn joined<T>(ended: Result<Result<T, BlobError>, JoinError>) -> Result<T, BlobError> {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(Box::new(panic.to_string())))
}

/// A sink, or the thread that works on it and will give it back together
/// with its buffer.
enum Writer {
    Idle(Sink),
    Busy(JoinHandle<Result<(Sink, Vec<u8>), BlobError>>),
}

impl Writer {
    async fn idle(self) -> Result<(Sink, Vec<u8>), BlobError> {
        match self {
            Self::Idle(sink) => Ok((sink, Vec::new())),
            Self::Busy(thread) => joined(thread.await),
        }
    }

    async fn run(
        self,
        work: impl FnOnce(Sink) -> Result<(Sink, Vec<u8>), BlobError> + Send + 'static,
    ) -> Result<Self, BlobError> {
        let (sink, _) = self.idle().await?;
        let busy = tokio::task::spawn_blocking(move || work(sink));
        Ok(Self::Busy(busy))
    }
}

/// Reads exactly so many raw bytes; a peer that stops sending is cut.
async fn fill(
    receive: &mut Receiver,
    buffer: &mut [u8],
    transfers: &Transfers,
) -> Result<(), Stopped> {
    let mut filled = 0;
    while filled < buffer.len() {
        let read = receive.receive(&mut buffer[filled..]);
        let read = tokio::time::timeout(6 * FRAME_TIME, read).await;
        match read.map_err(|_| FrameError::Slow)?? {
            Some(count) => {
                filled += count;
                transfers
                    .counters
                    .blob_bytes
                    .fetch_add(count as u64, Relaxed);
            }
            None => return Err(FrameError::Torn.into()),
        }
    }
    Ok(())
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a chunk or a chunk list fits in memory")
}
