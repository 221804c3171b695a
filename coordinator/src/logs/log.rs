//! One log that grows. Owns its file, how much of it is durable, and when it
//! may be flushed again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Cut, LogError, LogExtent, cuts};
use crate::disk::{DiskError, sync_directory};
use crate::failpoint::{self, Failpoint};

/// Between two flushes of one log: what a power cut may cost is sent again.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    // Appends of one attempt come one after the other; the lock is for the
    // moment in which an old connection's last write meets a new one's first.
    written: Mutex<Written>,
    /// Held by whoever flushes: when that was last done, and up to where.
    flushed: tokio::sync::Mutex<Flushed>,
    extent: watch::Sender<LogExtent>,
}

#[derive(Debug)]
struct Written {
    /// Made at the first byte: most followers come to logs that others write.
    file: Option<Arc<File>>,
    length: u64,
    cuts: Vec<Cut>,
    cuts_dirty: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Flushed {
    at: Option<Instant>,
    length: u64,
    /// Whether the file's name is durable too.
    named: bool,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let extent = LogExtent {
            length,
            closed: false,
        };
        Ok(Self {
            path: path.to_owned(),
            written: Mutex::new(Written {
                file: None,
                length,
                cuts: cuts::read(&path.with_extension(cuts::EXTENSION))?,
                cuts_dirty: false,
                closed: false,
            }),
            flushed: tokio::sync::Mutex::default(),
            extent: watch::Sender::new(extent),
        })
    }

    pub(super) fn append(&self, offset: u64, bytes: &[u8]) -> Result<u64, LogError> {
        let mut written = self.written();
        let have = written.length;
        if offset > have {
            return Err(LogError::Hole { have, offset });
        }
        let known = usize::try_from(have - offset).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) else {
            return Ok(have);
        };
        if written.closed {
            return Err(LogError::Closed { length: have });
        }
        let file = self.file(&mut written)?;
        file.write_all_at(new, have)
            .map_err(DiskError::at(&self.path))?;
        failpoint::pass(Failpoint::LogAppended);
        written.length += new.len() as u64;
        self.tell(&written);
        Ok(written.length)
    }

    pub(super) fn cut(&self, cut: Cut) -> Result<(), LogError> {
        let mut written = self.written();
        let have = written.length;
        if cut.offset > have {
            let offset = cut.offset;
            return Err(LogError::Hole { have, offset });
        }
        if written.cuts.contains(&cut) {
            return Ok(());
        }
        if written.closed {
            return Err(LogError::Closed { length: have });
        }
        self.file(&mut written)?;
        written.cuts.push(cut);
        written.cuts.sort_unstable_by_key(|cut| cut.offset);
        cuts::write(&self.path.with_extension(cuts::EXTENSION), &written.cuts)?;
        written.cuts_dirty = true;
        Ok(())
    }

    pub(super) async fn durable(self: &Arc<Self>) -> Result<u64, LogError> {
        let mut flushed = self.flushed.lock().await;
        if let Some(last) = flushed.at {
            tokio::time::sleep_until(last + FLUSH_EVERY).await;
        }
        self.flush(&mut flushed).await?;
        Ok(flushed.length)
    }

    pub(super) async fn close(self: &Arc<Self>, length: u64) -> Result<(), LogError> {
        let have = self.written().length;
        if have != length {
            return Err(LogError::NotWhole { have, length });
        }
        self.flush(&mut *self.flushed.lock().await).await?;
        self.end();
        failpoint::pass(Failpoint::LogClosed);
        Ok(())
    }

    /// No more will come: followers end when they have read everything.
    pub(super) fn end(&self) {
        let mut written = self.written();
        written.closed = true;
        self.tell(&written);
    }

    pub(super) fn extent(&self) -> LogExtent {
        *self.extent.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<LogExtent> {
        self.extent.subscribe()
    }

    pub(super) fn is_only_followed_by_one(&self) -> bool {
        self.extent.receiver_count() <= 1 && self.written().file.is_none()
    }

    /// Flushes unless nothing was written since.
    async fn flush(self: &Arc<Self>, flushed: &mut Flushed) -> Result<(), LogError> {
        let (length, cuts_dirty, file) = {
            let mut written = self.written();
            let file = self.file(&mut written)?;
            (written.length, written.cuts_dirty, file)
        };
        if flushed.named && flushed.length == length && !cuts_dirty {
            return Ok(());
        }
        let log = self.clone();
        let (named, durable) = (flushed.named, flushed.length);
        tokio::task::spawn_blocking(move || {
            log.flush_blocking(&file, cuts_dirty, named)
                .inspect_err(|_| log.fall_back(&file, durable))
        })
        .await
        .expect("flushing does not panic")?;
        failpoint::pass(Failpoint::LogSynced);
        *flushed = Flushed {
            at: Some(Instant::now()),
            length,
            named: true,
        };
        Ok(())
    }

    fn flush_blocking(&self, file: &File, cuts_dirty: bool, named: bool) -> Result<(), LogError> {
        file.sync_data().map_err(DiskError::at(&self.path))?;
        if cuts_dirty {
            let mut written = self.written();
            cuts::write(&self.path.with_extension(cuts::EXTENSION), &written.cuts)?
                .sync_data()
                .map_err(DiskError::at(&self.path))?;
            written.cuts_dirty = false;
        }
        if !named || cuts_dirty {
            let shard = self.path.parent().expect("a log lies in its shard");
            sync_directory(shard)?;
            sync_directory(shard.parent().expect("a shard lies among the logs"))?;
        }
        Ok(())
    }

    /// What a failed flush left is anybody's guess, and the next flush would
    /// succeed without it: its agent sends it again.
    fn fall_back(&self, file: &File, durable: u64) {
        let mut written = self.written();
        written.length = durable;
        written.cuts_dirty |= !written.cuts.is_empty();
        written.cuts.retain(|cut| cut.offset <= durable);
        if let Err(error) = file.set_len(durable) {
            tracing::warn!(log = %self.path.display(), %error, "not shortened; written over instead");
        }
        self.tell(&written);
    }

    fn file(&self, written: &mut Written) -> Result<Arc<File>, LogError> {
        if let Some(file) = &written.file {
            return Ok(file.clone());
        }
        let shard = self.path.parent().expect("a log lies in its shard");
        fs::create_dir_all(shard).map_err(DiskError::at(shard))?;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .map_err(DiskError::at(&self.path))?;
        let file = Arc::new(file);
        written.file = Some(file.clone());
        Ok(file)
    }

    fn tell(&self, written: &Written) {
        self.extent.send_replace(LogExtent {
            length: written.length,
            closed: written.closed,
        });
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
