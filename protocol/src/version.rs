//! Which conversations are possible, and how a connection ends. The rules for
//! changing the wire stand in [`codec`](crate::codec).

use serde::{Deserialize, Serialize};

/// The ALPN protocol name; its number is the major version.
pub const ALPN: &[u8] = b"farmbell/1";
/// The oldest minor version spoken here.
pub const MIN: u16 = 1;
/// The newest minor version spoken here.
pub const CURRENT: u16 = 1;

/// Optional parts of the conversation, one bit each. A bit is used on a
/// connection only if both sides set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features(pub u64);

impl Features {
    /// All that this build knows: none yet.
    pub const ALL: Self = Self(0);

    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The version two sides speak: the newest that both know.
#[must_use]
pub fn negotiate(min: u16, max: u16) -> Option<u16> {
    let version = max.min(CURRENT);
    (version >= min && version >= MIN).then_some(version)
}

macro_rules! close_codes {
    ($($number:literal $name:ident $text:literal, $retry:literal, $meaning:literal;)*) => {
        /// Why one side ended the connection: a QUIC application close code.
        /// The name stands in both sides' logs; the close frame's reason says
        /// the particulars.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum CloseCode { $(#[doc = $meaning] $name,)* }

        impl CloseCode {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            #[must_use]
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
            /// Whether an agent should dial again by itself.
            #[must_use]
            pub const fn dial_again(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

close_codes! {
    0 Done "done", true, "the conversation is over";
    1 Shutdown "shutdown", true, "this side is going down; dial again";
    2 Replaced "replaced", true, "a newer session of the same agent took over";
    3 Overloaded "overloaded", true, "too much waits to be sent to or taken from this peer";
    4 Silent "silent", true, "the peer said nothing in time";
    16 Version "version", false, "the two sides have no protocol version in common";
    17 Malformed "malformed-frame", true, "a frame could not be read";
    18 TooLong "frame-too-long", true, "a frame announced more bytes than its kind may have";
    19 UnknownCritical "unknown-critical-frame", false, "a frame that must be understood is not";
    20 OutOfPlace "frame-out-of-place", true, "a frame came where it has no place";
    32 UnknownKey "unknown-key", false, "no agent with this key has joined";
    33 Revoked "revoked", false, "this agent's key was revoked";
    34 Frozen "frozen", false, "this agent is frozen until an operator looks";
    35 Envelope "envelope", false, "the Hello offers more than the agent was granted";
    36 Clone "clone", false, "another machine is connected with the same key";
    37 BadHello "bad-hello", false, "the Hello contradicts itself";
    48 TokenWrong "token-wrong", false, "no such join token, or its secret is wrong";
    49 TokenUsed "token-used", false, "the join token has been used as often as it allows";
    50 TokenExpired "token-expired", false, "the join token's time is over";
    51 NameTaken "name-taken", false, "another agent has this name";
    52 TokenRevoked "token-revoked", false, "the join token was revoked";
    64 LowerEpoch "lower-epoch", true, "the coordinator's store is older than one this agent has seen";
    65 BadTicket "bad-ticket", true, "the bulk connection's ticket belongs to no live session";
    66 StoreFailed "store-failed", true, "the coordinator cannot make anything durable at present";
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
