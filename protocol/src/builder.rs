//! The brain of one builder: everything an agent decides about one place
//! where one attempt runs at a time. Pure: events in, effects out; the agent
//! and a stranger's builder are this same machine, and the simulation runs
//! thousands of it.
//!
//! The contract of whoever drives it:
//! 1. [`Effect::Spool`] records of one call are durable before any other
//!    effect of that call is performed (write before say).
//! 2. Effects are performed in order; a [`Effect::Say`] while there is no
//!    session is dropped (the next Welcome brings it level again).
//! 3. Everything asked for (`Start`, `Stop`, `Seal`, `Upload`, `Reset`) is
//!    answered by an event, once, however it ends.
//! 4. After a restart, [`Builder::restore`] is given the spool's records and
//!    what the host still runs, and carries on.

mod event;

pub use event::{
    Effect, EndReport, Event, HostView, Record, ResetReport, SealReport, Settings, Survivor,
};

use crate::agent_to_coordinator::{HelloAttempt, HelloBuilder};
use crate::id::BuilderIndex;
use crate::time::Time;

/// One builder's state machine.
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    /// A builder with an empty spool.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The builder as its spool tells, and what has to be done at once.
    #[must_use]
    pub fn restore(
        settings: Settings,
        _records: Vec<Record>,
        _host: &HostView,
        _now: Time,
    ) -> (Self, Vec<Effect>) {
        (Self { settings }, Vec::new())
    }

    /// What this builder contributes to a Hello.
    #[must_use]
    pub fn hello(&self, _index: BuilderIndex) -> (HelloBuilder, Vec<HelloAttempt>) {
        unreachable!("being written")
    }

    /// Takes one event; what must be done comes back in order.
    pub fn handle(&mut self, _now: Time, _event: Event) -> Vec<Effect> {
        let _settings = &self.settings;
        Vec::new()
    }

    /// When [`Event::Wake`] is due, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }
}
