//! Staged files: how they become blobs, and which of them outlive a process.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use farmbell_protocol::digest::{ChunkList, Digest};

use super::{BlobError, Blobs, Stored};
use crate::disk::{DiskError, remove, sync_directory};
use crate::failpoint::{self, Failpoint};

pub(super) const DIRECTORY: &str = "staging";
pub(super) const PART: &str = "part";
pub(super) const NODES: &str = "nodes";

/// A staged file that nobody resumed for so long never will be: longer than
/// any outage that agents sit out.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// Makes a verified staged file durable under its digest. Blocks.
pub(super) fn publish(
    blobs: &Blobs,
    staged: &Path,
    file: &File,
    stored: Stored,
) -> Result<Stored, BlobError> {
    failpoint::pass(Failpoint::BlobStaged);
    // Its last byte may have come long ago, before a restart.
    file.set_modified(SystemTime::now())
        .map_err(DiskError::at(staged))?;
    file.sync_data().map_err(DiskError::at(staged))?;
    failpoint::pass(Failpoint::BlobSynced);
    let path = blobs.path(stored.digest);
    {
        let _settled = blobs.settled();
        fs::rename(staged, &path).map_err(DiskError::at(&path))?;
    }
    failpoint::pass(Failpoint::BlobRenamed);
    let directory = path.parent().expect("a blob lies in its shard");
    if let Err(error) = sync_directory(directory) {
        // Nobody may find under this name what might not be durable.
        remove(&path)?;
        return Err(error.into());
    }
    failpoint::pass(Failpoint::BlobStored);
    Ok(stored)
}

/// Removes what no upload can go on with.
pub(super) fn sweep(directory: &Path) -> Result<(), BlobError> {
    fs::create_dir_all(directory).map_err(DiskError::at(directory))?;
    let now = SystemTime::now();
    for entry in fs::read_dir(directory).map_err(DiskError::at(directory))? {
        let path = entry.map_err(DiskError::at(directory))?.path();
        if !may_be_resumed(&path, now).map_err(DiskError::at(&path))? {
            tracing::info!(path = %path.display(), "a staged file that nobody can resume is removed");
            remove(&path)?;
        }
    }
    Ok(())
}

fn may_be_resumed(path: &Path, now: SystemTime) -> io::Result<bool> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let named = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .is_some_and(|stem| stem.parse::<Digest>().is_ok());
    if !named || !matches!(extension, Some(PART | NODES)) {
        return Ok(false);
    }
    let both = path.with_extension(PART).exists() && path.with_extension(NODES).exists();
    let modified = path
        .with_extension(PART)
        .metadata()
        .and_then(|part| part.modified());
    Ok(both
        && modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age < KEPT)))
}

/// The chunk list beside a staged file, if it is whole and leads to the digest.
pub(super) fn read_nodes(path: &Path, digest: Digest, length: u64) -> Option<ChunkList> {
    let bytes = fs::read(path).ok()?;
    let (nodes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return None;
    }
    ChunkList::verified(digest, length, nodes.to_vec()).ok()
}
