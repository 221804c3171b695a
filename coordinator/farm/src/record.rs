//! What must survive the coordinator: the records of the store. This file is
//! the disk's island: serde is derived here and nowhere else in the farm.
//!
//! Records are whole values, written again when they change, keyed by id. The
//! job that is being worked on carries its live attempt; an attempt that is
//! over gets a row of its own.

mod bulk;
mod ledger;

use std::sync::Arc;

use farmbell_protocol::agent_to_coordinator::{Fact, Fitness, ResetScope};
use farmbell_protocol::bounded::{List, Name, Reason, Text};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{
    AgentId, AttemptId, BootId, BuilderId, CleanNonce, Epoch, JobId, KeyHash, Seq, SessionId,
    SpoolId, SubmissionId,
};
use farmbell_protocol::outcome::{ExitStatus, Outcome, Usage, Verdict};
use farmbell_protocol::spec::{JobSpec, Output, Rung};
use farmbell_protocol::time::{Time, Wall};
use serde::{Deserialize, Serialize};

pub(crate) use bulk::is;
pub use bulk::{BulkAct, BulkRecord, Ending, Filter, FormerBulk, FormerFilter, JobAct};
pub use ledger::{LedgerEntry, LedgerKind};

/// One durable fact. All changes of a batch are one transaction.
#[derive(Clone, Debug)]
pub enum Change {
    /// Of several in one transaction the last one counts.
    Meta(Meta),
    Submission(SubmissionRecord),
    Job(Box<JobRecord>),
    /// Written once, at submit.
    Spec {
        job: JobId,
        spec: Arc<JobSpec>,
    },
    /// An attempt that is over.
    Attempt(Box<AttemptRecord>),
    /// Written once, when all of them are durable; published only if the
    /// generation's verdict comes to rest on this attempt.
    Artifacts {
        attempt: AttemptId,
        outputs: Arc<[Output]>,
    },
    Builder(Box<BuilderRecord>),
    BuilderRemoved(BuilderId),
    Agent(Box<AgentRecord>),
    AgentRemoved(AgentId),
    Token(TokenRecord),
    /// This finished job waits for its dependencies.
    Waits(JobId),
    WaitOver(JobId),
    /// Of several with one key the last one counts.
    Package(Box<PackageRecord>),
    PackageForgotten(Box<PackageKey>),
    /// A bulk operation, as far as it is.
    Bulk(Box<BulkRecord>),
    BulkOver(u64),
    /// Of several with one name and architecture the last one counts.
    Duration(Box<DurationRecord>),
    /// The event stream that `farmbell events` and the audit show.
    Ledger(LedgerEntry),
    /// A submission with all it had: its jobs, their specs, attempts and
    /// artifacts.
    SubmissionRetired {
        submission: SubmissionId,
        jobs: Vec<JobId>,
    },
    /// Entries up to this number.
    LedgerRetired {
        up_to: u64,
    },
}

/// The farm's own numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub epoch: Epoch,
    /// The farm's clock when this was written.
    pub clock: Time,
    /// No id at or below these is ever given out again.
    pub job_floor: u64,
    pub submission_floor: u64,
    pub agent_floor: u32,
    pub builder_floor: u32,
    pub ledger_floor: u64,
    /// An agent has shown a higher epoch than the store's: nothing is
    /// assigned until an operator accepts.
    pub suspect: Option<Epoch>,
    /// The highest number of a job that was retired.
    pub retired: u64,
    /// The highest job number that any agent has shown: known work of a
    /// store that was restored from a backup.
    pub job_seen: u64,
    /// The highest epoch counter that a restore was accepted for.
    pub accepted: u64,
    /// The farm's clock at the start of this process.
    pub started: Time,
    /// Since when starts have followed each other too quickly for deadlines
    /// to be given grace again and again.
    pub grace_from: Time,
    /// Bulk operations under way as schema 2 kept them; a start moves them
    /// to records of their own.
    pub bulk: List<FormerBulk, 16>,
    pub brakes: List<BrakeRecord, 64>,
}

/// The least score that starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeRecord {
    /// None: every architecture.
    pub architecture: Option<Name>,
    pub least: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionRecord {
    pub id: SubmissionId,
    pub owner: Name,
    pub key: Option<Text<128>>,
    pub jobs: List<JobId, 256>,
    pub submitted: Wall,
    pub by: Text<128>,
}

