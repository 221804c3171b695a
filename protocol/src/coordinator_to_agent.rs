//! What the coordinator says on the control stream: one answer to a Join or a
//! Hello, then orders and acknowledgements. Every order can be repeated; the
//! same order twice is the same as once.

use serde::{Deserialize, Serialize};

use crate::agent_to_coordinator::Refusal;
use crate::bounded::{List, Name, Reason, Text};
use crate::id::{
    AgentId, AttemptId, BuilderId, BuilderIndex, CleanNonce, Epoch, KeyHash, Seq, SessionId,
};
use crate::spec::JobSpec;
use crate::version::Features;

crate::frames! {
    /// Everything the coordinator may say on the control stream.
    pub enum CoordinatorFrame {
        0x0201 Joined max 1024, critical;
        0x0202 Welcome max 2048, critical;
        0x0203 WelcomeBuilder max 256, critical;
        0x0204 WelcomeAttempt max 2048, critical;
        0x0205 WelcomeEnd max 16, critical;
        0x0210 Offer max crate::codec::CONTROL_BODY_MAX, critical;
        0x0211 Abort max 2048, critical;
        0x0212 Abandon max 2048, critical;
        0x0213 Committed max 256, critical;
        0x0214 Ack max 256, critical;
        0x0220 Reset max 256, critical;
        0x0221 BuilderAck max 256, critical;
    }
}

/// The identity is granted; the agent may say Hello on its next connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub agent: AgentId,
    pub name: Name,
}

/// Opens the session; [`WelcomeBuilder`]s and [`WelcomeAttempt`]s follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub features: Features,
    pub agent: AgentId,
    pub session: SessionId,
    pub epoch: Epoch,
    /// Where bulk streams go: `host:port`; an empty host is the control's own.
    pub bulk: Text<256>,
    /// Shown in the first frame of the bulk connection.
    pub ticket: [u8; 16],
    /// Hashes of keys that may follow the coordinator's present one.
    pub successors: List<KeyHash, 4>,
}

/// How the coordinator numbers a builder, and what it has of its reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeBuilder {
    pub index: BuilderIndex,
    pub builder: BuilderId,
    pub acked: Seq,
}

/// One attempt out of the *union* of what both sides hold.
///
/// | agent holds | coordinator holds | standing |
/// |---|---|---|
/// | yes | as live | `Continue`: send what lies behind `acked` |
/// | yes | as decided by this attempt | `Committed`: drop it |
/// | yes | not, or as superseded | `Abandon`: stop it, drop it, say why |
/// | no | as live | `Lost`: it is over; an offer still on its way is void |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeAttempt {
    pub attempt: AttemptId,
    pub standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Continue { acked: Seq },
    Committed,
    Abandon { why: Reason },
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeEnd {}

/// Do this, on that builder. Repeated until answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub builder: BuilderIndex,
    pub attempt: AttemptId,
    pub spec: Box<JobSpec>,
}

/// End the attempt: TERM, grace, KILL. Its log is still wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    pub attempt: AttemptId,
    pub why: Reason,
}

/// End the attempt and forget it: its fence is not valid any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandon {
    pub attempt: AttemptId,
    pub why: Reason,
}

/// Everything of this attempt is durable here; its spool may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub attempt: AttemptId,
}

/// Reports of this attempt up to `seq` are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub attempt: AttemptId,
    pub seq: Seq,
}

/// Reset and probe the builder; only a proof with this nonce counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    pub builder: BuilderIndex,
    pub nonce: CleanNonce,
}

/// Reports of this builder up to `seq` are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuilderAck {
    pub builder: BuilderIndex,
    pub seq: Seq,
}

impl Refusal {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Occupied => "occupied",
            Self::UnknownRecipe => "unknown_recipe",
            Self::NoSpace => "no_space",
            Self::Backlog => "backlog",
            Self::Draining => "draining",
            Self::Input => "input",
            Self::Unfit => "unfit",
        }
    }
}
