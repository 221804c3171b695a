//! Small acts on files that blobs and logs share. Owns how an error of the
//! disk is told: a full one apart from all others, each with its path.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;

/// What the disk said, and where.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("no space left for {path}: free some, or move the state directory to a larger disk")]
    NoSpace { path: String },
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

impl DiskError {
    /// For `map_err` on anything done to `path`.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| {
            let full = [Errno::ENOSPC, Errno::EDQUOT]
                .iter()
                .any(|errno| source.raw_os_error() == Some(*errno as i32));
            if full {
                Self::NoSpace { path }
            } else {
                Self::Io { path, source }
            }
        }
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), DiskError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(DiskError::at(path))
}

/// Makes everything durable that an earlier process may have left half said:
/// it could have died between a rename and the flush of the directory.
pub(crate) fn sync_file_system(path: &Path) -> Result<(), DiskError> {
    let directory = File::open(path).map_err(DiskError::at(path))?;
    nix::unistd::syncfs(&directory).map_err(|errno| DiskError::at(path)(errno.into()))
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(DiskError::at(path)),
    }
}