/// A job, with its live attempt while there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    pub id: JobId,
    pub submission: SubmissionId,
    /// Shown; the whole spec is stored apart.
    pub name: Text<128>,
    pub version: Text<128>,
    pub needs: Needs,
    /// The distribution series it is built for; empty where none.
    pub suite: Name,
    /// All its inputs together.
    pub input_bytes: u64,
    pub owner: Name,
    pub private: bool,
    pub priority: i32,
    pub submitted: Time,
    pub submitted_wall: Wall,
    pub generation: u16,
    /// The newest attempt number of this generation, 0 before the first.
    pub attempt_number: u16,
    pub attempts_max: u8,
    /// Numbers that did not count as attempts: refused, withdrawn, or void
    /// before the builder had accepted them.
    pub refunded: u16,
    pub strikes: u16,
    /// Whether `priority` was set by hand and is not to be computed again.
    pub priority_frozen: bool,
    /// Waiting, but not to be started until it is resumed.
    pub suspended: bool,
    /// Builders that failed it lately and are passed over for a while.
    pub excluded: List<BuilderId, 32>,
    pub cancel: Option<CancelWish>,
    /// Attempts that fell silent and may come back, until a later one runs.
    pub lost: List<AttemptRecord, LOST_MAX>,
    pub state: JobState,
}

/// Silent attempts of one generation that are kept for adoption: more than a
/// generation may have attempts by default.
pub const LOST_MAX: usize = 8;

/// What placement asks of a builder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Needs {
    pub recipe: Name,
    pub architecture: Name,
    pub virtualized: bool,
    pub rung: Rung,
    pub tags: List<Name, 32>,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    Waiting { since: Wall },
    Live(Box<AttemptRecord>),
    Done(VerdictRecord),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    pub verdict: Verdict,
    /// The one attempt it rests on; none where the farm decided.
    pub attempt: Option<AttemptId>,
    pub at: Wall,
}

/// How long jobs of one name take on one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationRecord {
    pub name: Text<128>,
    pub architecture: Name,
    pub seconds: u32,
    /// Of the newest of them.
    pub input_bytes: u64,
}

/// A Debian package that was stored or told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRecord {
    pub key: PackageKey,
    pub version: Text<128>,
    /// When it came.
    pub at: Time,
}

/// Which package; the farm knows the newest of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageKey {
    pub name: Text<128>,
    pub architecture: Name,
    pub suite: Name,
    /// Of a private job: only this owner's jobs may know of it.
    pub owner: Option<Name>,
}

/// A durable wish; the attempt stands beside it until its agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelWish {
    pub by: Text<128>,
    pub why: Text<256>,
    pub wished: Wall,
    /// The verdict it leads to.
    pub superseded: bool,
    /// When the farm stops waiting for the agent.
    pub deadline: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    pub id: AttemptId,
    pub builder: BuilderId,
    pub builder_name: Name,
    pub agent: AgentId,
    pub spool: SpoolId,
    pub stage: Stage,
    /// Reports up to here are durable.
    pub acked: Seq,
    pub assigned: Wall,
    pub started: Option<Wall>,
    pub ended: Option<Wall>,
    pub outcome: Option<Outcome>,
    pub exit: Option<ExitStatus>,
    pub usage: Usage,
    pub sealed: Option<SealedRecord>,
    /// The log's stored length, once it is closed.
    pub log_closed: Option<u64>,
    pub collected: bool,
    /// When the farm stops waiting for what comes next: bytes of inputs, the
    /// seal, bytes of sealed outputs; moved on by progress. None while it runs.
    pub progress_deadline: Option<Time>,
    /// Set when the attempt is over.
    pub end: Option<AttemptEnd>,
}

/// How far a live attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    Assigned,
    Accepted,
    Running,
    Collecting,
    /// Sealed: the builder is free, bytes still travel.
    Finishing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRecord {
    pub manifest: Digest,
    pub manifest_bytes: u64,
    pub outputs: u32,
    pub output_bytes: u64,
    pub log_bytes: u64,
}

