//! How long to wait before dialling again: exponential with full jitter, so
//! that ten thousand agents of a restarted coordinator do not come at once.
//! Owns the numbers; never sleeps.

use std::time::Duration;

/// The longest wait before the second try.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait of all: a farm is whole again soon after its coordinator.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures and names the next wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: anything from nothing to the cap.
    pub fn next_wait(&mut self) -> Duration {
        let cap = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        cap.mul_f64(fraction())
    }

    /// The wait after a try that failed after `lasted`. One that went on for
    /// longer than any wait worked, and ended for a reason of its own.
    pub fn next_wait_after(&mut self, lasted: Duration) -> Duration {
        if lasted > LONGEST {
            self.succeeded();
        }
        self.next_wait()
    }

    /// It worked: the next failure is a first one.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// `span`, up to a fifth more or less of it.
#[must_use]
pub fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.8 + 0.4 * fraction())
}

/// Evenly from 0 up to 1. Without randomness the middle: a wait must not fail.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_thirty_seconds_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            assert!(backoff.next_wait() <= LONGEST);
        }
        backoff.succeeded();
        assert!(backoff.next_wait() <= FIRST);
    }

    #[test]
    fn a_try_that_worked_for_long_is_followed_by_a_short_wait() {
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            assert!(backoff.next_wait_after(Duration::ZERO) <= LONGEST);
        }
        assert!(backoff.next_wait_after(2 * LONGEST) <= FIRST);
    }
}
