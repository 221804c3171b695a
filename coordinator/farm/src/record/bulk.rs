//! The records of acts on many jobs: which are meant, what is done to each, and
//! how far it is. Owns which finished jobs a filter means; the unfinished lie
//! in another form (bulk.rs knows them).

use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::id::{JobId, SubmissionId};
use farmbell_protocol::outcome::{FailureKind, Verdict};
use serde::{Deserialize, Serialize};

use super::{JobRecord, JobState};

/// Something done to many jobs, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRecord {
    /// The number of the ledger entry that tells of its beginning.
    pub id: u64,
    pub filter: Filter,
    pub act: BulkAct,
    pub by: Text<128>,
    pub why: Text<256>,
    /// Jobs up to here are done; those submitted after `last` are not meant.
    pub cursor: JobId,
    pub last: JobId,
    /// Of those that are done, how many were meant, and how many of them it
    /// changed.
    pub matched: u64,
    pub changed: u64,
}

/// Which jobs are meant: those that match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    pub owner: Option<Name>,
    pub submission: Option<SubmissionId>,
    pub architecture: Option<Name>,
    /// The whole name.
    pub name: Option<Text<128>>,
    /// The beginning of the name.
    pub begins: Option<Text<128>>,
    /// Only finished ones, that ended so.
    pub verdict: Option<Ending>,
    /// Only those that wait.
    pub waiting: bool,
}

/// How a job ended, as filters tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    Succeeded,
    /// However it failed.
    Failed,
    FailedAs(FailureKind),
    Cancelled,
    Superseded,
    Infrastructure,
}

/// What is done to each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkAct {
    /// To those that the farm works on or will work on.
    Each(JobAct),
    /// A new generation of finished ones, which the store tells.
    Retry,
}

/// What is done to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobAct {
    Cancel,
    /// Something newer makes it pointless: as cancel, with another verdict.
    Supersede,
    /// It does not start until it is resumed.
    Suspend,
    Resume,
    /// Its score, frozen from now on.
    SetPriority(i32),
    /// The farm's own: see whether a brake holds it now.
    Reconsider,
}

impl Filter {
    /// Whether a finished job is meant.
    #[must_use]
    pub fn means_finished(&self, job: &JobRecord) -> bool {
        let JobState::Done(done) = &job.state else {
            return false;
        };
        is(&self.owner, &job.owner)
            && is(&self.architecture, &job.needs.architecture)
            && is(&self.submission, &job.submission)
            && self.means_name(&job.name)
            && self.verdict.is_none_or(|ending| ending.is(&done.verdict))
            && !self.waiting
    }

    pub(crate) fn means_name(&self, name: &str) -> bool {
        let whole = self.name.as_ref();
        let begins = self.begins.as_ref();
        whole.is_none_or(|whole| whole.as_str() == name)
            && begins.is_none_or(|begins| name.starts_with(begins.as_str()))
    }
}

pub(crate) fn is<T: PartialEq>(wanted: &Option<T>, has: &T) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == has)
}

impl Ending {
    fn is(self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Succeeded => self == Self::Succeeded,
            Verdict::Failed { kind, .. } => self == Self::Failed || self == Self::FailedAs(*kind),
            Verdict::Cancelled => self == Self::Cancelled,
            Verdict::Superseded => self == Self::Superseded,
            Verdict::Infrastructure { .. } => self == Self::Infrastructure,
        }
    }
}

/// An operation as schema 2 kept it among the farm's own numbers: never
/// written any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerBulk {
    pub id: u64,
    pub filter: FormerFilter,
    pub act: JobAct,
    pub by: Text<128>,
    pub why: Text<256>,
    pub cursor: JobId,
    pub last: JobId,
    pub changed: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerFilter {
    pub owner: Option<Name>,
    pub submission: Option<SubmissionId>,
    pub architecture: Option<Name>,
    pub name: Option<Text<128>>,
    pub waiting: bool,
}

impl From<FormerBulk> for BulkRecord {
    fn from(former: FormerBulk) -> Self {
        Self {
            id: former.id,
            filter: Filter {
                owner: former.filter.owner,
                submission: former.filter.submission,
                architecture: former.filter.architecture,
                name: former.filter.name,
                begins: None,
                verdict: None,
                waiting: former.filter.waiting,
            },
            act: BulkAct::Each(former.act),
            by: former.by,
            why: former.why,
            cursor: former.cursor,
            last: former.last,
            // It did not count them; those that it changed it meant.
            matched: former.changed,
            changed: former.changed,
        }
    }
}
