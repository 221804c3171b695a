//! Blobs that nobody speaks of. Owns telling them from those that somebody is
//! about to speak of: whoever finds a blob stored and means to name it in a
//! record claims it, which shows in the time of its file. Never decides which
//! are spoken of (retire.rs reads that from the store).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::time::SystemTime;

use farmbell_protocol::digest::Digest;

use super::{BlobError, Blobs};
use crate::disk::{DiskError, remove};

impl Blobs {
    /// The length of a stored blob, if there is one; from now on it counts as
    /// touched.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn claim(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        let path = self.path(digest);
        let _settled = self.settled();
        let claimed = File::open(&path).and_then(|file| {
            file.set_modified(SystemTime::now())?;
            Ok(file.metadata()?.len())
        });
        match claimed {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::at(&path)(error).into()),
        }
    }

    /// Blobs that were neither stored nor claimed since `before`. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn untouched_since(&self, before: SystemTime) -> Result<BTreeSet<Digest>, BlobError> {
        let mut untouched = BTreeSet::new();
        for stored in self.list()? {
            if self.touched(stored.digest)?.is_some_and(|at| at < before) {
                untouched.insert(stored.digest);
            }
        }
        Ok(untouched)
    }

    /// Removes a blob, unless it was touched since `before`; says whether it
    /// did.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn remove_untouched(&self, digest: Digest, before: SystemTime) -> Result<bool, BlobError> {
        let _settled = self.settled();
        if self.touched(digest)?.is_none_or(|at| at >= before) {
            return Ok(false);
        }
        remove(&self.path(digest))?;
        Ok(true)
    }

    fn touched(&self, digest: Digest) -> Result<Option<SystemTime>, BlobError> {
        let path = self.path(digest);
        match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            Ok(at) => Ok(Some(at)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::at(&path)(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_claimed_blob_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        let old = |bytes: &[u8]| {
            let stored = blobs.put_reader(bytes, 99).unwrap();
            let file = File::open(blobs.path(stored.digest)).unwrap();
            file.set_modified(long_ago).unwrap();
            stored.digest
        };
        let (forgotten, wanted) = (old(b"forgotten"), old(b"wanted"));
        let before = SystemTime::now() - Duration::from_secs(10);
        assert_eq!(blobs.untouched_since(before).unwrap().len(), 2);
        assert_eq!(blobs.claim(wanted).unwrap(), Some(6));
        assert!(!blobs.remove_untouched(wanted, before).unwrap());
        assert!(blobs.remove_untouched(forgotten, before).unwrap());
        assert_eq!(blobs.contains(forgotten).unwrap(), None);
        assert_eq!(blobs.claim(forgotten).unwrap(), None);
        assert_eq!(blobs.contains(wanted).unwrap(), Some(6));
    }
}