/// Why an attempt is not live any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptEnd {
    /// The generation's verdict rests on it.
    Verdict,
    /// Refused before it started; costs the job nothing.
    Refused {
        why: Reason,
    },
    /// The builder was to blame or gave it back: the job waits again.
    Returned {
        why: Reason,
    },
    Lost {
        why: Reason,
    },
    Withdrawn {
        why: Reason,
    },
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuilderRecord {
    pub id: BuilderId,
    pub agent: AgentId,
    pub name: Name,
    pub offer: BuilderOffer,
    pub cleanliness: Cleanliness,
    pub occupation: Occupation,
    pub mode: OperatorMode,
    pub mode_why: Text<256>,
    pub mode_by: Text<128>,
    pub mode_since: Wall,
    /// When a draining builder's attempt is taken from it; none: never.
    pub drain_deadline: Option<Time>,
    pub fitness: Fitness,
    pub fitness_why: Text<512>,
    pub strikes: u16,
    /// Reports outside attempts up to here are durable.
    pub acked: Seq,
    /// The newest challenge; only its answer proves the builder clean.
    pub nonce: Option<CleanNonce>,
    /// When it is reset, and who says that a reset is over.
    pub reset_rule: ResetRule,
    pub reset_proof: ResetProof,
    /// When a failed reset is tried again.
    pub reset_retry: Option<Time>,
    /// The last failed reset, with the script's output.
    pub trouble: Option<Text<8192>>,
}

/// How the operator wants a builder to be reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRule {
    pub when: ResetWhen,
    /// Who besides its agent has to say that a reset is over: the manager of
    /// its virtual machine, for example.
    pub reporter: Option<Text<128>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetWhen {
    /// As soon as an attempt is over.
    #[default]
    After,
    /// When a job waits that it could take.
    Before,
    /// When an operator says so.
    ByHand,
}

/// What is known of the reset that stands, or is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetProof {
    /// Somebody asked for one by hand.
    pub asked: bool,
    /// The agent has proved it clean and the reporter not yet, or the other
    /// way round.
    pub by_agent: bool,
    pub by_reporter: bool,
}

/// What a builder said of itself in its last Hello, within its envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuilderOffer {
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cleanliness {
    Dirty,
    /// Ordered, with the time by which it must be proved.
    Resetting {
        deadline: Time,
    },
    Probing {
        deadline: Time,
    },
    Clean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Occupation {
    Free,
    Held { attempt: AttemptId },
}

/// What the operator wants of a builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OperatorMode {
    Enabled,
    /// Reset and watched, but given work only when told.
    Manual,
    /// Finishes what it has and takes nothing new.
    Draining,
    /// Taken out by the farm itself.
    Quarantined,
    Disabled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    pub id: AgentId,
    pub name: Name,
    pub key: KeyHash,
    pub envelope: Envelope,
    pub standing: AgentStanding,
    pub standing_why: Text<256>,
    pub session: SessionId,
    pub boot: Option<BootId>,
    pub incarnation: u64,
    pub spool: Option<SpoolId>,
    pub software: Name,
    pub address: Text<64>,
    pub facts: List<Fact, 64>,
    pub joined: Wall,
    pub last_seen: Wall,
    /// Set while it is silent: when its attempts count as lost.
    pub lost_at: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentStanding {
    Active,
    /// Nothing new for it until an operator looks.
    Frozen,
    Revoked,
}

/// What a token or an operator granted. An empty list grants everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Builder names, a trailing `*` for any ending.
    pub names: List<Name, 32>,
    pub architectures: List<Name, 16>,
    pub tags: List<Name, 32>,
    /// `None`: both.
    pub virtualized: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: u64,
    pub secret_hash: [u8; 32],
    pub uses: u32,
    pub used: u32,
    pub expires: Time,
    pub expires_wall: Wall,
    pub envelope: Envelope,
    pub created_by: Text<128>,
    pub created: Wall,
    pub revoked: bool,
}

impl Stage {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Collecting => "collecting",
            Self::Finishing => "finishing",
        }
    }
}

/// How many submissions are remembered by their idempotency key, the newest: a
/// repeated submit comes within minutes, and a million of them take some 300 MB.
pub const KEYS_MAX: usize = 1 << 20;

/// What a store holds that the farm needs to go on, beside the unfinished
/// jobs: those may be a million and are read one by one.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub meta: Option<Meta>,
    /// The newest [`KEYS_MAX`] of those with a key, in order.
    pub submissions: Vec<SubmissionRecord>,
    /// Finished jobs that wait for their dependencies.
    pub dependents: Vec<JobRecord>,
    pub packages: Vec<PackageRecord>,
    /// Under way.
    pub bulk: Vec<BulkRecord>,
    pub durations: Vec<DurationRecord>,
    pub builders: Vec<BuilderRecord>,
    pub agents: Vec<AgentRecord>,
    pub tokens: Vec<TokenRecord>,
}
