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
    /// Of a session that an earlier brain was linked to, or that was opened
    /// while none worked.
    missed: Option<Speaker>,
}

impl Desk {
    #[must_use]
    pub const fn new(builder: Builder) -> Self {
        Self {
            builder,
            speaker: None,
            missed: None,
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

    /// Tells the brain of an event of the host's. Where that changes what the
    /// builder offers, the session ends: only a Hello tells of an offer.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Effect> {
        let offered = self.builder.spool_survives_reset();
        let effects = self.builder.handle(now, event);
        if self.builder.spool_survives_reset() != offered
            && let Some(speaker) = &self.speaker
        {
            speaker.hang_up("a builder has something new to offer");
        }
        effects
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

    /// Sits down where another brain sat before.
    pub fn follow(&mut self, before: Self) {
        self.missed = before.speaker.or(before.missed);
    }

    /// Takes a message while the brain does not work: only what a Hello asks is
    /// answered, since other builders wait for it.
    pub fn wait(&mut self, message: ToBuilder) {
        match message {
            ToBuilder::Hello { index, answer } => {
                if answer.send(self.builder.hello(index)).is_err() {
                    tracing::debug!("the Hello was given up");
                }
            }
            ToBuilder::Linked { speaker, .. } => self.missed = Some(speaker),
            ToBuilder::Order(_) => {}
            ToBuilder::Unlinked => self.missed = None,
        }
    }

    /// The brain works again: a session that it was not linked to is ended,
    /// and the next Welcome brings it level.
    pub fn resume(&mut self) {
        if let Some(speaker) = self.missed.take() {
            speaker.hang_up("a builder starts again from its spool");
        }
    }
}
