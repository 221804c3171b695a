//! What each attempt has shown to have. That a blob is stored says nothing
//! about who may have it: an attempt gets it counted as its own once its agent
//! has sent all of it, so that nobody comes by others' files by knowing a hash.
//!
//! Owns `delivered/ATTEMPT`, the digests that were sent whole, so that a
//! restart makes nobody send them again. Not flushed: what a power cut takes
//! is sent once more. Files of attempts that are over are removed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::AttemptId;

use crate::disk::{DiskError, remove};

/// Blobs up to this size are sent again rather than noted: most attempts then
/// need no file.
const NOTED_FROM_BYTES: u64 = 4 << 10;
/// A file that was not touched for this long is of an attempt whose end this
/// process never heard of.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where the notes are.
#[derive(Clone, Debug)]
pub struct Delivered {
    directory: Arc<Path>,
}

impl Delivered {
    /// Opens the directory and clears away what is long over.
    ///
    /// # Errors
    /// If it cannot be made or read.
    pub fn open(directory: &Path) -> Result<Self, DiskError> {
        fs::create_dir_all(directory).map_err(DiskError::at(directory))?;
        for entry in fs::read_dir(directory).map_err(DiskError::at(directory))? {
            let entry = entry.map_err(DiskError::at(directory))?;
            let touched = entry.metadata().and_then(|metadata| metadata.modified());
            let age = touched.map_err(DiskError::at(directory))?.elapsed();
            if age.is_ok_and(|age| age > FORGOTTEN_AFTER) {
                remove(&entry.path())?;
            }
        }
        Ok(Self {
            directory: directory.into(),
        })
    }

    /// Notes that the attempt has sent this blob, where that is worth a note,
    /// and says whether it was. Blocks.
    pub(super) fn note(
        &self,
        attempt: AttemptId,
        digest: Digest,
        length: u64,
    ) -> Result<bool, DiskError> {
        if length < NOTED_FROM_BYTES {
            return Ok(false);
        }
        let path = self.path(attempt);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&digest.0))
            .map_err(DiskError::at(&path))?;
        Ok(true)
    }

    /// What the attempt has sent, as far as it was noted. Blocks.
    pub(super) fn of(&self, attempt: AttemptId) -> Result<HashSet<Digest>, DiskError> {
        let path = self.path(attempt);
        match fs::read(&path) {
            // A torn last note is none.
            Ok(bytes) => Ok(bytes.as_chunks().0.iter().copied().map(Digest).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
            Err(error) => Err(DiskError::at(&path)(error)),
        }
    }

    /// The attempt is over. Blocks.
    pub(super) fn forget(&self, attempt: AttemptId) -> Result<(), DiskError> {
        remove(&self.path(attempt))
    }

    fn path(&self, attempt: AttemptId) -> PathBuf {
        let name = format!("{attempt}-{:016x}", attempt.nonce);
        self.directory.join(name)
    }
}

#[cfg(test)]
mod tests {
    use farmbell_protocol::id::JobId;

    use super::*;

    const ATTEMPT: AttemptId = AttemptId {
        job: JobId(1),
        generation: 1,
        number: 1,
        nonce: 1,
    };

    #[test]
    fn notes_are_kept_until_the_attempt_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let delivered = Delivered::open(directory.path()).unwrap();
        let large = Digest::of(b"large");
        delivered.note(ATTEMPT, large, 1 << 20).unwrap();
        delivered.note(ATTEMPT, Digest::of(b"small"), 5).unwrap();
        let torn = File::options().append(true).open(delivered.path(ATTEMPT));
        torn.unwrap().write_all(&[1, 2, 3]).unwrap();
        let again = Delivered::open(directory.path()).unwrap();
        assert_eq!(again.of(ATTEMPT).unwrap(), HashSet::from([large]));
        again.forget(ATTEMPT).unwrap();
        assert_eq!(again.of(ATTEMPT).unwrap(), HashSet::new());
    }
}
