//! Real daemons under load, killed and cut off: no build may be lost, none
//! committed twice, and every log and artifact must be what its job wrote.
//!
//! Owns the faults and the load; the judgement is the load's own, since each
//! job knows what it wrote and notes outside the farm that it ran.

pub mod kill;
mod load;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde::Serialize;

/// What a run of chaos did and found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub what: &'static str,
    pub seed: u64,
    /// Faults done, by name.
    pub faults: std::collections::BTreeMap<String, u32>,
    pub jobs: usize,
    /// What should not be; empty when all held.
    pub broken: Vec<String>,
}

impl Report {
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
}
