//! A log on its way in: bytes by offset into `logs`, acknowledged when they
//! are durable, closed at the length that its agent says.

use std::sync::atomic::Ordering::Relaxed;

use farmbell_farm::event::Event;
use farmbell_protocol::bulk::{BulkRequest, LogHave, LogStored};

use super::Transfers;
use super::connection::{Stopped, Stream, blocking, out_of_place};
use crate::failpoint::{self, Failpoint};
use crate::logs::{Cut, LogError};

pub(super) async fn take(stream: &mut Stream, transfers: &Transfers) -> Result<(), Stopped> {
    let (attempt, logs) = (stream.attempt, transfers.logs.clone());
    let extent = blocking(move || logs.extent(attempt)).await?;
    let offset = extent.length;
    stream.send.send(LogHave { offset }).await?;
    let length = take_until_end(stream, transfers).await?;
    transfers.logs.close(attempt, length).await?;
    // The farm first: an agent that was told does not say it again.
    let bytes = length;
    transfers
        .farm
        .tell(Event::LogClosed { attempt, bytes })
        .await?;
    failpoint::pass(Failpoint::LogUnsaid);
    stream.send.send(LogStored { offset: length }).await?;
    stream.send.finish();
    Ok(())
}

/// Takes what comes until the end is said; comes back with the length.
async fn take_until_end(stream: &mut Stream, transfers: &Transfers) -> Result<u64, Stopped> {
    let attempt = stream.attempt;
    let mut flush = Flush::Idle;
    loop {
        let request = tokio::select! {
            request = stream.receive.expect_next() => request?,
            durable = flush.done() => {
                flush = Flush::Idle;
                let offset = durable?;
                stream.send.send(LogStored { offset }).await?;
                continue;
            }
        };
        let logs = transfers.logs.clone();
        match request {
            BulkRequest::LogData(data) => {
                let received = data.bytes.len() as u64;
                transfers.counters.log_bytes.fetch_add(received, Relaxed);
                blocking(move || logs.append(attempt, data.offset, &data.bytes)).await?;
                stream.progressed(transfers).await?;
            }
            BulkRequest::LogCut(cut) => {
                let (offset, dropped) = (cut.offset, cut.dropped);
                blocking(move || logs.cut(attempt, Cut { offset, dropped })).await?;
            }
            BulkRequest::LogEnd(end) => return Ok(end.length),
            other @ (BulkRequest::BulkHello(_)
            | BulkRequest::LogOpen(_)
            | BulkRequest::BlobOpen(_)
            | BulkRequest::InputOpen(_)) => return Err(out_of_place(&other)),
        }
        flush.wanted(transfers, attempt);
    }
}

/// At most one flush is under way; what came meanwhile is in the next.
enum Flush {
    Idle,
    Running(std::pin::Pin<Box<dyn Future<Output = Result<u64, LogError>> + Send>>),
}

impl Flush {
    fn wanted(&mut self, transfers: &Transfers, attempt: farmbell_protocol::id::AttemptId) {
        if let Self::Idle = self {
            let logs = transfers.logs.clone();
            let durable = async move { logs.durable(attempt).await };
            *self = Self::Running(Box::pin(durable));
        }
    }

    async fn done(&mut self) -> Result<u64, LogError> {
        match self {
            Self::Idle => std::future::pending().await,
            Self::Running(flush) => flush.await,
        }
    }
}
