//! Headers of bulk streams: logs, artifacts, inputs. The bulk connection's
//! first stream carries [`BulkHello`] and its answer [`BulkReady`]; then each
//! transfer has a bidirectional stream of its own, opened by the agent.
//!
//! *Log*: [`LogOpen`], answered [`LogHave`] (how much is durable); then
//! [`LogData`] and [`LogCut`] by offset and a [`LogEnd`]; [`LogStored`] comes
//! back whenever more is durable. *Blob*: [`BlobOpen`], answered [`BlobHave`];
//! then, raw, the chunk nodes if they are wanted and the chunks that are
//! missing; [`BlobStored`] when it is durable under its digest. *Input*:
//! [`InputOpen`], answered [`InputHave`] and the raw bytes from the offset.
//! Any repeat at any point gives the same answer.

use serde::{Deserialize, Serialize};

use crate::bounded::{Blob, Reason};
use crate::digest::Digest;
use crate::id::{AttemptId, SessionId};

/// Bytes of one [`LogData`] at most.
pub const LOG_DATA_MAX: usize = 64 << 10;

crate::frames! {
    /// What the agent's side of a bulk stream says.
    pub enum BulkRequest {
        0x0301 BulkHello max 256, critical;
        0x0302 LogOpen max 256, critical;
        0x0303 LogData max 66000, critical;
        0x0304 LogCut max 256, critical;
        0x0305 LogEnd max 256, critical;
        0x0306 BlobOpen max 256, critical;
        0x0307 InputOpen max 256, critical;
    }
}

crate::frames! {
    /// What the coordinator's side of a bulk stream answers.
    pub enum BulkReply {
        0x0381 BulkReady max 16, critical;
        0x0382 LogHave max 256, critical;
        0x0383 LogStored max 256, critical;
        0x0384 BlobHave max 256, critical;
        0x0385 BlobStored max 256, critical;
        0x0386 InputHave max 256, critical;
        0x0387 BulkRefused max 2048, critical;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkHello {
    pub session: SessionId,
    pub ticket: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkReady {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOpen {
    pub attempt: AttemptId,
}

/// Bytes of the stored log start at `offset`; what is already stored is
/// passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogData {
    pub offset: u64,
    pub bytes: Blob<LOG_DATA_MAX>,
}

/// At `offset` of the stored log, `dropped` bytes of output are missing by
/// the cut policy. The stored log's offsets do not count them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCut {
    pub offset: u64,
    pub dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    pub length: u64,
}

/// Offered: a blob that this attempt produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobOpen {
    pub attempt: AttemptId,
    pub digest: Digest,
    pub length: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputOpen {
    pub attempt: AttemptId,
    pub digest: Digest,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHave {
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStored {
    pub offset: u64,
}

/// How many chunks are verified and durable. If all, nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobHave {
    pub chunks: u64,
    /// Send the chunk nodes first (32 bytes each, all of them).
    pub want_nodes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStored {
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputHave {
    pub length: u64,
}

/// This stream will not be served; others may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRefused {
    pub refusal: BulkRefusal,
    pub why: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkRefusal {
    /// The attempt is not this session's, or is over.
    NotYours,
    /// A chunk or a list had the wrong hash.
    Corrupt,
    /// No space here now: try again later.
    NoSpace,
    /// No such input for this job.
    NoSuchInput,
    /// An offset behind what is stored left a hole.
    Hole,
}
