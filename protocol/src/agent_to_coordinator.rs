//! What an agent says on the control stream.
//!
//! First either [`Join`] (an unknown key may say nothing else), or [`Hello`],
//! one [`HelloBuilder`] per builder, one [`HelloAttempt`] per attempt it holds,
//! and [`HelloEnd`]. Nothing else is taken before the Welcome. Then reports:
//! those of an attempt and those of a builder are each numbered from 1, are
//! repeated until acknowledged, and are acknowledged only when the coordinator
//! has them on its disk.

use serde::{Deserialize, Serialize};

use crate::bounded::{Blob, List, Name, Reason, Text};
use crate::digest::Digest;
use crate::id::{AttemptId, BootId, BuilderIndex, CleanNonce, Epoch, Seq, SessionId, SpoolId};
use crate::outcome::{ExitStatus, Outcome, Usage};
use crate::spec::Rung;
use crate::version::Features;

crate::frames! {
    /// Everything an agent may say on the control stream.
    pub enum AgentFrame {
        0x0101 Join max 4096, critical;
        0x0102 Hello max 8192, critical;
        0x0103 HelloBuilder max 16384, critical;
        0x0104 HelloAttempt max 256, critical;
        0x0105 HelloEnd max 16, critical;
        0x0110 Accepted max 256, critical;
        0x0111 Refused max 2048, critical;
        0x0112 Started max 256, critical;
        0x0113 Ended max 2048, critical;
        0x0114 Sealed max 2048, critical;
        0x0115 OutputsLost max 2048, critical;
        0x0120 ResetStarted max 256, critical;
        0x0121 ResetFailed max 16384, critical;
        0x0122 Clean max 512, critical;
        0x0123 Condition max 4096, critical;
    }
}

/// Asks for an identity. The token's secret travels only inside TLS to the key
/// that the token itself pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    pub token: u64,
    pub secret: [u8; 16],
    /// The name the agent would like; the farm's page shows it.
    pub name: Name,
    pub software: Name,
}

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version_min: u16,
    pub version_max: u16,
    pub features: Features,
    pub software: Name,
    pub boot: BootId,
    /// Counts the agent's starts on this state directory, or, in a container,
    /// whatever its host counts.
    pub incarnation: u64,
    pub spool: SpoolId,
    /// The highest coordinator epoch this agent has seen.
    pub epoch: Epoch,
    pub previous_session: Option<SessionId>,
    pub builders: u16,
    pub attempts: u16,
    /// Free facts of the host, for people: `(kind, UTF-8)`.
    pub facts: List<Fact, 64>,
}

/// A fact by number, so that old readers pass over new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    pub kind: u16,
    pub value: Blob<1024>,
}

/// Numbers of [`Fact::kind`].
pub mod fact {
    pub const HOSTNAME: u16 = 1;
    pub const KERNEL: u16 = 2;
    pub const OS: u16 = 3;
    pub const CPUS: u16 = 4;
    pub const MEMORY_BYTES: u16 = 5;
    /// `disk` or `tmpfs`: what the spool's durability rests on.
    pub const SPOOL_DURABILITY: u16 = 6;
    /// What this host lacks and what that costs, one line each.
    pub const DEGRADED: u16 = 7;
}

/// One builder that the agent offers. May narrow what the agent was granted,
/// never widen it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloBuilder {
    pub index: BuilderIndex,
    pub name: Name,
    /// Recipes this builder has.
    pub recipes: List<Name, 32>,
    pub architectures: List<Name, 16>,
    /// Tags that jobs may ask for.
    pub open_tags: List<Name, 32>,
    /// Tags that jobs *must* ask for to run here.
    pub restricted_tags: List<Name, 32>,
    pub virtualized: bool,
    /// The highest rung of isolation this builder offers.
    pub rung: Rung,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub reset_scope: ResetScope,
    /// Whether a canary proved that the spool survives this builder's reset.
    pub spool_survives_reset: bool,
    /// The newest report of this builder that the agent has numbered.
    pub last_seq: Seq,
    /// The attempt that occupies the builder now.
    pub occupied_by: Option<AttemptId>,
}

