//! Joining: a new key asks for an identity with a token. One connection, one
//! question, one answer.
//!
//! Owns that conversation on the agent's side. What a token grants is the
//! farm's to decide; keeping what comes back is the caller's to do.

use std::time::Duration;

use crate::agent_to_coordinator::{AgentFrame, Join};
use crate::bounded::Name;
use crate::client::dial::{DialError, dial};
use crate::client::framed::{FrameError, FrameReceiver, FrameSender};
use crate::client::identity::Identity;
use crate::client::quic::Profile;
use crate::client::token::Token;
use crate::client::transport::Closed;
use crate::codec::{CodecError, FrameSet};
use crate::coordinator_to_agent::{CoordinatorFrame, Joined};
use crate::version::CloseCode;

/// The answer takes a commit on the coordinator; more is trouble there.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Why the agent has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the coordinator refused the token: {code} ({}){}", code.meaning(), fix(*code))]
    Refused { code: CloseCode, reason: String },
    #[error("the connection ended before the answer: {0}")]
    Closed(Closed),
    #[error("the coordinator did not answer within {} s", ANSWER_TIME.as_secs())]
    NoAnswer,
    #[error("the coordinator's answer could not be read: {0}")]
    Answer(FrameError),
}

fn fix(code: CloseCode) -> &'static str {
    use CloseCode::{NameTaken, TokenExpired, TokenRevoked, TokenUsed, TokenWrong, Version};
    if [TokenWrong, TokenUsed, TokenExpired, TokenRevoked].contains(&code) {
        "; make a new one with: farmbell token create"
    } else if code == NameTaken {
        "; choose another name"
    } else if code == Version {
        "; upgrade the older of the two"
    } else {
        ""
    }
}

/// Asks for an identity. The same key may ask again: it gets the same answer.
///
/// # Errors
/// If the coordinator cannot be reached or refuses.
pub async fn join(
    identity: &Identity,
    token: &Token,
    name: Name,
    software: Name,
) -> Result<Joined, JoinError> {
    let pins = [token.coordinator];
    let connection = dial(&token.address, identity, &pins, Profile::Control).await?;
    let (send, receive) = connection.open().await.map_err(ended)?;
    let mut send = FrameSender::<AgentFrame>::new(send);
    let mut receive = FrameReceiver::<CoordinatorFrame>::new(receive);
    let question = Join {
        token: token.id,
        secret: token.secret,
        name,
        software,
    };
    send.send(question).await.map_err(answer)?;
    let answered = tokio::time::timeout(ANSWER_TIME, receive.expect_next())
        .await
        .map_err(|_| JoinError::NoAnswer)?;
    let answered = answered.map_err(answer)?;
    let kind = answered.kind();
    let CoordinatorFrame::Joined(joined) = answered else {
        connection.close(CloseCode::OutOfPlace, "only Joined answers a Join");
        let out_of_place = CodecError::OutOfPlace { kind };
        return Err(JoinError::Answer(out_of_place.into()));
    };
    connection.close(CloseCode::Done, "joined");
    connection.drained().await;
    Ok(joined)
}

fn answer(error: FrameError) -> JoinError {
    match error.closed() {
        Some(closed) => ended(closed.clone()),
        None => JoinError::Answer(error),
    }
}

fn ended(closed: Closed) -> JoinError {
    match closed {
        Closed::ByPeer { code, reason } => JoinError::Refused { code, reason },
        Closed::Unnamed { .. }
        | Closed::Here
        | Closed::Silence
        | Closed::Restarted
        | Closed::Version { .. }
        | Closed::Failed { .. } => JoinError::Closed(closed),
    }
}
