//! A log as it grows, for whoever watches. Woken by the writer; reads the file.

use bytes::Bytes;
use farmbell_protocol::id::AttemptId;
use tokio::sync::watch;

use super::{LogError, LogExtent, Logs, log::Log};

/// Bytes given at once: enough to read an old log quickly, small enough for a
/// thousand followers.
const PIECE_BYTES: usize = 64 << 10;

/// A log as it grows.
///
/// Dropping the last one of a log that nobody writes forgets the log.
#[derive(Debug)]
pub struct Follow {
    logs: Logs,
    attempt: AttemptId,
    extent: watch::Receiver<LogExtent>,
    offset: u64,
}

impl Follow {
    pub(super) fn new(logs: Logs, attempt: AttemptId, log: &Log, offset: u64) -> Self {
        Self {
            logs,
            attempt,
            extent: log.watch(),
            offset,
        }
    }

    /// Where the next bytes begin.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes; waits for them. `None` when the log is closed, or
    /// released, and all of it was given. Safe to drop and call again.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        let offset = self.offset;
        let more = |extent: &LogExtent| extent.length > offset || extent.closed;
        let there = match self.extent.wait_for(more).await {
            Ok(extent) => extent.length,
            // The log was forgotten: what is on disk is all there is.
            Err(_forgotten) => self.logs.extent(self.attempt)?.length,
        };
        if there <= offset {
            return Ok(None);
        }
        let (logs, attempt) = (self.logs.clone(), self.attempt);
        let bytes =
            tokio::task::spawn_blocking(move || logs.read_range(attempt, offset, PIECE_BYTES))
                .await
                .expect("reading does not panic")?;
        self.offset += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.logs.leave(self.attempt);
    }
}
