//! Everything the farm may ask for. A [`Change`] has to be durable before any
//! other effect of its batch is performed.

use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::bounded::{Name, Reason};
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, WelcomeAttempt, WelcomeBuilder};
use farmbell_protocol::id::{
    AgentId, AttemptId, BuilderId, BuilderIndex, Epoch, JobId, SessionId, SubmissionId,
};
use farmbell_protocol::time::Wall;
use farmbell_protocol::version::CloseCode;

use crate::event::{ConnId, RequestId};
use crate::record::{
    AgentRecord, BrakeRecord, BuilderRecord, Change, Filter, JobRecord, TokenRecord,
};

/// What has to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    Change(Change),
    Reply {
        request: RequestId,
        reply: Box<Reply>,
    },
    Send {
        conn: ConnId,
        frame: CoordinatorFrame,
    },
    /// Send an offer; the spec is in the store and the driver's cache.
    Offer {
        conn: ConnId,
        builder: BuilderIndex,
        attempt: AttemptId,
    },
    /// Complete the Welcome with address and ticket, send it, open the bulk door.
    Welcome {
        conn: ConnId,
        agent: AgentId,
        session: SessionId,
        epoch: Epoch,
        builders: Vec<WelcomeBuilder>,
        attempts: Vec<WelcomeAttempt>,
    },
    Close {
        conn: ConnId,
        code: CloseCode,
        why: Reason,
    },
    /// From now on this agent's bulk connection may deliver for this attempt.
    Admit {
        agent: AgentId,
        attempt: AttemptId,
    },
    /// Bytes of this attempt are not taken any more.
    Dismiss {
        attempt: AttemptId,
    },
    /// A finished generation's manifest is expected with this digest.
    Expect {
        attempt: AttemptId,
        sealed: crate::record::SealedRecord,
    },
    /// Look in the store for history that has grown old, and tell
    /// ([`Event::Aged`](crate::event::Event::Aged)).
    Look(Look),
    /// Search the store for finished jobs, and tell
    /// ([`Event::Found`](crate::event::Event::Found)). What is not answered is
    /// asked again.
    Search {
        operation: u64,
        search: Search,
    },
    /// Remove the files that no record speaks of any more.
    Prune,
}

/// Which history counts as old, and how much of it one step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub round: u64,
    /// Jobs that finished before this are; none: no job is.
    pub jobs_before: Option<Wall>,
    /// Only submissions numbered above this one.
    pub after: SubmissionId,
    /// Ledger entries before this are; none: none is.
    pub entries_before: Option<Wall>,
    /// Jobs to look at, and entries; a submission is looked at as a whole.
    pub most: u32,
}

/// Which finished jobs a bulk operation means, and how many of them one step
/// takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    pub filter: Filter,
    /// Only jobs numbered above this one, up to `last`.
    pub after: JobId,
    pub last: JobId,
    /// Jobs found at most.
    pub most: u32,
}

/// The answer to a command, given after the commit of its batch.
#[derive(Clone, Debug)]
pub enum Reply {
    Submitted {
        submission: SubmissionId,
        jobs: Vec<JobId>,
        existed: bool,
    },
    Plan(Vec<Explanation>),
    Job(Box<JobRecord>),
    Explained {
        job: Box<JobRecord>,
        explanation: Option<Explanation>,
    },
    Overview(Box<Overview>),
    Tokens(Vec<TokenRecord>),
    Token(TokenRecord),
    Agents(Vec<(AgentRecord, bool)>),
    Builder(Box<BuilderRecord>),
    /// A bulk operation: how many jobs were meant so far, and changed. What is
    /// left goes on; the ledger tells its end.
    Bulk {
        operation: u64,
        matched: u64,
        changed: u64,
        finished: bool,
    },
    /// A brake was set or lifted.
    Braked {
        /// The least score that starts there now; none: everything starts.
        /// More than was asked for where another brake is higher.
        effective: Option<i32>,
        /// Jobs held or let go so far.
        changed: u64,
    },
    Done,
    Refused(Refused),
}

/// A command that will not be carried out: the cause, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    pub code: RefusedCode,
    pub cause: String,
    pub fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedCode {
    NotFound,
    /// It contradicts the present state.
    Conflict,
    Invalid,
    /// A limit of the farm is reached.
    Limit,
    /// No known builder could ever do it.
    Unmatched,
    /// An operator has to accept a restored store first.
    Suspect,
}

/// Why a job waits, builder by builder and in sum. Computed by the function
/// that dispatches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub architecture: Name,
    /// One sentence with the numbers.
    pub summary: String,
    /// What holds the job back whatever the builders do.
    pub held: Option<Hold>,
    /// When it will start, by what its like and those before it take;
    /// `None` where that is unknown.
    pub starts_in: Option<Duration>,
    pub builders: Vec<(BuilderId, Name, Vec<Why>)>,
}

/// Why a waiting job would not start even if a builder were free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Its last generation ended for want of these.
    Dependencies {
        missing: Reason,
    },
    Suspended,
    /// Its score is below the brake.
    Brake {
        priority: i32,
        least: i32,
    },
    /// Its owner has as many attempts as it may.
    OwnerLimit {
        running: u64,
        most: u64,
    },
}

/// One reason why a builder does not take a job now: a closed set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It could take it at once.
    Free,
    WrongArchitecture,
    WrongVirtualization,
    NoRecipe,
    LacksTag(Name),
    /// The builder takes only jobs that ask for this tag.
    RestrictedTag(Name),
    RungTooLow,
    TooLittleMemory,
    TooLittleDisk,
    /// It failed or refused this job lately.
    Excluded,
    /// It refused work lately, or failed job after job too fast.
    Resting,
    Offline,
    Unreachable,
    AgentFrozen,
    /// Its agent's key is worth nothing any more.
    AgentRevoked,
    Busy(AttemptId),
    Dirty,
    /// Dirty until an operator has it reset.
    AwaitsHand,
    Resetting,
    /// Its reset failed and is tried again later.
    ResetFailing,
    /// Its reset would destroy outputs that still travel.
    AwaitsUpload,
    Manual,
    Draining,
    Disabled,
    Quarantined,
    /// Its host is not well, or says so.
    Unfit(Fitness),
    FarmSuspect,
}

/// The farm at one moment after a commit.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub epoch: Epoch,
    pub suspect: bool,
    pub builders: Vec<BuilderView>,
    /// Waiting jobs in the order they would start, the first of them: behind
    /// the others those of owners at their limits, without what is held back.
    pub queue: Vec<JobRecord>,
    /// All that wait.
    pub waiting: u64,
    /// Of these, what is suspended or below the brake.
    pub held: u64,
    pub brakes: Vec<BrakeRecord>,
    /// Finished jobs that run again once their dependencies are there.
    pub dependents: u64,
    pub running: Vec<JobRecord>,
    pub oldest_waiting_ms: u64,
}

#[derive(Clone, Debug)]
pub struct BuilderView {
    pub record: BuilderRecord,
    pub agent: Name,
    pub link: Link,
    pub link_since_ms: u64,
    /// When what it holds is taken from it, while it drains.
    pub drain_ends: Option<Wall>,
}

/// Whether a builder's agent can be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    Online,
    /// Silent for a while: no new work, nothing lost yet.
    Unreachable,
    Offline,
}
