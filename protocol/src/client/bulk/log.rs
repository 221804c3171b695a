//! A log on its way: byte ranges by offset from a file that still grows, cut
//! records in their places, an explicit end.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "one kind of reply has its place; every other is out of it"
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Stopped, Stream, out_of_place, taken};
use crate::bounded::Blob;
use crate::bulk::{BulkReply, LOG_DATA_MAX, LogCut, LogData, LogEnd, LogOpen};
use crate::client::transport::Connection;
use crate::id::AttemptId;

/// Bytes read from the file, and sent, at once.
const READ_BYTES: u64 = 4 * LOG_DATA_MAX as u64;

/// How much of a log there is: told anew whenever it grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogGrowth {
    /// Bytes of the stored log, all of them in the file.
    pub length: u64,
    /// In the order of their offsets.
    pub cuts: Vec<Cut>,
    /// Nothing will be added.
    pub ended: bool,
}

/// At `offset` of the stored log, `dropped` bytes of output are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub offset: u64,
    pub dropped: u64,
}

pub(super) struct LogTransfer {
    pub(super) attempt: AttemptId,
    pub(super) path: PathBuf,
    pub(super) growth: watch::Receiver<LogGrowth>,
}

impl LogTransfer {
    pub(super) async fn run(&mut self, connection: &Connection) -> Result<(), Stopped> {
        let mut stream = Stream::open(connection).await?;
        let attempt = self.attempt;
        stream.send.send(LogOpen { attempt }).await?;
        let mut at = match stream.reply().await? {
            BulkReply::LogHave(have) => have.offset,
            other => return Err(out_of_place(&other)),
        };
        let file = opened(self.path.clone()).await?;
        // Cuts may be missing there, and are told later than the bytes behind
        // them: all are said again, and counted once.
        let mut cuts_sent_to = None;
        loop {
            let growth = self.growth.borrow_and_update().clone();
            // A power cut here may have taken bytes that arrived there: they
            // were written once, so the log ends where it ends there.
            at = send_grown(&mut stream, file.as_ref(), &growth, at, &mut cuts_sent_to).await?;
            if growth.ended {
                break;
            }
            self.wait_for_more(&mut stream).await?;
        }
        let length = at;
        stream.send.send(LogEnd { length }).await?;
        stream.send.finish();
        confirmed(&mut stream, length).await
    }

    async fn wait_for_more(&mut self, stream: &mut Stream) -> Result<(), Stopped> {
        loop {
            tokio::select! {
                changed = self.growth.changed() => {
                    return changed.map_err(|_| {
                        io::Error::other("whoever wrote the log is gone before its end").into()
                    });
                }
                reply = stream.receive.expect_next() => match taken(reply?)? {
                    BulkReply::LogStored(_) => {}
                    other => return Err(out_of_place(&other)),
                },
            }
        }
    }
}

/// Sends what lies between `at` and the log's present length.
async fn send_grown(
    stream: &mut Stream,
    file: Option<&Arc<File>>,
    growth: &LogGrowth,
    mut at: u64,
    cuts_sent_to: &mut Option<u64>,
) -> Result<u64, Stopped> {
    loop {
        let mut until = growth.length;
        for cut in &growth.cuts {
            if cuts_sent_to.is_some_and(|sent| cut.offset <= sent) {
                continue;
            }
            if cut.offset > at {
                until = until.min(cut.offset);
                break;
            }
            let (offset, dropped) = (cut.offset, cut.dropped);
            stream.send.queue(&LogCut { offset, dropped }.into());
            *cuts_sent_to = Some(offset);
        }
        if at >= growth.length {
            stream.send.flush().await?;
            return Ok(at);
        }
        let bytes = read_at(file, at, (until - at).min(READ_BYTES)).await?;
        for piece in bytes.chunks(LOG_DATA_MAX) {
            let data = LogData {
                offset: at,
                bytes: Blob::tail(piece),
            };
            stream.send.queue(&data.into());
            at += piece.len() as u64;
        }
        stream.send.flush().await?;
    }
}

/// Waits until the end is durable: the other side says the whole length and
/// finishes.
async fn confirmed(stream: &mut Stream, length: u64) -> Result<(), Stopped> {
    let mut stored = 0;
    while let Some(reply) = stream.receive.next().await? {
        match taken(reply)? {
            BulkReply::LogStored(now) => stored = now.offset,
            other => return Err(out_of_place(&other)),
        }
    }
    if stored == length {
        Ok(())
    } else {
        Err(Stopped::Cut(crate::client::framed::FrameError::Torn))
    }
}

/// A file that is not there is an empty log: nothing was written before its
/// build ended, or a power cut took it.
async fn opened(path: PathBuf) -> io::Result<Option<Arc<File>>> {
    match blocking(move || File::open(path)).await {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_at(file: Option<&Arc<File>>, at: u64, length: u64) -> Result<Vec<u8>, Stopped> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let file = file.cloned().ok_or(io::ErrorKind::NotFound);
    let file = file.map_err(io::Error::from)?;
    let read = blocking(move || {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    });
    Ok(read.await?)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
