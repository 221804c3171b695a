//! A builder's brain and its line to the session: what a builder's task holds.

use super::{Speaker, ToBuilder};
use crate::agent_to_coordinator::AgentFrame;
use crate::builder::{Builder, Effect, Event};
use crate::time::Time;

/// Answers the session's questions, tells the brain what happens, and says
/// what the brain wants said while there is a session.
#[derive(Debug)]
pub struct Desk {
    builder: Builder,
    speaker: Option<Speaker>,
}

impl Desk {
    #[must_use]
    pub const fn new(builder: Builder) -> Self {
        Self {
            builder,
            speaker: None,
        }
    }

    /// Takes a message of the session. The effects are the caller's to
    /// perform, in order, [`Effect::Say`] by [`say`](Self::say).
    pub fn take(&mut self, now: Time, message: ToBuilder) -> Vec<Effect> {
        match message {
            ToBuilder::Hello { index, answer } => {
                if answer.send(self.builder.hello(index)).is_err() {
                    tracing::debug!("the Hello was given up");
                }
                Vec::new()
            }
            ToBuilder::Linked { event, speaker } => {
                self.speaker = Some(speaker);
                self.handle(now, event)
            }
            ToBuilder::Order(event) => self.handle(now, event),
            ToBuilder::Unlinked => {
                self.speaker = None;
                self.handle(now, Event::Unlinked)
            }
        }
    }

    /// Tells the brain of an event of the host's.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Effect> {
        self.builder.handle(now, event)
    }

    /// The brain, to be asked about.
    #[must_use]
    pub const fn builder(&self) -> &Builder {
        &self.builder
    }

    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.builder.next_deadline()
    }

    /// Says it, or nothing without a session: the next Welcome brings it level.
    pub fn say(&self, frame: AgentFrame) {
        if let Some(speaker) = &self.speaker {
            speaker.say(frame);
        }
    }

    /// Ends the session, if there is one: the next Welcome brings whoever sits
    /// here then level with the coordinator.
    pub fn hang_up(&self, why: &str) {
        if let Some(speaker) = &self.speaker {
            speaker.hang_up(why);
        }
    }
}
