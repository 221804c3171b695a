//! Digests: the names of stored bytes. A digest is the plain BLAKE3 hash of
//! the content, what `b3sum` prints.
//!
//! BLAKE3 is a tree, so the hashes of a file's fixed-size chunks *are* inner
//! nodes of it: [`ChunkList`] holds them, its root is the file's digest, and a
//! receiver that has checked the list against the digest can check each chunk
//! by itself, before it writes or counts a byte of it. Resuming needs no
//! second reading.

use std::fmt;
use std::str::FromStr;

use blake3::hazmat::{self, HasherExt, Mode};
use serde::{Deserialize, Serialize};

/// Bytes of a chunk: the unit of verification and of resuming. A power of two,
/// so that chunks are whole subtrees.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// The BLAKE3 hash of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// The hashes of a content's chunks in order; of a content of one chunk or
/// less, its digest alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkList {
    length: u64,
    nodes: Vec<[u8; 32]>,
}

/// Why a received list or chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a content of {length} bytes has {wanted} chunks, the list has {got}")]
    Count { length: u64, wanted: u64, got: u64 },
    #[error("the chunk list belongs to {got}, not to {wanted}")]
    OtherContent { wanted: Digest, got: Digest },
    #[error("chunk {index} does not have the hash that was announced")]
    Corrupt { index: u64 },
    #[error("chunk {index} has {got} bytes instead of {wanted}")]
    Length { index: u64, wanted: u64, got: u64 },
}

/// How many chunks a content has; the empty one has one (empty) chunk.
#[must_use]
pub const fn chunk_count(length: u64) -> u64 {
    if length == 0 {
        1
    } else {
        length.div_ceil(CHUNK_BYTES)
    }
}

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl ChunkList {
    /// A list as it was received, checked against the digest it should lead to.
    ///
    /// # Errors
    /// If the list has another length or belongs to another content.
    pub fn verified(digest: Digest, length: u64, nodes: Vec<[u8; 32]>) -> Result<Self, ChunkError> {
        let (wanted, got) = (chunk_count(length), nodes.len() as u64);
        if wanted != got {
            return Err(ChunkError::Count {
                length,
                wanted,
                got,
            });
        }
        let list = Self { length, nodes };
        let root = list.root();
        if root != digest {
            return Err(ChunkError::OtherContent {
                wanted: digest,
                got: root,
            });
        }
        Ok(list)
    }

    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// One 32-byte node per chunk, as they travel.
    #[must_use]
    pub fn nodes(&self) -> &[[u8; 32]] {
        &self.nodes
    }

    /// The digest of the whole content.
    #[must_use]
    pub fn root(&self) -> Digest {
        match self.nodes.as_slice() {
            [only] => Digest(*only),
            nodes => Digest(join(nodes, self.length, true)),
        }
    }

    /// Bytes of chunk `index`.
    #[must_use]
    pub fn chunk_length(&self, index: u64) -> u64 {
        CHUNK_BYTES.min(self.length.saturating_sub(index * CHUNK_BYTES))
    }

    /// Checks one received chunk.
    ///
    /// # Errors
    /// If its length or its hash is not the announced one.
    pub fn check(&self, index: u64, chunk: &[u8]) -> Result<(), ChunkError> {
        let (wanted, got) = (self.chunk_length(index), chunk.len() as u64);
        let node = usize::try_from(index)
            .ok()
            .and_then(|index| self.nodes.get(index));
        let Some(node) = node.filter(|_| wanted == got) else {
            return Err(ChunkError::Length { index, wanted, got });
        };
        if node_of(index, chunk, self.nodes.len() == 1) == *node {
            Ok(())
        } else {
            Err(ChunkError::Corrupt { index })
        }
    }
}

/// Makes a [`ChunkList`] from a content read once, chunk by chunk.
#[derive(Debug, Default)]
pub struct ChunkListBuilder {
    length: u64,
    nodes: Vec<[u8; 32]>,
    /// The first chunk's hash as a root, for a content that ends with it.
    only: Option<[u8; 32]>,
}

