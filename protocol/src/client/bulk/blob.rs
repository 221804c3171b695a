//! An output on its way: the chunk nodes if they are wanted, then every chunk
//! the other side has not verified yet.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "one kind of reply has its place; every other is out of it"
)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Stopped, Stream, out_of_place, taken};
use crate::bulk::{BlobOpen, BulkReply};
use crate::client::framed::FrameError;
use crate::client::transport::Connection;
use crate::digest::{CHUNK_BYTES, ChunkList};
use crate::id::AttemptId;

/// Bytes read at once: small enough to stay in a processor's cache.
const PIECE_BYTES: u64 = 256 << 10;
/// Pieces that wait for the network, so that reading goes on meanwhile.
const PIECES: usize = 4;

pub(super) struct BlobTransfer {
    pub(super) attempt: AttemptId,
    pub(super) path: PathBuf,
    pub(super) list: Arc<ChunkList>,
}

impl BlobTransfer {
    pub(super) async fn run(&mut self, connection: &Connection) -> Result<(), Stopped> {
        let mut stream = Stream::open(connection).await?;
        let (digest, length) = (self.list.root(), self.list.length());
        let open = BlobOpen {
            attempt: self.attempt,
            digest,
            length,
        };
        stream.send.send(open).await?;
        let have = match stream.reply().await? {
            BulkReply::BlobHave(have) => have,
            other => return Err(out_of_place(&other)),
        };
        if have.want_nodes {
            let nodes = Bytes::from(self.list.nodes().concat());
            stream.send.raw().send_owned(nodes).await?;
        }
        let from = have.chunks.saturating_mul(CHUNK_BYTES).min(length);
        let sent = self.send_from(&mut stream, from).await;
        stream.send.finish();
        // Where sending failed because of a refusal, that is the better answer.
        match stream.receive.next().await {
            Ok(Some(reply)) => match taken(reply)? {
                BulkReply::BlobStored(stored) if stored.digest == digest => sent,
                other => Err(out_of_place(&other)),
            },
            Ok(None) => sent.and_then(|()| Err(FrameError::Torn.into())),
            Err(error) => sent.and_then(|()| Err(error.into())),
        }
    }

    async fn send_from(&self, stream: &mut Stream, from: u64) -> Result<(), Stopped> {
        let length = self.list.length();
        let (pieces, mut read) = mpsc::channel(PIECES);
        let path = self.path.clone();
        let reader = tokio::task::spawn_blocking(move || read_pieces(&path, from, length, &pieces));
        while let Some(piece) = read.recv().await {
            stream.send.raw().send_owned(piece).await?;
        }
        let read = reader.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        Ok(read?)
    }
}

/// Reads a file piece by piece for as long as somebody takes them.
fn read_pieces(path: &Path, from: u64, length: u64, to: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut left = length - from;
    while left > 0 {
        let wanted = left.min(PIECE_BYTES);
        let mut piece = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
        let got = (&mut file).take(wanted).read_to_end(&mut piece)? as u64;
        if got < wanted {
            let text = format!("{} is shorter than when it was sealed", path.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        if to.blocking_send(Bytes::from(piece)).is_err() {
            return Ok(());
        }
        left -= got;
    }
    Ok(())
}
