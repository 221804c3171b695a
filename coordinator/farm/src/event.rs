//! Everything that can happen to the farm: a closed set.

use std::sync::Arc;

use farmbell_protocol::agent_to_coordinator::{
    AgentFrame, Hello, HelloAttempt, HelloBuilder, Join,
};
use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::id::{
    AgentId, AttemptId, BuilderId, CleanNonce, JobId, KeyHash, SubmissionId,
};
use farmbell_protocol::spec::{JobSpec, Output};

pub use crate::record::{Ending, Filter, JobAct, PackageKey};
use crate::record::{Envelope, JobRecord, OperatorMode, ResetRule};

/// One connection of the listener's, live in this process only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One request that waits for a reply, live in this process only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Who asked: stands in the ledger beside what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// For example `root`, `kim`, or `token:ci`.
    pub name: Text<128>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    // From the HTTP lane.
    Request {
        request: RequestId,
        by: Actor,
        command: Command,
    },

    // From the agents' lane.
    Join {
        conn: ConnId,
        key: KeyHash,
        address: Text<64>,
        join: Join,
    },
    /// A whole Hello, from its first frame to HelloEnd.
    Hello {
        conn: ConnId,
        key: KeyHash,
        address: Text<64>,
        hello: Box<Hello>,
        builders: Vec<HelloBuilder>,
        attempts: Vec<HelloAttempt>,
    },
    /// Any later frame of a welcomed connection.
    Report {
        conn: ConnId,
        frame: AgentFrame,
    },
    Closed {
        conn: ConnId,
    },
    /// A report of this agent's brought the process down and was set aside:
    /// nothing new for the agent until an operator looks.
    Parked {
        key: KeyHash,
        what: Text<256>,
    },

    // From the bulk layer, each after the bytes are durable.
    /// The attempt's log has all its bytes.
    LogClosed {
        attempt: AttemptId,
        bytes: u64,
    },
    /// Manifest and every blob it names are durable.
    Collected {
        attempt: AttemptId,
        outputs: Arc<[Output]>,
    },
    /// Bytes of this attempt arrived (told at most every few seconds).
    Progress {
        attempt: AttemptId,
    },

    /// What a look at the store found to be old
    /// ([`Effect::Look`](crate::effect::Effect::Look)).
    Aged(Aged),

    /// What a search of the store found
    /// ([`Effect::Search`](crate::effect::Effect::Search)).
    Found {
        operation: u64,
        found: Found,
    },

    /// A deadline passed.
    Wake,
}

/// History that has grown old: one step's worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aged {
    pub round: u64,
    /// Whole submissions, all of whose jobs finished before the time asked for.
    pub submissions: Vec<AgedSubmission>,
    /// So many ledger entries are older than the time asked for,
    pub entries: u64,
    /// the last of them with this number.
    pub entries_up_to: u64,
    /// Where the next look begins; none: that was all.
    pub next: Option<SubmissionId>,
}

/// Finished jobs that a filter means, rising by number: one step's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the search began.
    pub after: JobId,
    pub jobs: Vec<JobRecord>,
    /// Where the next one begins; none: that was all.
    pub next: Option<JobId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedSubmission {
    pub id: SubmissionId,
    /// Its jobs, each in the generation that was seen finished.
    pub jobs: Vec<(JobId, u16)>,
}

/// What a person or a program asks of the farm.
#[derive(Clone, Debug)]
pub enum Command {
    Submit(Submit),
    /// Which builders could take these jobs; nothing is accepted.
    DryRun {
        jobs: Vec<JobSpec>,
    },
    Cancel {
        job: JobId,
        why: Text<256>,
    },
    /// Something is done to one unfinished job.
    Job {
        job: JobId,
        act: JobAct,
        why: Text<256>,
    },
    /// The same to every unfinished job that the filter matches, in steps; it
    /// survives a restart.
    Bulk {
        filter: Filter,
        act: JobAct,
        why: Text<256>,
    },
    /// Jobs below this score do not start, everywhere or for one architecture;
    /// none lifts it, and everywhere all there are.
    Brake {
        architecture: Option<Name>,
        least: Option<i32>,
        why: Text<256>,
    },
    /// A new generation of a finished job. The core knows unfinished jobs
    /// only, so whoever asks brings the record from the store; a stale one is
    /// refused.
    Retry {
        job: Box<JobRecord>,
        why: Text<256>,
    },
    /// The same for every finished job that the filter means, in steps; it
    /// survives a restart. Whoever asks brings what the first search found
    /// ([`Search::first`](crate::effect::Search::first)).
    RetryAll {
        filter: Filter,
        found: Found,
        why: Text<256>,
    },
    /// A finished job that waits for its dependencies runs again at once.
    Wake {
        job: JobId,
        why: Text<256>,
    },
    /// A package can be had from now on: the hook of an archive.
    Provide {
        package: PackageKey,
        version: Text<128>,
    },
    Explain {
        job: JobId,
    },
    /// Everything the builders page and `farmbell builders` show.
    Overview,
    TokenCreate {
        uses: u32,
        ttl_ms: u64,
        envelope: Envelope,
        /// BLAKE3 of the secret's 16 bytes.
        secret_hash: [u8; 32],
    },
    TokenRevoke {
        token: u64,
        why: Text<256>,
    },
    Tokens,
    Agents,
    Builder {
        builder: BuilderId,
        act: BuilderAct,
        why: Text<256>,
    },
    Agent {
        agent: AgentId,
        act: AgentAct,
        why: Text<256>,
    },
    /// After a restored backup: go on although agents know more.
    AcceptRestore {
        why: Text<256>,
    },
}

/// The jobs of one submit: accepted together or not at all.
#[derive(Clone, Debug)]
pub struct Submit {
    /// The same key from the same owner is the same submission.
    pub key: Option<Text<128>>,
    pub jobs: List<JobSpec, 256>,
    /// Accept jobs that no known builder could ever take.
    pub allow_unmatched: bool,
}

/// An operator's act on a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuilderAct {
    Set(OperatorMode),
    /// Ends manual operation, and nothing else.
    Auto,
    /// Ends a drain or a quarantine, and nothing else.
    Resume,
    /// As `Set(Draining)`; after this time its attempt is taken from it.
    Drain {
        within_ms: u64,
    },
    /// Reset it although nothing asks for it.
    Reset,
    /// When it is reset, and who reports the end of it.
    ResetRule(ResetRule),
    /// Its reporter says that the reset with this challenge is over.
    ResetOver {
        nonce: CleanNonce,
        failed: Option<Text<256>>,
    },
    /// Forget it; with `abandon` even while it holds an attempt.
    Remove {
        abandon: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentAct {
    /// Its key is refused from now on and its connections end.
    Revoke,
    /// Take a frozen agent back in.
    Approve,
    /// Forget it and its builders; refused while one is held.
    Remove,
}

/// Names that commands refer to, for whoever parses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Job(JobId),
    Submission(SubmissionId),
    Builder(Name),
    Agent(Name),
}
