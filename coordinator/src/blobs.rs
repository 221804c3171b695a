//! Blobs on disk. Owns what lies under `blobs/`: every file there has the
//! bytes that its name says, because it was verified before it got the name.
//! Never knows whose a blob is (the farm does) nor how it came (bulk, HTTP).
//!
//! ```text
//!  begin ─▶ chunk … chunk ─▶ finish: flush ─▶ rename ─▶ flush of the directory
//!  blobs/staging/DIGEST.part (+ .nodes)        blobs/aa/DIGEST
//! ```
//!
//! Invariant: bytes under a digest's name never change and are never torn,
//! whatever died; a staged file may be anything and is believed only chunk by
//! chunk.

mod put;
mod staging;
mod unused;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farmbell_protocol::digest::{ChunkError, Digest};
use tokio::sync::Semaphore;

pub use put::Put;
pub use upload::{Flush, Upload};

use crate::disk::{DiskError, sync_file_system};

/// Flushes that run at the same time: the file system's journal makes one
/// transaction of those that meet, so many small files share its cost.
const FLUSHES: usize = 32;

/// Where blobs are.
#[derive(Clone, Debug)]
pub struct Blobs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    flushes: Semaphore,
    // Who writes which staged file; held for a lookup, never over the disk.
    staged: Mutex<Staged>,
    next_private: AtomicU64,
    // Held while a blob gets its name, is claimed or removed: a few calls to
    // the disk, so that nobody is told of a blob that goes in that moment.
    settled: Mutex<()>,
}

#[derive(Debug, Default)]
struct Staged {
    /// Digests whose resumable file has its one writer now.
    writing: BTreeSet<Digest>,
    /// Chunks verified by this process in files that wait to be resumed.
    verified: BTreeMap<Digest, u64>,
}

/// A blob that is durable under its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub length: u64,
}

/// Why a blob was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("a chunk of {0} came before its chunk list")]
    NoNodes(Digest),
    #[error("{verified} of the {wanted} chunks of {digest} are verified; it is not whole")]
    NotWhole {
        digest: Digest,
        verified: u64,
        wanted: u64,
    },
    #[error("the content has more than the {0} bytes that are taken here")]
    TooLong(u64),
    #[error("there is no blob {0}")]
    Missing(Digest),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the content could not be read: {0}")]
    Source(#[source] io::Error),
}

impl Blobs {
    /// Opens the directory and clears away what no upload can resume.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub fn open(directory: &Path) -> Result<Self, BlobError> {
        for shard in 0..=u8::MAX {
            let shard = directory.join(format!("{shard:02x}"));
            fs::create_dir_all(&shard).map_err(DiskError::at(&shard))?;
        }
        staging::sweep(&directory.join(staging::DIRECTORY))?;
        sync_file_system(directory)?;
        Ok(Self::beside(directory))
    }

    /// To read beside the process that has opened the directory: nothing is
    /// made or swept.
    #[must_use]
    pub fn beside(directory: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                flushes: Semaphore::new(FLUSHES),
                staged: Mutex::default(),
                next_private: AtomicU64::new(0),
                settled: Mutex::default(),
            }),
        }
    }

    /// The length of a stored blob, if there is one.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn contains(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::at(&path)(error).into()),
        }
    }

    /// Begins or resumes an upload. Reads again what was staged before this
    /// process: only verified chunks count. A second upload of the same digest
    /// at the same time is staged apart and cannot be resumed. Blocks.
    ///
    /// # Errors
    /// If the staged file cannot be made or read.
    pub fn begin(&self, digest: Digest, length: u64) -> Result<Upload, BlobError> {
        Upload::begin(self.clone(), digest, length)
    }

    /// Opens a stored blob.
    ///
    /// # Errors
    /// [`BlobError::Missing`], or if the disk cannot be read.
    pub fn read(&self, digest: Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::Missing(digest))
            }
            Err(error) => Err(DiskError::at(&path)(error).into()),
        }
    }

    /// Begins a blob whose digest shows at its end: at most `length_max` bytes.
    ///
    /// # Errors
    /// If the staged file cannot be made.
    pub fn put(&self, length_max: u64) -> Result<Put, BlobError> {
        Put::begin(self.clone(), length_max)
    }

    /// Stores what a reader gives, at most `length_max` bytes, under the
    /// digest it turns out to have. Blocks.
    ///
    /// # Errors
    /// If reading or writing fails or there is more to read.
    pub fn put_reader(&self, mut reader: impl Read, length_max: u64) -> Result<Stored, BlobError> {
        let mut put = self.put(length_max)?;
        let mut buffer = vec![0; put::BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer).map_err(BlobError::Source)? {
                0 => return put.finish_blocking(),
                length => put.write(&buffer[..length])?,
            }
        }
    }

    /// Every stored blob with its length, for checks and backups. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn list(&self) -> Result<Vec<Stored>, BlobError> {
        let mut all = Vec::new();
        for shard in 0..=u8::MAX {
            let shard = self.shared.directory.join(format!("{shard:02x}"));
            for entry in fs::read_dir(&shard).map_err(DiskError::at(&shard))? {
                let entry = entry.map_err(DiskError::at(&shard))?;
                let metadata = entry.metadata().map_err(DiskError::at(&shard))?;
                let digest = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok());
                all.extend(digest.map(|digest| Stored {
                    digest,
                    length: metadata.len(),
                }));
            }
        }
        Ok(all)
    }

    /// Where a blob lies once it is stored.
    #[must_use]
    pub fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.shared.directory.join(&name[..2]).join(name)
    }

    fn staging(&self) -> PathBuf {
        self.shared.directory.join(staging::DIRECTORY)
    }

    /// A name for a staged file that no other writer has.
    fn private_name(&self) -> PathBuf {
        let number = self.shared.next_private.fetch_add(1, Ordering::Relaxed);
        self.staging().join(format!("{number}.private"))
    }

    fn settled(&self) -> MutexGuard<'_, ()> {
        let settled = self.shared.settled.lock();
        settled.unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self) -> MutexGuard<'_, Staged> {
        self.shared
            .staged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
