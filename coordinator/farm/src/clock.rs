//! Farm time. Owns the farm's own clock: it never decreases, is stored, and
//! stands still while the coordinator is down, so that a stored deadline keeps
//! what was left of it. Never decides what a deadline means.
//!
//! The driver may bring any never-decreasing clock; what counts here is what
//! passed on it since this process started.

use std::time::Duration;

use farmbell_protocol::time::{Now, Time, Wall};

/// How much of the clock a crash may forget: what a crash loop must run
/// longer than to make progress.
pub(crate) const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// What a deadline is given at a start, for agents need to find their way
/// back before they are judged.
pub(crate) const GRACE: Duration = Duration::from_secs(2 * 60);
/// How far starts in quick succession may move a deadline in all.
pub(crate) const GRACE_TOTAL: Duration = Duration::from_secs(10 * 60);

#[derive(Clone, Debug)]
pub(crate) struct Clock {
    driver_start: Time,
    farm_start: Time,
    now: Time,
    wall: Wall,
    pub(crate) checkpoint: Time,
}

impl Clock {
    /// A clock that goes on from the stored time.
    pub(crate) fn resume(stored: Time, now: Now) -> Self {
        Self {
            driver_start: now.time,
            farm_start: stored,
            now: stored,
            wall: now.wall,
            checkpoint: stored,
        }
    }

    pub(crate) fn tick(&mut self, now: Now) {
        let farm = self.farm_start + now.time.since(self.driver_start);
        self.now = self.now.max(farm);
        self.wall = now.wall;
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn wall(&self) -> Wall {
        self.wall
    }

    /// A farm time on the driver's clock.
    pub(crate) fn on_driver(&self, farm: Time) -> Time {
        self.driver_start + farm.since(self.farm_start)
    }
}

/// The least a deadline may be after a start at `now`, where starts have
/// followed each other quickly since `grace_from`.
pub(crate) fn grace_floor(now: Time, grace_from: Time) -> Time {
    (now + GRACE).min(grace_from + GRACE_TOTAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn farm_time_stands_still_while_the_coordinator_is_down() {
        let at = |time| Now {
            time: Time(time),
            wall: Wall(0),
        };
        let mut clock = Clock::resume(Time(500), at(9_000));
        assert_eq!(clock.now(), Time(500));
        clock.tick(at(9_100));
        assert_eq!(clock.now(), Time(600));
        clock.tick(at(8_000));
        assert_eq!(clock.now(), Time(600), "it never goes back");
        assert_eq!(clock.on_driver(Time(700)), Time(9_200));
    }
}
