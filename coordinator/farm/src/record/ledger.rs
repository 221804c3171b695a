//! The records of the ledger: what happened, numbered, never changed. Owns the
//! words that the event stream shows.

use farmbell_protocol::bounded::Text;
use farmbell_protocol::id::{AgentId, AttemptId, BuilderId, JobId};
use farmbell_protocol::time::Wall;
use serde::{Deserialize, Serialize};

/// One line of the farm's history. Numbered without gaps, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    pub seq: u64,
    pub at: Wall,
    pub kind: LedgerKind,
    pub job: Option<JobId>,
    pub attempt: Option<AttemptId>,
    pub builder: Option<BuilderId>,
    pub agent: Option<AgentId>,
    /// Who did it; empty where the farm did.
    pub by: Text<128>,
    /// Why, with the numbers.
    pub why: Text<1024>,
}

macro_rules! ledger_kinds {
    ($($name:ident $text:literal)*) => {
        /// What happened, in the word that the event stream shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum LedgerKind { $($name,)* }
        impl LedgerKind {
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

// Append only: the position is the number on disk.
ledger_kinds! {
    Started "coordinator.started"
    JobSubmitted "job.submitted"
    JobAssigned "job.assigned"
    JobRunning "job.running"
    JobCollecting "job.collecting"
    JobFinishing "job.finishing"
    JobVerdict "job.verdict"
    JobReturned "job.returned"
    JobCancelWished "job.cancel_wished"
    JobRetried "job.retried"
    AttemptLost "attempt.lost"
    AttemptRefused "attempt.refused"
    AttemptWithdrawn "attempt.withdrawn"
    AttemptAdopted "attempt.adopted"
    StaleReport "attempt.stale_report"
    BuilderAdded "builder.added"
    BuilderRemoved "builder.removed"
    BuilderMode "builder.mode"
    BuilderResetting "builder.resetting"
    BuilderResetFailed "builder.reset_failed"
    BuilderClean "builder.clean"
    BuilderFitness "builder.fitness"
    AgentJoined "agent.joined"
    AgentLinked "agent.linked"
    AgentUnreachable "agent.unreachable"
    AgentFrozen "agent.frozen"
    AgentRevoked "agent.revoked"
    AgentApproved "agent.approved"
    AgentRemoved "agent.removed"
    TokenCreated "token.created"
    TokenRevoked "token.revoked"
    TokenRefused "token.refused"
    IsolationBreach "isolation.breach"
    RestoreSuspected "restore.suspected"
    RestoreAccepted "restore.accepted"
    EventParked "event.parked"
    JobSuspended "job.suspended"
    JobResumed "job.resumed"
    JobPriority "job.priority"
    BulkBegun "bulk.begun"
    BulkEnded "bulk.ended"
    QueueBrake "queue.brake"
    Blamed "blame.judged"
    JobWaits "job.waits"
    JobWoken "job.woken"
    PackageProvided "package.provided"
    Repaired "farm.repaired"
    HistoryRetired "history.retired"
    BuilderResetRule "builder.reset_rule"
}
