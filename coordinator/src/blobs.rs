//! Blobs on disk. Owns what lies under `blobs/`: every file there has the
//! bytes that its name says, because it was verified before it got the name.
//! Never knows whose a blob is (the farm does) nor how it came (bulk, HTTP).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use farmbell_protocol::digest::{ChunkError, Digest};

/// Where blobs are.
#[derive(Clone, Debug)]
pub struct Blobs {}

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
    #[error("{chunks} chunks of {digest} are verified; it is not whole")]
    NotWhole { digest: Digest, chunks: u64 },
    #[error("no space for blobs: free some on {path}")]
    NoSpace { path: String },
    #[error("there is no blob {0}")]
    Missing(Digest),
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
}

/// One blob on its way in: the only writer of its staged file. All methods but
/// [`finish`](Self::finish) block for the write of their bytes.
#[derive(Debug)]
pub struct Upload {}

impl Blobs {
    /// Opens the directory and clears away what no upload can resume.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub fn open(_dir: &Path) -> Result<Self, BlobError> {
        unimplemented!()
    }

    /// The length of a stored blob, if there is one.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn contains(&self, _digest: Digest) -> Result<Option<u64>, BlobError> {
        unimplemented!()
    }

    /// Begins or resumes an upload. Reads again what was staged before this
    /// process: only verified chunks count.
    ///
    /// # Errors
    /// If the staged file cannot be made or read.
    pub fn begin(&self, _digest: Digest, _length: u64) -> Result<Upload, BlobError> {
        unimplemented!()
    }

    /// Opens a stored blob.
    ///
    /// # Errors
    /// [`BlobError::Missing`], or if the disk cannot be read.
    pub fn read(&self, _digest: Digest) -> Result<File, BlobError> {
        unimplemented!()
    }

    /// Stores what a reader gives, at most `length_max` bytes, under the
    /// digest it turns out to have. Blocks.
    ///
    /// # Errors
    /// If reading or writing fails or there is more to read.
    pub fn put_reader(&self, _reader: impl Read, _length_max: u64) -> Result<Stored, BlobError> {
        unimplemented!()
    }
}

impl Upload {
    /// Chunks that are verified already: go on with this one.
    #[must_use]
    pub fn verified_chunks(&self) -> u64 {
        unimplemented!()
    }

    /// Whether the chunk list has to come before the first chunk.
    #[must_use]
    pub fn wants_nodes(&self) -> bool {
        unimplemented!()
    }

    /// Takes the chunk list.
    ///
    /// # Errors
    /// If it does not lead to the digest.
    pub fn nodes(&mut self, _nodes: Vec<[u8; 32]>) -> Result<(), BlobError> {
        unimplemented!()
    }

    /// Verifies the next chunk, then writes it.
    ///
    /// # Errors
    /// If it has the wrong hash or length, or cannot be written.
    pub fn chunk(&mut self, _bytes: &[u8]) -> Result<(), BlobError> {
        unimplemented!()
    }

    /// Makes the whole blob durable under its digest; what waits at the same
    /// time shares one flush.
    ///
    /// # Errors
    /// If chunks are missing, or flushing or renaming fails.
    #[expect(clippy::unused_async, reason = "lands next")]
    pub async fn finish(self) -> Result<Stored, BlobError> {
        unimplemented!()
    }
}
