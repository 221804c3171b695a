//! Logs of attempts on disk. Owns what lies under `logs/`: a stored log is a
//! prefix of what the agent spooled, except for the cuts recorded beside it.

use std::path::Path;

use bytes::Bytes;
use farmbell_protocol::id::AttemptId;

/// Where logs are.
#[derive(Clone, Debug)]
pub struct Logs {}

/// Why log bytes were not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log has {have} bytes; bytes at {offset} would leave a hole")]
    Hole { have: u64, offset: u64 },
    #[error("the log is closed at {length} bytes")]
    Closed { length: u64 },
    #[error("the log has {have} bytes, not the {length} it should be closed with")]
    NotWhole { have: u64, length: u64 },
    #[error("no space for logs: free some on {path}")]
    NoSpace { path: String },
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
}

/// Output that is missing by the cut policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub offset: u64,
    pub dropped: u64,
}

/// How much of a log there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogExtent {
    pub length: u64,
    /// No more will come.
    pub closed: bool,
}

/// A log as it grows.
#[derive(Debug)]
pub struct Follow {}

impl Logs {
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(_dir: &Path) -> Result<Self, LogError> {
        unimplemented!()
    }

    /// Appends what is new of these bytes; a repeat changes nothing. Returns
    /// the log's length. Blocks for one write.
    ///
    /// # Errors
    /// [`LogError::Hole`], [`LogError::Closed`], or if writing fails.
    pub fn append(
        &self,
        _attempt: AttemptId,
        _offset: u64,
        _bytes: &[u8],
    ) -> Result<u64, LogError> {
        unimplemented!()
    }

    /// Records that output is missing at an offset; a repeat changes nothing.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn cut(&self, _attempt: AttemptId, _cut: Cut) -> Result<(), LogError> {
        unimplemented!()
    }

    /// Flushes what was appended, at most about once a second per log: waits
    /// for its turn, then says how much is durable.
    ///
    /// # Errors
    /// If flushing fails.
    #[expect(clippy::unused_async, reason = "lands next")]
    pub async fn durable(&self, _attempt: AttemptId) -> Result<u64, LogError> {
        unimplemented!()
    }

    /// Closes the log at this length, durably. Idempotent.
    ///
    /// # Errors
    /// [`LogError::NotWhole`], or if flushing fails.
    #[expect(clippy::unused_async, reason = "lands next")]
    pub async fn close(&self, _attempt: AttemptId, _length: u64) -> Result<(), LogError> {
        unimplemented!()
    }

    /// Nothing more will come of this attempt: ends its followers and forgets
    /// its open file. What is stored stays.
    pub fn release(&self, _attempt: AttemptId) {
        unimplemented!()
    }

    /// # Errors
    /// If the disk cannot be read.
    pub fn extent(&self, _attempt: AttemptId) -> Result<LogExtent, LogError> {
        unimplemented!()
    }

    /// # Errors
    /// If the disk cannot be read.
    pub fn cuts(&self, _attempt: AttemptId) -> Result<Vec<Cut>, LogError> {
        unimplemented!()
    }

    /// At most `length` bytes from `offset`. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn read_range(
        &self,
        _attempt: AttemptId,
        _offset: u64,
        _length: usize,
    ) -> Result<Bytes, LogError> {
        unimplemented!()
    }

    /// The last `length` bytes at most. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn tail(&self, _attempt: AttemptId, _length: usize) -> Result<Bytes, LogError> {
        unimplemented!()
    }

    /// The log from `from` on, live.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn follow(&self, _attempt: AttemptId, _from: u64) -> Result<Follow, LogError> {
        unimplemented!()
    }
}

impl Follow {
    /// The next bytes; waits for them. `None` when the log is closed, or
    /// released, and all of it was given.
    ///
    /// # Errors
    /// If the disk cannot be read.
    #[expect(clippy::unused_async, reason = "lands next")]
    pub async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        unimplemented!()
    }
}