impl ChunkListBuilder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next chunk; all but the last have [`CHUNK_BYTES`] bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        debug_assert!(
            self.length.is_multiple_of(CHUNK_BYTES),
            "only the last chunk may be short"
        );
        let index = self.nodes.len() as u64;
        if index == 0 {
            self.only = Some(*blake3::hash(chunk).as_bytes());
        }
        self.nodes.push(if chunk.is_empty() {
            [0; 32]
        } else {
            node_of(index, chunk, false)
        });
        self.length += chunk.len() as u64;
    }

    #[must_use]
    pub fn finish(mut self) -> ChunkList {
        if self.nodes.is_empty() {
            self.push(&[]);
        }
        if let ([node], Some(only)) = (self.nodes.as_mut_slice(), self.only) {
            *node = only;
        }
        ChunkList {
            length: self.length,
            nodes: self.nodes,
        }
    }
}

fn node_of(index: u64, chunk: &[u8], only: bool) -> [u8; 32] {
    if only {
        return *blake3::hash(chunk).as_bytes();
    }
    blake3::Hasher::new()
        .set_input_offset(index * CHUNK_BYTES)
        .update(chunk)
        .finalize_non_root()
}

/// Joins the nodes of `length` bytes the way BLAKE3 splits them: the left
/// subtree is the largest power of two that leaves something for the right.
fn join(nodes: &[[u8; 32]], length: u64, root: bool) -> [u8; 32] {
    if let [only] = nodes {
        return *only;
    }
    let left_bytes = hazmat::left_subtree_len(length);
    let split = usize::try_from(left_bytes / CHUNK_BYTES).expect("fewer than the nodes held");
    let left = join(&nodes[..split], left_bytes, false);
    let right = join(&nodes[split..], length - left_bytes, false);
    if root {
        *hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
    } else {
        hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = crate::id::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || crate::id::ParseIdError {
            text: text.chars().take(80).collect(),
            wanted: "a BLAKE3 digest (64 hexadecimal digits)",
        };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(length: usize) -> Vec<u8> {
        (0..length)
            .map(|i| u8::try_from(i * 31 % 251).unwrap())
            .collect()
    }

    fn list_of(content: &[u8]) -> ChunkList {
        let mut builder = ChunkListBuilder::new();
        for chunk in content.chunks(usize::try_from(CHUNK_BYTES).unwrap()) {
            builder.push(chunk);
        }
        builder.finish()
    }

    #[test]
    fn the_root_of_a_chunk_list_is_the_plain_hash_of_the_content() {
        let mib = usize::try_from(CHUNK_BYTES).unwrap();
        for length in [
            0,
            1,
            1024,
            mib - 1,
            mib,
            mib + 1,
            2 * mib,
            3 * mib + 7,
            5 * mib,
        ] {
            let content = content(length);
            let list = list_of(&content);
            assert_eq!(list.root(), Digest::of(&content), "{length} bytes");
            let received =
                ChunkList::verified(list.root(), list.length(), list.nodes().to_vec()).unwrap();
            for (index, chunk) in content.chunks(mib).enumerate() {
                received.check(index as u64, chunk).unwrap();
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_found_in_its_chunk() {
        let mib = usize::try_from(CHUNK_BYTES).unwrap();
        let mut content = content(2 * mib + 5);
        let list = list_of(&content);
        content[mib + 3] ^= 1;
        assert_eq!(list.check(0, &content[..mib]), Ok(()));
        assert_eq!(
            list.check(1, &content[mib..2 * mib]),
            Err(ChunkError::Corrupt { index: 1 })
        );
        let mut nodes = list.nodes().to_vec();
        nodes[2][0] ^= 1;
        assert!(ChunkList::verified(list.root(), list.length(), nodes).is_err());
    }
}
