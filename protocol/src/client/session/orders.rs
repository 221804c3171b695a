//! Orders: from the wire to the brain of the builder they are for.
//!
//! Owns the way from a frame to a builder's channel. Never waits for a
//! builder: one whose channel is full ends the session, and the next Welcome
//! brings all of them level.

use std::collections::VecDeque;

use tokio::sync::mpsc::{self, error::TrySendError};

use super::{SessionError, ToBuilder};
use crate::builder::Event;
use crate::client::framed::FrameReceiver;
use crate::codec::{CodecError, FrameSet};
use crate::coordinator_to_agent::CoordinatorFrame;
use crate::id::{AttemptId, BuilderIndex};

/// Attempts remembered per builder. Older ones are over; a late word about
/// one of them is told to every builder, and ignored by all.
const ROUTES_PER_BUILDER: usize = 64;

/// Which builder has which attempt.
#[derive(Debug)]
pub(super) struct Routes {
    newest_last: VecDeque<(AttemptId, BuilderIndex)>,
    max: usize,
}

impl Routes {
    pub(super) fn new(builders: usize) -> Self {
        Self {
            newest_last: VecDeque::new(),
            max: builders.max(1) * ROUTES_PER_BUILDER,
        }
    }

    pub(super) fn learn(&mut self, attempt: AttemptId, builder: BuilderIndex) {
        if self.find(attempt).is_none() {
            if self.newest_last.len() == self.max {
                self.newest_last.pop_front();
            }
            self.newest_last.push_back((attempt, builder));
        }
    }

    pub(super) fn find(&self, attempt: AttemptId) -> Option<BuilderIndex> {
        let mut newest_first = self.newest_last.iter().rev();
        let found = newest_first.find(|(known, _)| *known == attempt);
        found.map(|(_, builder)| *builder)
    }
}

/// Whom an order is for.
enum To {
    Builder(BuilderIndex),
    HolderOf(AttemptId),
}

/// Carries orders until the session ends.
pub(super) async fn carry(
    mut receive: FrameReceiver<CoordinatorFrame>,
    mut routes: Routes,
    builders: &[mpsc::Sender<ToBuilder>],
) -> SessionError {
    loop {
        let frame = match receive.expect_next().await {
            Ok(frame) => frame,
            Err(error) => return error.into(),
        };
        if let Err(error) = deliver(frame, &mut routes, builders) {
            return error;
        }
    }
}

fn deliver(
    frame: CoordinatorFrame,
    routes: &mut Routes,
    builders: &[mpsc::Sender<ToBuilder>],
) -> Result<(), SessionError> {
    let (to, event) = event_of(frame)?;
    let builder = match (&to, &event) {
        (To::Builder(builder), Event::Offer { attempt, .. }) => {
            routes.learn(*attempt, *builder);
            Some(*builder)
        }
        (To::Builder(builder), _) => Some(*builder),
        (To::HolderOf(attempt), _) => routes.find(*attempt),
    };
    match builder {
        Some(builder) => hand_over(builder, event, builders),
        None => (0u16..)
            .map(BuilderIndex)
            .zip(builders)
            .try_for_each(|(builder, _)| hand_over(builder, event.clone(), builders)),
    }
}

fn hand_over(
    builder: BuilderIndex,
    event: Event,
    builders: &[mpsc::Sender<ToBuilder>],
) -> Result<(), SessionError> {
    let Some(channel) = builders.get(usize::from(builder.0)) else {
        tracing::warn!(%builder, "an order for a builder that is not here");
        return Ok(());
    };
    match channel.try_send(ToBuilder::Order(event)) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_)) => Err(SessionError::BuilderStuck(builder)),
        Err(TrySendError::Closed(_)) => Err(SessionError::BuilderGone(builder)),
    }
}

fn event_of(frame: CoordinatorFrame) -> Result<(To, Event), CodecError> {
    use CoordinatorFrame as Frame;
    let kind = frame.kind();
    Ok(match frame {
        Frame::Offer(offer) => (
            To::Builder(offer.builder),
            Event::Offer {
                attempt: offer.attempt,
                spec: offer.spec,
            },
        ),
        Frame::Abort(abort) => {
            let (attempt, why) = (abort.attempt, abort.why);
            (To::HolderOf(attempt), Event::Abort { attempt, why })
        }
        Frame::Abandon(abandon) => {
            let (attempt, why) = (abandon.attempt, abandon.why);
            (To::HolderOf(attempt), Event::Abandon { attempt, why })
        }
        Frame::Committed(committed) => {
            let attempt = committed.attempt;
            (To::HolderOf(attempt), Event::Committed { attempt })
        }
        Frame::Ack(ack) => {
            let (attempt, seq) = (ack.attempt, ack.seq);
            (To::HolderOf(attempt), Event::Acked { attempt, seq })
        }
        Frame::Reset(reset) => {
            let nonce = reset.nonce;
            (To::Builder(reset.builder), Event::ResetOrdered { nonce })
        }
        Frame::BuilderAck(ack) => {
            let seq = ack.seq;
            (To::Builder(ack.builder), Event::BuilderAcked { seq })
        }
        Frame::Joined(_)
        | Frame::Welcome(_)
        | Frame::WelcomeBuilder(_)
        | Frame::WelcomeAttempt(_)
        | Frame::WelcomeEnd(_) => return Err(CodecError::OutOfPlace { kind }),
    })
}
