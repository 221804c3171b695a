//! Jobs, attempts and artifacts as people see them.

use serde::{Deserialize, Serialize};

use super::{SetBrake, Spec, Stamp};

/// A page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    pub jobs: Vec<JobView>,
    /// Ask with this `cursor` for the next page; none after the last.
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    pub id: String,
    pub submission: String,
    pub name: String,
    pub version: String,
    pub recipe: String,
    pub architecture: String,
    pub owner: String,
    pub private: bool,
    pub priority: i32,
    pub tags: Vec<String>,
    pub submitted: Stamp,
    /// `waiting`, `assigned`, `running`, `collecting`, `finishing` or `done`.
    pub state: String,
    pub generation: u16,
    /// Attempts of this generation so far.
    pub attempts: u16,
    pub attempts_max: u8,
    /// Where it is worked on; in lists also where it was last, once it is over.
    pub builder: Option<String>,
    pub started: Option<Stamp>,
    pub cancel: Option<CancelView>,
    /// Not to be started until it is resumed. Also true of a job that is worked
    /// on: that goes on, and only a next attempt would be held back.
    #[serde(default)]
    pub suspended: bool,
    pub verdict: Option<VerdictView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelView {
    pub by: String,
    pub why: String,
    pub wished: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictView {
    /// `succeeded`, `failed`, `cancelled`, `superseded` or `infrastructure`.
    pub verdict: String,
    /// Of a failure: `build`, `outputs`, `dependency_wait`, `chroot_problem`, `limit`.
    pub kind: Option<String>,
    pub why: String,
    /// The attempt it rests on, `GENERATION.NUMBER`.
    pub attempt: Option<String>,
    pub at: Stamp,
}

/// A job with everything known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDetail {
    pub job: JobView,
    pub spec: Spec,
    /// Of all generations, oldest first.
    pub attempts: Vec<AttemptView>,
    /// What its last generation lacked and it still waits for, in the recipe's
    /// words; it runs again when that is there.
    #[serde(default)]
    pub waits_for: Option<String>,
    pub artifacts: Vec<ArtifactView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// `GENERATION.NUMBER`.
    pub attempt: String,
    pub builder: String,
    /// `assigned`, `accepted`, `running`, `collecting` or `finishing`: how far it came.
    pub stage: String,
    pub assigned: Stamp,
    pub started: Option<Stamp>,
    pub ended: Option<Stamp>,
    pub outcome: Option<OutcomeView>,
    /// `code 1` or `signal 9`.
    pub exit: Option<String>,
    pub usage: UsageView,
    /// The stored log's length, once it is closed.
    pub log_bytes: Option<u64>,
    /// Set when it is over.
    pub end: Option<EndView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView {
    /// `succeeded`, `failed`, `builder_problem`, `given_back`, `aborted` or `supervisor_lost`.
    pub outcome: String,
    pub kind: Option<String>,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    /// `verdict`, `refused`, `returned`, `lost`, `withdrawn` or `cancelled`.
    pub end: String,
    pub why: String,
}

/// All zero where the host could not measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    pub wall_ms: u64,
    pub cpu_ms: u64,
    pub memory_peak_bytes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    pub job: String,
    /// `GENERATION.NUMBER`.
    pub attempt: String,
    pub name: String,
    /// BLAKE3, what `b3sum` prints.
    pub digest: String,
    pub length: u64,
    pub executable: bool,
}

/// Bytes of a log that were over its limit and are stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutView {
    /// The stored byte before which they stood.
    pub offset: u64,
    /// How many.
    pub dropped: u64,
}

/// Why a job waits, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    pub job: JobView,
    /// Present while it waits.
    pub plan: Option<PlanView>,
}

/// Which builders could take a job and why the others cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    pub architecture: String,
    /// One sentence with the numbers.
    pub summary: String,
    /// When it will start, by what its like and those before it take; null
    /// where that is unknown.
    #[serde(default)]
    pub starts_in_ms: Option<u64>,
    pub builders: Vec<BuilderReasons>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuilderReasons {
    pub builder: String,
    /// Whether it could take the job, now or when it is free.
    pub matches: bool,
    /// In words, from a closed set; for example `lacks tag gpu`.
    pub reasons: Vec<String>,
}

/// The jobs that start next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// All that wait, also those not listed.
    pub waiting: u64,
    /// Of these, what is suspended or below the brake; never listed.
    #[serde(default)]
    pub held: u64,
    #[serde(default)]
    pub brakes: Vec<SetBrake>,
    pub oldest_waiting_ms: u64,
    /// Finished jobs that run again once their dependencies are there.
    #[serde(default)]
    pub dependents: u64,
    /// In the order they would start; last those of owners at their limits.
    pub jobs: Vec<QueuedView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedView {
    pub job: JobView,
    /// Why it waits, in one sentence.
    pub reason: String,
}

/// The answer of `wait`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitView {
    /// False when the time was up first.
    pub done: bool,
    pub job: JobView,
}
