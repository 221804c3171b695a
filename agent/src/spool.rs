//! The spool: what a builder must not forget, in one file per builder. Owns
//! the thread that writes and flushes; never knows what a record means.
//!
//! All records that wait are written together and flushed once per file, so
//! that many builders share a flush. Invariant: who was answered has its
//! records on the disk.

mod file;
#[cfg(test)]
mod images;

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use farmbell_protocol::builder::Record;
use tokio::sync::oneshot;

pub use file::{Damage, Restored, restore};

use crate::failpoint::{self, Failpoint};
use file::SpoolFile;

/// Requests that may wait: each builder has at most one out, so this is more
/// than any agent has builders.
const WAITING_MAX: usize = 256;
/// A file is rewritten once it is this large and most of it is past.
const REWRITE_FROM: u64 = 256 << 10;

/// Why records are not durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool {path} cannot be written: {why}")]
    Disk { path: PathBuf, why: String },
    #[error("the spool's thread is gone")]
    Gone,
}

enum Request {
    Append {
        file: usize,
        records: Vec<Record>,
        done: oneshot::Sender<Result<u64, SpoolError>>,
    },
    Rewrite {
        file: usize,
        records: Vec<Record>,
        done: oneshot::Sender<Result<u64, SpoolError>>,
    },
    Restore {
        file: usize,
        done: oneshot::Sender<Result<Restored, SpoolError>>,
    },
}

/// A builder's end of its spool.
#[derive(Clone, Debug)]
pub struct Spool {
    file: usize,
    requests: mpsc::SyncSender<Request>,
}

impl Spool {
    /// Makes records durable; gives the file's size.
    ///
    /// # Errors
    /// If the disk fails: nothing may be said then.
    pub async fn append(&self, records: Vec<Record>) -> Result<u64, SpoolError> {
        let file = self.file;
        self.ask(|done| Request::Append {
            file,
            records,
            done,
        })
        .await
    }

    /// Replaces everything by these records.
    ///
    /// # Errors
    /// If the disk fails; the old file is then still whole.
    pub async fn rewrite(&self, records: Vec<Record>) -> Result<u64, SpoolError> {
        let file = self.file;
        self.ask(|done| Request::Rewrite {
            file,
            records,
            done,
        })
        .await
    }

    /// What the file says, behind all that was asked before; mends it where it
    /// is torn or damaged.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn restore(&self) -> Result<Restored, SpoolError> {
        let file = self.file;
        self.ask(|done| Request::Restore { file, done }).await
    }

    /// Whether a file of this size is worth rewriting.
    #[must_use]
    pub const fn is_large(size: u64) -> bool {
        size >= REWRITE_FROM
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, SpoolError>>) -> Request,
    ) -> Result<T, SpoolError> {
        let (done, answer) = oneshot::channel();
        // Never full: a builder waits for its answer before it asks again.
        self.requests
            .try_send(request(done))
            .map_err(|_| SpoolError::Gone)?;
        answer.await.map_err(|_| SpoolError::Gone)?
    }
}

/// Opens these files and starts their thread.
///
/// # Errors
/// If a file cannot be opened.
pub fn start(paths: &[PathBuf]) -> std::io::Result<Vec<Spool>> {
    let mut files = paths
        .iter()
        .map(|path| SpoolFile::open(path))
        .collect::<std::io::Result<Vec<_>>>()?;
    let (requests, waiting) = mpsc::sync_channel(WAITING_MAX);
    std::thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || write(&waiting, &mut files))?;
    Ok((0..paths.len())
        .map(|file| Spool {
            file,
            requests: requests.clone(),
        })
        .collect())
}

/// Takes whatever waits, writes it, flushes each file once, answers.
fn write(waiting: &mpsc::Receiver<Request>, files: &mut [SpoolFile]) {
    while let Ok(first) = waiting.recv() {
        let mut answers = Vec::new();
        for request in std::iter::once(first).chain(waiting.try_iter()) {
            match request {
                Request::Append {
                    file,
                    records,
                    done,
                } => answers.push((file, files[file].append(&records), done)),
                Request::Rewrite {
                    file,
                    records,
                    done,
                } => answer(files[file].rewrite(&records), files[file].path(), done),
                Request::Restore { file, done } => {
                    answer(files[file].restore(), files[file].path(), done);
                }
            }
        }
        if answers.is_empty() {
            continue;
        }
        failpoint::pass(Failpoint::SpoolWritten);
        for (file, written, done) in answers {
            let file = &mut files[file];
            let kept = written.and_then(|()| file.flush());
            failpoint::pass(Failpoint::SpoolSynced);
            answer(kept, file.path(), done);
        }
    }
}

fn answer<T>(kept: std::io::Result<T>, path: &Path, done: oneshot::Sender<Result<T, SpoolError>>) {
    let kept = kept.map_err(|error| SpoolError::Disk {
        path: path.to_owned(),
        why: error.to_string(),
    });
    if done.send(kept).is_err() {
        tracing::debug!("a builder did not wait for its spool");
    }
}
