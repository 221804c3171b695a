//! The bulk door in virtual time: how many bytes of which attempt are durable,
//! and what the farm is told of them. The bytes survive every crash; who is
//! admitted and what is expected belong to the process.

use std::collections::BTreeMap;

use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AgentId, AttemptId};

/// Bytes that are on the coordinator's disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    pub(super) log: u64,
    pub(super) log_closed: bool,
    /// In eighths: the outputs and their manifest.
    pub(super) blobs: u8,
    pub(super) complete: bool,
    pub(super) manifest: Option<Digest>,
}

#[derive(Debug, Default)]
pub(super) struct Bulk {
    stored: BTreeMap<AttemptId, Stored>,
    admitted: BTreeMap<AttemptId, AgentId>,
    expected: BTreeMap<AttemptId, Digest>,
}

impl Bulk {
    pub(super) fn crash(&mut self) {
        self.admitted.clear();
        self.expected.clear();
    }

    pub(super) fn admit(&mut self, agent: AgentId, attempt: AttemptId) {
        self.admitted.insert(attempt, agent);
    }

    pub(super) fn dismiss(&mut self, attempt: AttemptId) {
        self.admitted.remove(&attempt);
        self.expected.remove(&attempt);
    }

    pub(super) fn expect(&mut self, attempt: AttemptId, manifest: Digest) {
        self.expected.insert(attempt, manifest);
    }

    pub(super) fn admits(&self, attempt: AttemptId) -> bool {
        self.admitted.contains_key(&attempt)
    }

    pub(super) fn stored(&self, attempt: AttemptId) -> Stored {
        self.stored.get(&attempt).copied().unwrap_or_default()
    }

    /// Takes log bytes up to `have` of what the agent has spooled.
    pub(super) fn log(&mut self, attempt: AttemptId, have: u64) {
        let stored = self.stored.entry(attempt).or_default();
        stored.log = stored.log.max(have);
    }

    pub(super) fn close_log(&mut self, attempt: AttemptId) {
        self.stored.entry(attempt).or_default().log_closed = true;
    }

    /// One more eighth of the outputs; all of them at once where none is big.
    pub(super) fn blobs(&mut self, attempt: AttemptId, eighths: u8, manifest: Digest) {
        let stored = self.stored.entry(attempt).or_default();
        stored.blobs = stored.blobs.saturating_add(eighths).min(8);
        if stored.blobs == 8 {
            stored.complete = true;
            stored.manifest = Some(manifest);
        }
    }

    /// Whether the farm has to be told now that everything is here.
    pub(super) fn collected(&self, attempt: AttemptId) -> bool {
        let stored = self.stored(attempt);
        let expected = self.expected.get(&attempt).copied();
        stored.complete && expected.is_some() && expected == stored.manifest
    }
}
