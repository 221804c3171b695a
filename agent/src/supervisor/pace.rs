//! How fast a build may write its log. One that floods waits in its own pipe;
//! its neighbours find a processor and the disk.

use std::time::{Duration, Instant};

/// What any build may say, at length: more than a person or a store takes.
const BYTES_PER_SECOND: u64 = 216 << 20;
/// What was not used is saved for this long.
const SAVED: Duration = Duration::from_millis(100);

/// When more of the output is taken.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self { next: now }
    }

    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        let saved = now.checked_sub(SAVED).unwrap_or(now);
        let micros = (bytes as u64).saturating_mul(1_000_000) / BYTES_PER_SECOND;
        self.next = self.next.max(saved) + Duration::from_micros(micros);
    }

    /// When to read again; `None` for at once.
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        (self.next > now).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_to_its_rate_and_a_talker_to_nothing() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let mut now = began;
        let mut bytes = 0;
        while now < began + Duration::from_secs(10) {
            pace.took(1 << 20, now);
            bytes += 1 << 20;
            now = pace.waits_until(now).unwrap_or(now);
        }
        let saved = BYTES_PER_SECOND / 10;
        let most = 10 * BYTES_PER_SECOND + saved + (1 << 20);
        assert!((10 * BYTES_PER_SECOND..=most).contains(&bytes), "{bytes}");
        // Once it has been quiet for a moment.
        now += Duration::from_secs(1);
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            pace.took(16 << 10, now);
            assert_eq!(pace.waits_until(now), None);
        }
    }
}
