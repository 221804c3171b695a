//! An output on its way in: answered with how much of it is verified, then
//! taken chunk by chunk, each checked before it is written or counted.

use std::mem;
use std::sync::atomic::Ordering::Relaxed;

use farmbell_protocol::bulk::{BlobHave, BlobOpen, BlobStored, BulkRefusal};
use farmbell_protocol::client::framed::{FRAME_TIME, FrameError};
use farmbell_protocol::client::transport::Receiver;
use farmbell_protocol::digest::{CHUNK_BYTES, chunk_count};
use tokio::task::JoinHandle;

use super::connection::{Stopped, Stream, blocking};
use super::{Transfers, collect};
use crate::blobs::{BlobError, Upload};

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
    let digest = open.digest;
    if already_here(&open, transfers).await? {
        let have = BlobHave {
            chunks: chunk_count(open.length),
            want_nodes: false,
        };
        stream.send.queue(&have.into());
    } else {
        let blobs = transfers.blobs.clone();
        let upload = blocking(move || blobs.begin(digest, open.length)).await?;
        let upload = receive(stream, upload, open.length, transfers).await?;
        upload.finish().await?;
    }
    stream.send.send(BlobStored { digest }).await?;
    stream.send.finish();
    let collected = transfers.admissions.stored(open.attempt, digest);
    collect::tell(open.attempt, collected, transfers).await?;
    Ok(())
}

async fn already_here(open: &BlobOpen, transfers: &Transfers) -> Result<bool, BlobError> {
    let (blobs, digest, length) = (transfers.blobs.clone(), open.digest, open.length);
    let there = blocking(move || blobs.contains(digest)).await?;
    Ok(there == Some(length))
}

async fn receive(
    stream: &mut Stream,
    upload: Upload,
    length: u64,
    transfers: &Transfers,
) -> Result<Upload, Stopped> {
    let (from, want_nodes) = (upload.verified_chunks(), upload.wants_nodes());
    let have = BlobHave {
        chunks: from,
        want_nodes,
    };
    stream.send.send(have).await?;
    let mut writer = Writer::Idle(upload);
    if want_nodes {
        let mut nodes = vec![0; usize_of(chunk_count(length) * 32)];
        fill(stream.receive.raw(), &mut nodes, transfers).await?;
        let nodes = nodes.as_chunks::<32>().0.to_vec();
        writer = writer
            .run(move |upload| {
                let mut upload = upload;
                upload.nodes(nodes)?;
                Ok((upload, Vec::new()))
            })
            .await?;
    }
    // While one chunk is hashed and written, the next is read.
    let mut spare = Vec::new();
    for index in from..chunk_count(length) {
        let bytes = CHUNK_BYTES.min(length - index * CHUNK_BYTES);
        let mut chunk = mem::take(&mut spare);
        chunk.resize(usize_of(bytes), 0);
        fill(stream.receive.raw(), &mut chunk, transfers).await?;
        let (idle, buffer) = writer.idle().await?;
        spare = buffer;
        writer = Writer::Idle(idle)
            .run(move |mut upload| {
                upload.chunk(&chunk)?;
                Ok((upload, chunk))
            })
            .await?;
        stream.progressed(transfers).await?;
    }
    let (upload, _) = writer.idle().await?;
    Ok(upload)
}

/// An upload, or the thread that works on it and will give it back together
/// with its buffer.
enum Writer {
    Idle(Upload),
    Busy(JoinHandle<Result<(Upload, Vec<u8>), BlobError>>),
}

impl Writer {
    async fn idle(self) -> Result<(Upload, Vec<u8>), BlobError> {
        match self {
            Self::Idle(upload) => Ok((upload, Vec::new())),
            Self::Busy(thread) => match thread.await {
                Ok(done) => done,
                Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
            },
        }
    }

    async fn run(
        self,
        work: impl FnOnce(Upload) -> Result<(Upload, Vec<u8>), BlobError> + Send + 'static,
    ) -> Result<Self, BlobError> {
        let (upload, _) = self.idle().await?;
        let busy = tokio::task::spawn_blocking(move || work(upload));
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
