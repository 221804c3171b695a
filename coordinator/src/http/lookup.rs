//! From what a person typed to the one job it means. Owns prefixes, their
//! candidates, and that private jobs do not exist for mere readers.

use farmbell_farm::record::{AttemptRecord, JobRecord, JobState};
use farmbell_protocol::id::{AttemptId, IdPrefix, JobId, SubmissionId};

use super::Api;
use super::caller::Caller;
use super::problem::{Result, invalid, not_found};
use super::wire::{Code, Problem};

/// Candidates listed for an ambiguous prefix.
const CANDIDATES: u32 = 10;

/// The job that an id or a unique beginning of one means.
pub(super) async fn job(api: &Api, caller: &Caller, text: &str) -> Result<JobRecord> {
    let prefix = IdPrefix::parse(text)
        .map_err(|e| invalid(e.to_string(), "Job ids stand in `farmbell jobs`."))?;
    let found = match prefix.exact() {
        Some(number) => vec![JobId(number)],
        None => {
            api.read(move |queries| queries.jobs_by_prefix(prefix, CANDIDATES))
                .await?
        }
    };
    let records = api
        .read(move |queries| {
            found
                .iter()
                .map(|job| queries.job(*job))
                .collect::<std::result::Result<Vec<_>, _>>()
        })
        .await?;
    let mut records: Vec<_> = records
        .into_iter()
        .flatten()
        .filter(|job| caller.sees_private() || !job.private)
        .collect();
    match records.len() {
        1 => Ok(records.remove(0)),
        0 => Err(missing(api, text, prefix).await?),
        _ => Err(ambiguous(text, &records)),
    }
}

/// A job that was here once is told from one that never was.
async fn missing(api: &Api, text: &str, prefix: IdPrefix) -> Result<Problem> {
    let was_here = match prefix.exact().map(JobId) {
        Some(job) => {
            api.read(move |queries| {
                Ok(job > JobId(0) && job <= queries.retired()? && !queries.has_job(job)?)
            })
            .await?
        }
        None => false,
    };
    if was_here {
        return Ok(not_found(
            format!("job {text} was retired: it finished long ago and its records are removed"),
            "How long jobs are kept: policy.retire_jobs_after in coordinator.toml.",
        ));
    }
    Ok(not_found(
        format!("there is no job {text}"),
        "Job ids stand in `farmbell jobs`.",
    ))
}

fn ambiguous(text: &str, records: &[JobRecord]) -> Problem {
    let mut problem = Problem::new(
        Code::Ambiguous,
        format!("several jobs begin with {text}"),
        "Give more letters of one of these:",
    );
    problem.candidates = records
        .iter()
        .map(|job| format!("{} {} {}", job.id, job.name, job.needs.architecture))
        .collect();
    problem
}

/// The attempts of a job, oldest first: those that are over, those that fell
/// silent, and the live one.
pub(super) async fn attempts(api: &Api, job: &JobRecord) -> Result<Vec<AttemptRecord>> {
    let id = job.id;
    let mut attempts = api.read(move |queries| queries.attempts(id)).await?;
    let live = match &job.state {
        JobState::Live(live) => Some(live.as_ref()),
        JobState::Waiting { .. } | JobState::Done(_) => None,
    };
    for unfinished in job.lost.iter().chain(live) {
        attempts.retain(|over| over.id != unfinished.id);
        attempts.push(unfinished.clone());
    }
    attempts.sort_by_key(|attempt| (attempt.id.generation, attempt.id.number));
    Ok(attempts)
}

/// An attempt within its job, as it is shown: `GENERATION.NUMBER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ordinal {
    generation: u16,
    number: u16,
}

impl Ordinal {
    pub(super) const fn of(attempt: AttemptId) -> Self {
        Self {
            generation: attempt.generation,
            number: attempt.number,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once('.').and_then(|(generation, number)| {
            Some(Self {
                generation: generation.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| {
            invalid(
                format!("'{text}' is no attempt of a job"),
                "Give GENERATION.NUMBER, for example 1.2; see `farmbell job show`.",
            )
        })
    }
}

impl std::fmt::Display for Ordinal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.generation, self.number)
    }
}

/// The submission that a shown id means.
pub(super) fn submission(text: &str) -> Result<SubmissionId> {
    text.strip_prefix('s')
        .and_then(|letters| letters.parse::<JobId>().ok())
        .map(|job| SubmissionId(job.0))
        .ok_or_else(|| {
            invalid(
                format!("'{text}' is no submission"),
                "It is an s and 8 letters.",
            )
        })
}
