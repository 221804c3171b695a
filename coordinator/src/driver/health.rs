//! How the driver and its store are, for `/healthz` and `/metrics`. Owns the
//! counters; never decides on them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farmbell_protocol::time::Wall;

/// Upper bounds of the commit histogram in microseconds: from a quiet disk
/// (0.15 ms) to one that an operator has to look at.
pub const COMMIT_BOUNDS_US: [u64; 12] = [
    125, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000,
];

/// The driver at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Set while nothing can be made durable.
    pub stall: Option<Stall>,
    /// Events that wait in the agents' lane, and how many may.
    pub agents_waiting: usize,
    /// Requests that wait in the HTTP lane.
    pub http_waiting: usize,
    /// Events handled since the start of the process.
    pub events: u64,
    /// Changes made durable since the start of the process.
    pub changes: u64,
    pub commits: CommitTimes,
}

/// The store takes nothing: the disk is full, or another process holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    pub since: Wall,
    pub why: String,
}

/// How long commits took: a histogram with the bounds [`COMMIT_BOUNDS_US`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitTimes {
    /// One count per bound, then those above the last; not cumulative.
    pub counts: [u64; COMMIT_BOUNDS_US.len() + 1],
    pub sum_us: u64,
    pub longest_us: u64,
}

/// Counts as the driver goes; read from other threads.
#[derive(Debug, Default)]
pub(super) struct Meter {
    events: AtomicU64,
    changes: AtomicU64,
    commits: [AtomicU64; COMMIT_BOUNDS_US.len() + 1],
    commit_sum_us: AtomicU64,
    commit_longest_us: AtomicU64,
}

impl Meter {
    pub(super) fn handled(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn committed(&self, changes: u64, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = COMMIT_BOUNDS_US.partition_point(|bound| *bound < us);
        self.commits[place].fetch_add(1, Ordering::Relaxed);
        self.commit_sum_us.fetch_add(us, Ordering::Relaxed);
        self.commit_longest_us.fetch_max(us, Ordering::Relaxed);
        self.changes.fetch_add(changes, Ordering::Relaxed);
    }

    pub(super) fn read(
        &self,
        stall: Option<Stall>,
        agents_waiting: usize,
        http_waiting: usize,
    ) -> Health {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Health {
            stall,
            agents_waiting,
            http_waiting,
            events: read(&self.events),
            changes: read(&self.changes),
            commits: CommitTimes {
                counts: std::array::from_fn(|place| read(&self.commits[place])),
                sum_us: read(&self.commit_sum_us),
                longest_us: read(&self.commit_longest_us),
            },
        }
    }
}
