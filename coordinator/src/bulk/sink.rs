//! Where the chunks of a blob go: into the store, or, for a blob that is
//! stored already, into a comparison alone. Both check each chunk before they
//! count it.

use farmbell_protocol::digest::{ChunkList, Digest, chunk_count};

use crate::blobs::{BlobError, Flush, Upload};

/// One blob on its way in.
#[derive(Debug)]
pub(super) enum Sink {
    Store(Upload),
    Compare(Comparison),
}

/// A stored blob whose sender has to show that it has it too.
#[derive(Debug)]
pub(super) struct Comparison {
    digest: Digest,
    length: u64,
    list: Option<ChunkList>,
    verified: u64,
}

impl Sink {
    pub(super) fn compare(digest: Digest, length: u64) -> Self {
        Self::Compare(Comparison {
            digest,
            length,
            list: ChunkList::verified(digest, length, vec![digest.0]).ok(),
            verified: 0,
        })
    }

    /// Chunks that need not come.
    pub(super) const fn verified_chunks(&self) -> u64 {
        match self {
            Self::Store(upload) => upload.verified_chunks(),
            Self::Compare(comparison) => comparison.verified,
        }
    }

    /// Whether the chunk list has to come first.
    pub(super) const fn wants_nodes(&self) -> bool {
        match self {
            Self::Store(upload) => upload.wants_nodes(),
            Self::Compare(comparison) => comparison.list.is_none(),
        }
    }

    pub(super) fn nodes(&mut self, nodes: Vec<[u8; 32]>) -> Result<(), BlobError> {
        match self {
            Self::Store(upload) => upload.nodes(nodes),
            Self::Compare(comparison) => {
                let list = ChunkList::verified(comparison.digest, comparison.length, nodes)?;
                comparison.list = Some(list);
                Ok(())
            }
        }
    }

    pub(super) fn chunk(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        match self {
            Self::Store(upload) => upload.chunk(bytes),
            Self::Compare(comparison) => {
                let list = comparison.list.as_ref();
                let list = list.ok_or(BlobError::NoNodes(comparison.digest))?;
                list.check(comparison.verified, bytes)?;
                comparison.verified += 1;
                Ok(())
            }
        }
    }

    pub(super) fn flush_due(&mut self) -> Option<Flush> {
        match self {
            Self::Store(upload) => upload.flush_due(),
            Self::Compare(_) => None,
        }
    }

    /// The blob is durable when this comes back.
    pub(super) async fn finish(self) -> Result<(), BlobError> {
        match self {
            Self::Store(upload) => upload.finish().await.map(|_| ()),
            Self::Compare(comparison) => {
                let wanted = chunk_count(comparison.length);
                if comparison.verified == wanted {
                    return Ok(());
                }
                Err(BlobError::NotWhole {
                    digest: comparison.digest,
                    verified: comparison.verified,
                    wanted,
                })
            }
        }
    }
}
