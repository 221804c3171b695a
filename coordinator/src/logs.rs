//! Logs of attempts on disk. Owns what lies under `logs/`: a stored log is a
//! prefix of what the agent spooled, except for the cuts recorded beside it.
//! Never decides whose bytes are taken (sessions do) nor when a log is whole
//! (the agent says so, the farm records it).
//!
//! Invariant: bytes are appended by offset, so that a repeat changes nothing
//! and a hole cannot come to be. A length seen on disk is a length of real
//! bytes: the file systems that a state directory may lie on (ext4, XFS,
//! btrfs, tmpfs) never show a length before its bytes.

mod cuts;
mod follow;
mod log;
mod retired;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use farmbell_protocol::id::AttemptId;

pub use follow::Follow;

use crate::disk::{DiskError, sync_file_system};
use log::Log;

/// Where logs are.
#[derive(Clone, Debug)]
pub struct Logs {
    directory: Arc<Path>,
    // The logs that grow or are followed; held for a lookup, never over a write.
    open: Arc<Mutex<BTreeMap<AttemptId, Arc<Log>>>>,
}

/// Why log bytes were not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log has {have} bytes; bytes at {offset} would leave a hole")]
    Hole { have: u64, offset: u64 },
    #[error("the log is closed at {length} bytes")]
    Closed { length: u64 },
    #[error("the log has {have} bytes, not the {length} it should be closed with")]
    NotWhole { have: u64, length: u64 },
    #[error("the list of cuts {path} cannot be read at line {line}")]
    Cuts { path: String, line: usize },
    #[error(transparent)]
    Disk(#[from] DiskError),
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
    /// No more will come, as far as this process has heard.
    pub closed: bool,
}

impl Logs {
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        fs::create_dir_all(directory).map_err(DiskError::at(directory))?;
        sync_file_system(directory)?;
        Ok(Self::beside(directory))
    }

    /// To read beside the process that has opened the directory.
    #[must_use]
    pub fn beside(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
            open: Arc::default(),
        }
    }

    /// Appends what is new of these bytes; a repeat changes nothing. Returns
    /// the log's length. Blocks for one write.
    ///
    /// # Errors
    /// [`LogError::Hole`], [`LogError::Closed`], or if writing fails.
    pub fn append(&self, attempt: AttemptId, offset: u64, bytes: &[u8]) -> Result<u64, LogError> {
        self.log(attempt)?.append(offset, bytes)
    }

    /// Records that output is missing at an offset; a repeat changes nothing.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn cut(&self, attempt: AttemptId, cut: Cut) -> Result<(), LogError> {
        self.log(attempt)?.cut(cut)
    }

    /// Flushes what was appended, at most about once a second per log: waits
    /// for its turn, then says how much is durable.
    ///
    /// # Errors
    /// If flushing fails.
    pub async fn durable(&self, attempt: AttemptId) -> Result<u64, LogError> {
        self.log(attempt)?.durable().await
    }

    /// Closes the log at this length, durably. Idempotent.
    ///
    /// # Errors
    /// [`LogError::NotWhole`], or if flushing fails.
    pub async fn close(&self, attempt: AttemptId, length: u64) -> Result<(), LogError> {
        self.log(attempt)?.close(length).await
    }

    /// Nothing more will come of this attempt: ends its followers and forgets
    /// its open file. What is stored stays.
    pub fn release(&self, attempt: AttemptId) {
        if let Some(log) = self.opened().remove(&attempt) {
            log.end();
        }
    }

    /// # Errors
    /// If the disk cannot be read.
    pub fn extent(&self, attempt: AttemptId) -> Result<LogExtent, LogError> {
        if let Some(log) = self.opened().get(&attempt) {
            return Ok(log.extent());
        }
        let path = self.path(attempt);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(LogExtent {
                length: metadata.len(),
                closed: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LogExtent::default()),
            Err(error) => Err(DiskError::at(&path)(error).into()),
        }
    }

    /// What is missing, in the order of the offsets. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn cuts(&self, attempt: AttemptId) -> Result<Vec<Cut>, LogError> {
        cuts::read(&self.path(attempt).with_extension(cuts::EXTENSION))
    }

    /// At most `length` bytes from `offset`; none behind the end, and none of
    /// a log that has not begun. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn read_range(
        &self,
        attempt: AttemptId,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, LogError> {
        let path = self.path(attempt);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Bytes::new()),
            Err(error) => return Err(DiskError::at(&path)(error).into()),
        };
        let there = file.metadata().map_err(DiskError::at(&path))?.len();
        let left = usize::try_from(there.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        file.read_exact_at(&mut bytes, offset)
            .map_err(DiskError::at(&path))?;
        Ok(bytes.into())
    }

    /// The last `length` bytes at most. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn tail(&self, attempt: AttemptId, length: usize) -> Result<Bytes, LogError> {
        let end = self.extent(attempt)?.length;
        self.read_range(attempt, end.saturating_sub(length as u64), length)
    }

    /// The log from `from` on, live. A log that has not begun is waited for.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn follow(&self, attempt: AttemptId, from: u64) -> Result<Follow, LogError> {
        let log = self.log(attempt)?;
        Ok(Follow::new(self.clone(), attempt, &log, from))
    }

    /// Where the log of an attempt lies, beside others of its job.
    #[must_use]
    pub fn path(&self, attempt: AttemptId) -> PathBuf {
        let job = attempt.job.to_string();
        let name = format!("{attempt}-{:016x}.log", attempt.nonce);
        self.directory.join(&job[..2]).join(name)
    }

    /// A follower goes. Only a log that was opened to be followed is forgotten.
    fn leave(&self, attempt: AttemptId) {
        let mut open = self.opened();
        if open
            .get(&attempt)
            .is_some_and(|log| log.is_only_followed_by_one())
        {
            open.remove(&attempt);
        }
    }

    fn log(&self, attempt: AttemptId) -> Result<Arc<Log>, LogError> {
        let mut open = self.opened();
        if let Some(log) = open.get(&attempt) {
            return Ok(log.clone());
        }
        let log = Arc::new(Log::open(&self.path(attempt))?);
        open.insert(attempt, log.clone());
        Ok(log)
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Arc<Log>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
