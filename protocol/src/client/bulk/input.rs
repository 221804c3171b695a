//! An input on its way here: raw bytes from an offset into a `.part` file,
//! which takes its name when all of it has the right hash.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "one kind of reply has its place; every other is out of it"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::log::blocking;
use super::{Stopped, Stream, out_of_place};
use crate::bounded::Reason;
use crate::bulk::{BulkRefusal, BulkReply, InputOpen};
use crate::client::framed::FrameError;
use crate::client::transport::Connection;
use crate::digest::Digest;
use crate::id::AttemptId;

/// Bytes taken from the network at once, and pieces that wait for the disk.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 16;

pub(super) struct InputTransfer {
    pub(super) attempt: AttemptId,
    pub(super) digest: Digest,
    pub(super) length: u64,
    pub(super) to: PathBuf,
}

impl InputTransfer {
    pub(super) async fn run(&mut self, connection: &Connection) -> Result<(), Stopped> {
        let part = self.to.with_added_extension("part");
        let wanted = self.length;
        let path = part.clone();
        let (writer, offset) = blocking(move || Writer::open(path, wanted)).await?;
        let mut stream = Stream::open(connection).await?;
        let open = InputOpen {
            attempt: self.attempt,
            digest: self.digest,
            offset,
        };
        stream.send.send(open).await?;
        stream.send.finish();
        match stream.reply().await? {
            BulkReply::InputHave(have) if have.length == wanted => {}
            BulkReply::InputHave(have) => return Err(self.corrupt(have.length)),
            other => return Err(out_of_place(&other)),
        }
        let (pieces, taken) = mpsc::channel(PIECES);
        let writing = tokio::task::spawn_blocking(move || writer.take(taken));
        let received = receive(&mut stream, pieces, wanted - offset).await;
        let hash = writing.await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
        received?;
        if hash != self.digest {
            blocking(move || fs::remove_file(part)).await?;
            return Err(self.corrupt(wanted));
        }
        let to = self.to.clone();
        Ok(blocking(move || fs::rename(part, to)).await?)
    }

    fn corrupt(&self, length: u64) -> Stopped {
        let why = format!(
            "input {} should have {} bytes of that hash, {length} came",
            self.digest, self.length
        );
        Stopped::Refused(BulkRefusal::Corrupt, Reason::cut(why))
    }
}

async fn receive(
    stream: &mut Stream,
    pieces: mpsc::Sender<Bytes>,
    mut left: u64,
) -> Result<(), Stopped> {
    while left > 0 {
        let max = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let piece = stream.receive.raw().receive_owned(max).await?;
        let piece = piece.ok_or(FrameError::Torn)?;
        left -= piece.len() as u64;
        if pieces.send(piece).await.is_err() {
            // The writer failed; it says why.
            break;
        }
    }
    Ok(())
}

/// Writes and hashes, on a thread that may block.
struct Writer {
    file: File,
    hasher: blake3::Hasher,
}

impl Writer {
    /// Goes on with what an earlier try has left, and says where.
    fn open(part: PathBuf, length: u64) -> io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut offset = left_over(&part, &mut hasher)?;
        let mut options = OpenOptions::new();
        options.create(true).write(true);
        if offset > length {
            (hasher, offset) = (blake3::Hasher::new(), 0);
        }
        let file = if offset == 0 {
            options.truncate(true).open(&part)?
        } else {
            OpenOptions::new().append(true).open(&part)?
        };
        Ok((Self { file, hasher }, offset))
    }

    fn take(mut self, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Digest> {
        while let Some(piece) = pieces.blocking_recv() {
            self.hasher.update(&piece);
            self.file.write_all(&piece)?;
        }
        Ok(Digest(*self.hasher.finalize().as_bytes()))
    }
}

fn left_over(part: &Path, hasher: &mut blake3::Hasher) -> io::Result<u64> {
    match File::open(part) {
        Ok(mut file) => io::copy(&mut file, hasher),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
