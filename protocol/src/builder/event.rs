//! What happens to a builder, what it asks for, what must survive.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent_to_coordinator::{
    AgentFrame, AttemptPhase, Fitness, Refusal, ResetScope, ResetStage, ScriptFailure,
};
use crate::bounded::{Blob, List, Name, Reason, Text};
use crate::coordinator_to_agent::Standing;
use crate::digest::Digest;
use crate::id::{AttemptId, BootId, BuilderIndex, CleanNonce, Seq};
use crate::outcome::{ExitStatus, Outcome, Usage};
use crate::spec::{JobSpec, Rung};

/// What a builder is, from its configuration and its host's probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub name: Name,
    pub recipes: List<Name, 32>,
    pub architectures: List<Name, 16>,
    pub open_tags: List<Name, 32>,
    pub restricted_tags: List<Name, 32>,
    pub virtualized: bool,
    pub rung: Rung,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub reset_scope: ResetScope,
    pub spool_survives_reset: bool,
    /// Attempts whose outputs still travel; at this many, no offers are taken.
    pub backlog_max: u16,
    /// Between TERM and KILL where the job says nothing.
    pub grace: Duration,
}

/// Everything that can happen to a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was opened. The standings are those of this builder's attempts.
    Linked {
        index: BuilderIndex,
        acked: Seq,
        standings: Vec<(AttemptId, Standing)>,
    },
    Unlinked,

    // Orders, as they come off the wire.
    Offer {
        attempt: AttemptId,
        spec: Box<JobSpec>,
    },
    Abort {
        attempt: AttemptId,
        why: Reason,
    },
    Abandon {
        attempt: AttemptId,
        why: Reason,
    },
    Committed {
        attempt: AttemptId,
    },
    Acked {
        attempt: AttemptId,
        seq: Seq,
    },
    BuilderAcked {
        seq: Seq,
    },
    ResetOrdered {
        nonce: CleanNonce,
    },

    // The host's answers.
    /// The recipe's process runs.
    Started {
        attempt: AttemptId,
    },
    /// It could not be started: nothing of it ran.
    NotStarted {
        attempt: AttemptId,
        refusal: Refusal,
        why: Reason,
    },
    /// It ended and its process tree is proved empty.
    Ended {
        attempt: AttemptId,
        report: EndReport,
    },
    /// Its tree could not be proved empty: the builder is out of service.
    Unkillable {
        attempt: AttemptId,
        why: Reason,
    },
    Sealed {
        attempt: AttemptId,
        report: SealReport,
    },
    /// Sealed outputs are gone or unreadable.
    OutputsLost {
        attempt: AttemptId,
        why: Reason,
    },
    ResetEnded {
        nonce: CleanNonce,
        report: ResetReport,
    },
    /// The host's fitness changed (disk, read-only, heat).
    Fitness {
        fitness: Fitness,
        why: String,
    },
    /// A canary was looked for after a reset: whether outputs that have not been
    /// sent outlive the next. What is new is offered with the next Hello.
    SpoolSurvivesReset {
        proved: bool,
    },
    /// Finish what runs and take nothing new.
    Drain,
    /// A deadline of [`next_deadline`](super::Builder::next_deadline) passed.
    Wake,
}

/// How the recipe's run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReport {
    pub outcome: Outcome,
    pub exit: Option<ExitStatus>,
    pub usage: Usage,
}

impl EndReport {
    /// An end that nobody measured.
    #[must_use]
    pub fn unseen(outcome: Outcome) -> Self {
        Self {
            outcome,
            exit: None,
            usage: Usage::default(),
        }
    }

    /// Ended by an order before anything of it ran.
    #[must_use]
    pub fn aborted() -> Self {
        Self::unseen(Outcome::Aborted)
    }
}

/// Outputs out of the build's reach, fsynced and hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReport {
    pub manifest: Digest,
    pub manifest_bytes: u64,
    pub outputs: u32,
    pub output_bytes: u64,
    pub log_bytes: u64,
    /// Set where gathering itself found the job at fault (a declared output
    /// missing, a hostile file name): replaces the outcome of the end.
    pub outcome: Option<Outcome>,
}

