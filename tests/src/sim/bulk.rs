//! The bulk door in virtual time: how many bytes of which attempt are durable,
//! and what the farm is told of them. The bytes survive every crash; who is
//! admitted and what is expected belong to the process.

use std::collections::BTreeMap;

use farmbell_farm::event::Event;
use farmbell_protocol::builder::SealReport;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AgentId, AttemptId};

use super::checker::Broken;
use super::world::World;

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

impl World {
    /// Takes some of an attempt's bytes; says whether that was all.
    pub(super) fn carry(
        &mut self,
        attempt: AttemptId,
        log: u64,
        sealed: Option<&SealReport>,
    ) -> Result<bool, Broken> {
        if self.coordinator.farm.is_none() || !self.coordinator.bulk.admits(attempt) {
            return Ok(false);
        }
        let eighths = self.rng.below(9);
        let bulk = &mut self.coordinator.bulk;
        let before = bulk.stored(attempt);
        bulk.log(
            attempt,
            before.log + (log - before.log.min(log)).div_ceil(2),
        );
        let Some(sealed) = sealed else {
            return Ok(false);
        };
        bulk.blobs(attempt, u8::try_from(eighths).unwrap_or(8), sealed.manifest);
        let stored = bulk.stored(attempt);
        if stored.log < sealed.log_bytes {
            self.submit_event(Event::Progress { attempt })?;
            return Ok(false);
        }
        bulk.close_log(attempt);
        self.submit_event(Event::LogClosed {
            attempt,
            bytes: stored.log,
        })?;
        if !stored.complete {
            self.submit_event(Event::Progress { attempt })?;
            return Ok(false);
        }
        self.tell_collected(attempt)?;
        Ok(true)
    }

    pub(super) fn tell_collected(&mut self, attempt: AttemptId) -> Result<(), Broken> {
        if !self.coordinator.bulk.collected(attempt) {
            return Ok(());
        }
        let ran = self.checker.tally.get(&attempt);
        let outputs = ran.and_then(|ran| ran.outputs.clone()).unwrap_or_default();
        self.submit_event(Event::Collected {
            attempt,
            outputs: outputs.into(),
        })
    }
}
