//! One blob on its way in, chunk by chunk. Owns its staged file: there is one
//! writer per digest and file. A chunk is verified before it is written, and
//! counted after.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farmbell_protocol::digest::{CHUNK_BYTES, ChunkList, Digest, chunk_count};

use super::staging::{NODES, PART, publish, read_nodes};
use super::{BlobError, Blobs, Stored};
use crate::disk::{DiskError, remove};
use crate::failpoint::{self, Failpoint};

/// Written and not flushed yet, before a flush beside the writing is due: what
/// the last one leaves to do, while the sender waits for it.
const FLUSH_CHUNKS: u64 = 32;

/// One blob on its way in: the only writer of its staged file. All methods but
/// [`finish`](Self::finish) block for the work of one chunk at most.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    digest: Digest,
    length: u64,
    list: Option<ChunkList>,
    /// The first so many chunks are in the file and verified.
    verified: u64,
    /// Chunks that a flush was begun for.
    flushed: u64,
    file: Arc<File>,
    /// A flush of it failed: what that should have written may be gone while
    /// reading still shows it, so nobody goes on with the file.
    doubtful: Arc<AtomicBool>,
    path: PathBuf,
    /// Whether a later upload may go on with the file.
    resumable: bool,
    published: bool,
}

impl Upload {
    pub(super) fn begin(blobs: Blobs, digest: Digest, length: u64) -> Result<Self, BlobError> {
        let (resumable, known) = {
            let mut staged = blobs.staged();
            (
                staged.writing.insert(digest),
                staged.verified.remove(&digest),
            )
        };
        let path = if resumable {
            blobs.staging().join(format!("{digest}.{PART}"))
        } else {
            blobs.private_name()
        };
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(!resumable)
            .open(&path)
            .map_err(DiskError::at(&path));
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                if resumable {
                    blobs.staged().writing.remove(&digest);
                }
                return Err(error.into());
            }
        };
        // From here on dropping the upload gives the digest free again.
        let mut upload = Self {
            blobs,
            digest,
            length,
            list: ChunkList::verified(digest, length, vec![digest.0]).ok(),
            verified: 0,
            flushed: 0,
            file: Arc::new(file),
            doubtful: Arc::default(),
            path,
            resumable,
            published: false,
        };
        upload.resume(known)?;
        Ok(upload)
    }

    /// Chunks that are verified already: go on with this one.
    #[must_use]
    pub const fn verified_chunks(&self) -> u64 {
        self.verified
    }

    /// Whether the chunk list has to come before the first chunk; a content of
    /// one chunk needs none.
    #[must_use]
    pub const fn wants_nodes(&self) -> bool {
        self.list.is_none()
    }

    /// How many chunks the whole has.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        chunk_count(self.length)
    }

    /// Bytes of the chunk that comes next; 0 after the last.
    #[must_use]
    pub fn next_chunk_bytes(&self) -> u64 {
        if self.verified == self.chunks() {
            return 0;
        }
        CHUNK_BYTES.min(self.length - self.verified * CHUNK_BYTES)
    }

    /// Takes the chunk list and keeps it beside the staged file.
    ///
    /// # Errors
    /// If it does not lead to the digest, or cannot be written.
    pub fn nodes(&mut self, nodes: Vec<[u8; 32]>) -> Result<(), BlobError> {
        let list = ChunkList::verified(self.digest, self.length, nodes)?;
        if self.resumable {
            let path = self.path.with_extension(NODES);
            fs::write(&path, list.nodes().as_flattened()).map_err(DiskError::at(&path))?;
        }
        self.list = Some(list);
        Ok(())
    }

    /// Verifies the next chunk, then writes it.
    ///
    /// # Errors
    /// If it has the wrong hash or length, or cannot be written.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let list = self.list.as_ref().ok_or(BlobError::NoNodes(self.digest))?;
        list.check(self.verified, bytes)?;
        self.file
            .write_all_at(bytes, self.verified * CHUNK_BYTES)
            .map_err(DiskError::at(&self.path))?;
        self.verified += 1;
        failpoint::pass(Failpoint::BlobChunk);
        Ok(())
    }

    /// A flush of what was written so far, once it is worth one: for a thread
    /// beside the writing, so that little is left for [`finish`](Self::finish).
    pub fn flush_due(&mut self) -> Option<Flush> {
        (self.verified >= self.flushed + FLUSH_CHUNKS).then(|| {
            self.flushed = self.verified;
            Flush {
                file: self.file.clone(),
                doubtful: self.doubtful.clone(),
                path: self.path.clone(),
            }
        })
    }

    /// Makes the whole blob durable under its digest; flushes that meet share
    /// the cost.
    ///
    /// # Errors
    /// If chunks are missing, or flushing or renaming fails.
    pub async fn finish(self) -> Result<Stored, BlobError> {
        let blobs = self.blobs.clone();
        let permit = blobs.shared.flushes.acquire().await;
        let stored = tokio::task::spawn_blocking(move || self.finish_blocking())
            .await
            .expect("flushing does not panic");
        drop(permit);
        stored
    }

    /// [`finish`](Self::finish) for threads without a runtime.
    ///
    /// # Errors
    /// As there.
    pub fn finish_blocking(mut self) -> Result<Stored, BlobError> {
        if self.verified != self.chunks() {
            return Err(BlobError::NotWhole {
                digest: self.digest,
                verified: self.verified,
                wanted: self.chunks(),
            });
        }
        let stored = Stored {
            digest: self.digest,
            length: self.length,
        };
        publish(&self.blobs, &self.path, &self.file, stored)
            .inspect_err(|_| self.doubtful.store(true, Ordering::Relaxed))?;
        self.published = true;
        if self.resumable && self.chunks() > 1 {
            remove(&self.path.with_extension(NODES))?;
        }
        Ok(stored)
    }

    /// Goes on with what is staged: as far as this process verified it, else
    /// as far as it verifies now.
    fn resume(&mut self, known: Option<u64>) -> Result<(), BlobError> {
        if !self.resumable {
            return Ok(());
        }
        if self.list.is_none() {
            self.list = read_nodes(&self.path.with_extension(NODES), self.digest, self.length);
        }
        if let Some(list) = &self.list {
            self.verified = match known {
                Some(known) => known.min(self.chunks()),
                None => self.verify_staged(list)?,
            };
        }
        // What lies behind is unverified: it would make the blob too long.
        self.file
            .set_len(self.length.min(self.verified * CHUNK_BYTES))
            .map_err(DiskError::at(&self.path))?;
        Ok(())
    }

    fn verify_staged(&self, list: &ChunkList) -> Result<u64, BlobError> {
        let staged = self
            .file
            .metadata()
            .map_err(DiskError::at(&self.path))?
            .len();
        let mut buffer = Vec::new();
        for index in 0..self.chunks() {
            let length = list.chunk_length(index);
            let end = index * CHUNK_BYTES + length;
            // An empty file holds the empty content's one chunk; it costs nothing to send.
            if length == 0 || end > staged {
                return Ok(index);
            }
            buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
            self.file
                .read_exact_at(&mut buffer, index * CHUNK_BYTES)
                .map_err(DiskError::at(&self.path))?;
            if list.check(index, &buffer).is_err() {
                return Ok(index);
            }
        }
        Ok(self.chunks())
    }
}

/// A flush of what an [`Upload`] had written when it was due.
#[derive(Debug)]
pub struct Flush {
    file: Arc<File>,
    doubtful: Arc<AtomicBool>,
    path: PathBuf,
}

impl Flush {
    /// Blocks.
    ///
    /// # Errors
    /// If the disk did not take it; the upload has to begin anew.
    pub fn run(self) -> Result<(), BlobError> {
        let flushed = self.file.sync_data();
        let flushed = flushed.inspect_err(|_| self.doubtful.store(true, Ordering::Relaxed));
        Ok(flushed.map_err(DiskError::at(&self.path))?)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let goes_on = self.resumable && !self.doubtful.load(Ordering::Relaxed);
        if !self.published && !goes_on {
            let nodes = self.path.with_extension(NODES);
            if let Err(error) = remove(&self.path).and_then(|()| remove(&nodes)) {
                tracing::warn!(%error, "a staged file stays until the next start");
            }
        }
        if self.resumable {
            let mut staged = self.blobs.staged();
            staged.writing.remove(&self.digest);
            if !self.published && goes_on {
                staged.verified.insert(self.digest, self.verified);
            }
        }
    }
}
