//! The farm's clock: starts where the store's stood, goes on with the host's
//! monotonic one. The wall clock is carried along for people.

use std::time::{SystemTime, UNIX_EPOCH};

use farmbell_protocol::time::{Now, Time, Wall};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: Time,
    started: Instant,
}

impl Clock {
    pub(super) fn from(base: Time) -> Self {
        Self {
            base,
            started: Instant::now(),
        }
    }

    pub(super) fn now(self) -> Now {
        Now {
            time: self.base + self.started.elapsed(),
            wall: wall(),
        }
    }

    /// When a time of the farm comes on this host's clock.
    pub(super) fn instant(self, time: Time) -> Instant {
        self.started + time.since(self.base)
    }
}

/// The host's calendar; before 1970 counts as 1970.
pub(super) fn wall() -> Wall {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
