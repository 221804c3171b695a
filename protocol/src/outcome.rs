//! How things end: an attempt as the agent saw it ([`Outcome`]), a generation
//! as the farm decided it ([`Verdict`]). Owns the words; the farm owns the
//! decision.

use serde::{Deserialize, Serialize};

use crate::bounded::Reason;

/// Why a job failed by its own fault. A recipe reports it by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// The command or the package's own build failed.
    Build,
    /// A declared output was not there, or outputs broke a rule of names.
    Outputs,
    /// Build dependencies that no archive offers now; the text names them.
    DependencyWait,
    /// The chroot or base image could not be made ready.
    ChrootProblem,
    /// A limit of the job was passed: time, silence, memory, disk, log.
    Limit,
}

/// What came of one attempt, as its agent reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Succeeded,
    /// The job's own fault.
    Failed {
        kind: FailureKind,
        why: Reason,
    },
    /// The builder's fault: not a result of the job.
    BuilderProblem {
        why: Reason,
    },
    /// The recipe gave the job back without blaming anyone.
    GivenBack {
        why: Reason,
    },
    /// Ended because the coordinator asked.
    Aborted,
    /// The supervisor died with the build; nobody saw how it ended.
    SupervisorLost {
        why: Reason,
    },
}

/// How the recipe's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(u8),
    Signal(u8),
}

/// What an attempt used. All zero where the host could not measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub wall_ms: u64,
    pub cpu_ms: u64,
    pub memory_peak_bytes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// The end of a generation. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Succeeded,
    Failed {
        kind: FailureKind,
        why: Reason,
    },
    Cancelled,
    /// Something newer made this job pointless.
    Superseded,
    /// The farm could not give the job a fair run.
    Infrastructure {
        why: Reason,
    },
}

impl FailureKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Outputs => "outputs",
            Self::DependencyWait => "dependency_wait",
            Self::ChrootProblem => "chroot_problem",
            Self::Limit => "limit",
        }
    }
}

impl Verdict {
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Infrastructure { .. } => "infrastructure",
        }
    }
}
