//! Real daemons under load, killed and cut off: no build may be lost, none
//! committed twice, and every log and artifact must be what its job wrote.
//!
//! Owns the faults and the load; the judgement is the load's own, since each
//! job knows what it wrote and notes outside the farm that it ran.

pub mod kill;
mod load;
pub mod net;
pub mod power;
pub mod signals;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde::Serialize;

use crate::harness::Events;
use load::Load;

/// What a run of chaos did and found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub what: &'static str,
    pub seed: u64,
    /// Faults done, by name.
    pub faults: BTreeMap<String, u32>,
    /// Which part of the named failpoints was died at.
    pub coverage: Vec<Coverage>,
    pub jobs: usize,
    /// What should not be; empty when all held.
    pub broken: Vec<String>,
}

/// How many of the failpoints of one side were died at.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    pub side: &'static str,
    pub hit: usize,
    pub points: usize,
}

impl Report {
    fn of(what: &'static str, seed: u64) -> Self {
        Self {
            what,
            seed,
            ..Self::default()
        }
    }

    fn fault(&mut self, name: &str) {
        *self.faults.entry(name.to_owned()).or_default() += 1;
    }
}

/// The choices of a run: the same for the same seed.
#[derive(Debug)]
struct Dice(ChaCha8Rng);

impl Dice {
    fn of(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `sides`.
    fn roll(&mut self, sides: u32) -> u32 {
        self.0.next_u32() % sides.max(1)
    }

    /// The same for sizes.
    fn below(&mut self, sides: usize) -> usize {
        let sides = u32::try_from(sides).expect("sizes are small here");
        usize::try_from(self.roll(sides)).expect("no more than that")
    }

    fn shuffle<T>(&mut self, things: &mut [T]) {
        for left in (1..things.len()).rev() {
            things.swap(left, self.below(left + 1));
        }
    }
}

/// What is being done, for whoever waits for a long run.
#[expect(clippy::print_stderr, reason = "a long run says how far it is")]
fn progress(line: std::fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// Lets the farm work, with work ahead, for this long.
fn go_on(load: &mut Load, events: &mut Events, pause: Duration) {
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Some(entry) = events.next_within(left, |_| true) else {
            return;
        };
        load.saw(&entry);
    }
}