/// What a reset destroys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetScope {
    Workspace,
    /// A machine that the agent sits outside of.
    Guest,
    /// The machine that the agent sits inside of.
    Host,
}

/// One attempt that the agent holds in its spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAttempt {
    pub builder: BuilderIndex,
    pub attempt: AttemptId,
    pub phase: AttemptPhase,
    pub last_seq: Seq,
}

/// How far an attempt is on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AttemptPhase {
    Accepted,
    Running,
    /// The tree is empty; outputs are being gathered.
    Ended,
    /// Outputs are sealed; they and the log are being sent.
    Sealed,
}

/// Nothing more belongs to the Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloEnd {}

/// The offer is in the spool and will be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub attempt: AttemptId,
    pub seq: Seq,
}

/// The offer will not be carried out. Where that lies in the builder's present
/// condition it costs the job no attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub attempt: AttemptId,
    pub seq: Seq,
    pub refusal: Refusal,
    pub why: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The builder is not free or not clean: the two sides' books differ.
    Occupied,
    UnknownRecipe,
    /// Not enough room for the job's outputs.
    NoSpace,
    /// Too much waits in the spool.
    Backlog,
    /// The agent is going down.
    Draining,
    /// An input could not be had.
    Input,
    /// The spec asks for what this builder cannot give.
    Unfit,
}

/// The recipe runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub attempt: AttemptId,
    pub seq: Seq,
}

/// The recipe ended and its process tree is proved empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub attempt: AttemptId,
    pub seq: Seq,
    pub outcome: Outcome,
    pub exit: Option<ExitStatus>,
    pub usage: Usage,
}

/// Outputs are out of the build's reach, fsynced and hashed: the builder is
/// free (and dirty) while they travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub attempt: AttemptId,
    pub seq: Seq,
    /// The digest of the encoded [`Manifest`](crate::spec::Manifest).
    pub manifest: Digest,
    pub manifest_bytes: u64,
    pub outputs: u32,
    pub output_bytes: u64,
    /// The log's final length.
    pub log_bytes: u64,
    /// Set where gathering found the job at fault (a declared output missing,
    /// a hostile file name): replaces the outcome that `Ended` brought.
    pub outcome: Option<Outcome>,
}

/// Sealed outputs cannot be delivered any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputsLost {
    pub attempt: AttemptId,
    pub seq: Seq,
    pub why: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetStarted {
    pub builder: BuilderIndex,
    pub seq: Seq,
    pub nonce: CleanNonce,
}

/// The reset script or the probe failed; the builder stays dirty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetFailed {
    pub builder: BuilderIndex,
    pub seq: Seq,
    pub nonce: CleanNonce,
    pub stage: ResetStage,
    pub failure: ScriptFailure,
    /// The end of what the script wrote.
    pub stdout: Blob<4096>,
    pub stderr: Blob<4096>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetStage {
    Reset,
    Probe,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScriptFailure {
    Exit(ExitStatus),
    TimedOut {
        after_ms: u64,
    },
    /// It could not be started, or was interrupted by the agent's own end.
    NotRun {
        why: Reason,
    },
}

/// The builder was reset and probed in answer to this nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clean {
    pub builder: BuilderIndex,
    pub seq: Seq,
    pub nonce: CleanNonce,
    pub reset_ms: u64,
    pub probe_ms: u64,
}

/// Whether the builder can take work at all, apart from being clean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub builder: BuilderIndex,
    pub seq: Seq,
    pub fitness: Fitness,
    pub why: Text<512>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fitness {
    Fit,
    /// Too much waits in the spool.
    Backlog,
    DiskLow,
    ReadOnly,
    /// A process tree could not be proved empty: out of service until reboot.
    Unkillable,
    Throttled,
    /// The agent finishes what it has and leaves.
    Draining,
}

impl Fitness {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fit => "fit",
            Self::Backlog => "backlog",
            Self::DiskLow => "disk_low",
            Self::ReadOnly => "read_only",
            Self::Unkillable => "unkillable",
            Self::Throttled => "throttled",
            Self::Draining => "draining",
        }
    }
}
