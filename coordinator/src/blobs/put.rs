//! A blob whose digest is learned while it comes in: what submitters upload.
//! Owns its staged file, which no later upload can resume.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use farmbell_protocol::digest::Digest;

use super::staging::publish;
use super::{BlobError, Blobs, Stored};
use crate::disk::{DiskError, remove};

/// What is read and written at once.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// A blob that is hashed as it is written.
#[derive(Debug)]
pub struct Put {
    blobs: Blobs,
    hasher: blake3::Hasher,
    length: u64,
    length_max: u64,
    file: File,
    path: PathBuf,
    published: bool,
}

impl Put {
    pub(super) fn begin(blobs: Blobs, length_max: u64) -> Result<Self, BlobError> {
        let path = blobs.private_name();
        let file = File::create(&path).map_err(DiskError::at(&path))?;
        Ok(Self {
            blobs,
            hasher: blake3::Hasher::new(),
            length: 0,
            length_max,
            file,
            path,
            published: false,
        })
    }

    /// Appends bytes. Blocks for the write.
    ///
    /// # Errors
    /// If there are too many, or they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.length += bytes.len() as u64;
        if self.length > self.length_max {
            return Err(BlobError::TooLong(self.length_max));
        }
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(DiskError::at(&self.path))?;
        Ok(())
    }

    /// Makes what was written durable under the digest it turned out to have.
    ///
    /// # Errors
    /// If flushing or renaming fails.
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
        let stored = Stored {
            digest: Digest(*self.hasher.finalize().as_bytes()),
            length: self.length,
        };
        publish(&self.blobs, &self.path, &self.file, stored)?;
        self.published = true;
        Ok(stored)
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!(%error, "a staged file stays until the next start");
        }
    }
}
