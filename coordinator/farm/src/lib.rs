//! The brain of a Farmbell farm. Pure: no clock, no sockets, no threads.
#![forbid(unsafe_code)]

pub mod effect;
pub mod event;
pub mod record;
mod settings;

pub use settings::{Limits, Settings};

use effect::Effect;
use event::Event;
use farmbell_protocol::id::Epoch;
use farmbell_protocol::time::{Now, Time};
use record::Snapshot;

/// Everything the farm knows, owned by one task.
#[derive(Debug)]
pub struct Farm {
    epoch: Epoch,
}

impl Farm {
    /// The farm as the store tells it, at a new epoch, and what must be done
    /// at once. `seed` is the operating system's randomness.
    #[must_use]
    pub fn restore(
        _settings: Settings,
        _snapshot: Snapshot,
        _now: Now,
        _seed: [u8; 32],
    ) -> (Self, Vec<Effect>) {
        (
            Self {
                epoch: Epoch::default(),
            },
            Vec::new(),
        )
    }

    /// Takes one event; what must be done comes back in order.
    pub fn handle(&mut self, _now: Now, _event: Event) -> Vec<Effect> {
        let _epoch = self.epoch;
        Vec::new()
    }

    /// When [`Event::Wake`] is due, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }
}