/// What came of a reset and the probe after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetReport {
    Clean {
        reset: Duration,
        probe: Duration,
    },
    Failed {
        stage: ResetStage,
        failure: ScriptFailure,
        stdout: Blob<4096>,
        stderr: Blob<4096>,
    },
}

/// Everything a builder may ask of its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable before anything else of this call is done.
    Spool(Record),
    /// Send this frame if there is a session.
    Say(AgentFrame),
    /// Prepare and start the recipe. Answered `Started` or `NotStarted`.
    Start {
        attempt: AttemptId,
        spec: Box<JobSpec>,
    },
    /// End the process tree: TERM, after `grace` KILL. Answered `Ended` or
    /// `Unkillable`; where the recipe does not run yet, by `NotStarted`. A
    /// second one with a shorter grace escalates.
    Stop { attempt: AttemptId, grace: Duration },
    /// Gather, fsync and hash the outputs; nothing at all where nothing ran.
    /// Answered `Sealed`, or `OutputsLost` where it cannot be done.
    Seal { attempt: AttemptId },
    /// Send log and outputs until `Release`; resumed by the driver itself on
    /// each session while the attempt is [`AttemptPhase::Sealed`], the log also
    /// while it is running.
    Upload { attempt: AttemptId },
    /// Drop the attempt's directory, if there is one, and stop its transfers.
    Release { attempt: AttemptId },
    /// Run the reset script and the probe. Answered `ResetEnded`.
    Reset { nonce: CleanNonce },
    /// The reset was the reboot this host has just come back from: run the
    /// probe alone. Answered `ResetEnded`.
    Probe { nonce: CleanNonce },
}

/// What must survive the agent: replayed in order at its next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    Accepted {
        attempt: AttemptId,
        spec: Box<JobSpec>,
    },
    Started {
        attempt: AttemptId,
    },
    Stopping {
        attempt: AttemptId,
        abandoned: bool,
    },
    Ended {
        attempt: AttemptId,
        report: EndReport,
    },
    Sealed {
        attempt: AttemptId,
        report: SealReport,
    },
    OutputsLost {
        attempt: AttemptId,
        why: Reason,
    },
    /// Refused after its number was used in this session's books.
    Refused {
        attempt: AttemptId,
        refusal: Refusal,
        why: Reason,
    },
    /// Everything of it is durable at the coordinator, or it was abandoned.
    Released {
        attempt: AttemptId,
    },
    /// A report outside attempts: kept until acknowledged.
    BuilderReport {
        seq: Seq,
        report: BuilderReport,
    },
    /// Numbers up to here are used and need not be repeated.
    BuilderAcked {
        seq: Seq,
    },
    /// Set apart from a report: by a reboot, or when a spool is rewritten.
    Cleanliness(Cleanliness),
    /// All that a new run of the kernel means for this builder is recorded.
    /// Part of the spool, and the last record of a restart, so that a crash
    /// amid a restart cannot make a reboot be forgotten.
    Booted {
        boot: BootId,
    },
    /// A process tree could not be proved empty: ends with a reboot.
    OutOfService {
        why: Reason,
    },
}

/// What a builder reports outside its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuilderReport {
    ResetStarted {
        nonce: CleanNonce,
    },
    ResetFailed {
        nonce: CleanNonce,
        stage: ResetStage,
        failure: ScriptFailure,
        stdout: Blob<4096>,
        stderr: Blob<4096>,
    },
    Clean {
        nonce: CleanNonce,
        reset_ms: u64,
        probe_ms: u64,
    },
    Condition {
        fitness: Fitness,
        why: Text<512>,
    },
}

/// What a builder remembers about being clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cleanliness {
    Dirty,
    Resetting {
        nonce: CleanNonce,
    },
    /// The reset asked for by this nonce failed.
    Failed {
        nonce: CleanNonce,
    },
    /// Proved in answer to this nonce, and nothing has run since.
    Clean {
        nonce: CleanNonce,
    },
}

/// What the host still has at a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// This run of the kernel. Where the records know another one, whatever
    /// ran is gone.
    pub boot: BootId,
    pub survivors: Vec<Survivor>,
}

/// One attempt directory as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    pub attempt: AttemptId,
    pub phase: AttemptPhase,
    /// Its supervisor holds the lock: it runs, and its end will be told.
    pub running: bool,
    /// The exit record, where the run ended while the agent was away.
    pub end: Option<EndReport>,
}
