//! An input on its way out: only to the agent that has the attempt, and only
//! what the job's spec names.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use farmbell_protocol::bulk::{BulkRefusal, InputHave, InputOpen};
use tokio::sync::mpsc;

use super::Transfers;
use super::connection::{Stopped, Stream, blocking};

/// Bytes read at once, and pieces that wait for the network.
const PIECE_BYTES: u64 = 256 << 10;
const PIECES: usize = 4;

pub(super) async fn give(
    stream: &mut Stream,
    open: InputOpen,
    transfers: &Transfers,
) -> Result<(), Stopped> {
    let (specs, job) = (transfers.specs.clone(), open.attempt.job);
    let spec = blocking(move || specs.get(job)).await?;
    let input = spec.inputs.iter().find(|input| input.digest == open.digest);
    let Some(length) = input.map(|input| input.length) else {
        let why = format!("job {job} has no input {}", open.digest);
        return Err(Stopped::Refused(BulkRefusal::NoSuchInput, why));
    };
    let (blobs, digest) = (transfers.blobs.clone(), open.digest);
    let file = blocking(move || blobs.read(digest)).await?;
    stream.send.send(InputHave { length }).await?;
    let (pieces, mut read) = mpsc::channel(PIECES);
    let from = open.offset.min(length);
    let reader = tokio::task::spawn_blocking(move || read_pieces(file, from, length, &pieces));
    while let Some(piece) = read.recv().await {
        transfers
            .counters
            .input_bytes
            .fetch_add(piece.len() as u64, Relaxed);
        stream.send.raw().send_owned(piece).await?;
        stream.progressed(transfers).await?;
    }
    match reader.await {
        Ok(Ok(())) => stream.send.finish(),
        Ok(Err(error)) => tracing::error!(%error, %digest, "a stored blob cannot be read"),
        Err(error) => tracing::error!(%error, %digest, "the reader of a blob panicked"),
    }
    Ok(())
}

fn read_pieces(mut file: File, from: u64, length: u64, to: &mpsc::Sender<Bytes>) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    let mut left = length - from;
    while left > 0 {
        let wanted = left.min(PIECE_BYTES);
        let mut piece = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
        let got = (&mut file).take(wanted).read_to_end(&mut piece)? as u64;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= got;
        if to.blocking_send(Bytes::from(piece)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
