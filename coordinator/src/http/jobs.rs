//! Looking at jobs, waiting for them, and the acts on them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use farmbell_farm::effect::{Explanation, Hold, Reply};
use farmbell_farm::event::Command;
use farmbell_farm::record::{JobRecord, JobState};
use farmbell_protocol::bounded::Text;
use farmbell_protocol::id::JobId;
use farmbell_protocol::outcome::{FailureKind, Verdict};
use serde::Deserialize;

use super::caller::{Caller, Operator};
use super::extract::{Addressed, Asked, Said, named};
use super::lookup::{self, Ordinal};
use super::problem::{Result, invalid, not_found};
use super::watch::Watch;
use super::wire::{Act, Code, ExplainView, JobDetail, JobList, JobView, Spec, WaitView};
use super::{Api, artifacts, show, unexpected};
use crate::store::{JobFilter, JobStanding, Queries, QueryError};

/// Jobs of one page at most.
const PAGE_MAX: u32 = 500;
const PAGE_USUAL: u32 = 50;
/// Jobs that one request looks through at most; the cursor goes on behind.
const SCAN_MAX: usize = 10_000;
/// The longest wait of one request: whoever waits longer asks again.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    state: Option<String>,
    owner: Option<String>,
    arch: Option<String>,
    /// The beginning of the name.
    name: Option<String>,
    submission: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<JobList>> {
    let limit = query.limit.unwrap_or(PAGE_USUAL).clamp(1, PAGE_MAX) as usize;
    let filter = filter(&query)?;
    let private = caller.sees_private();
    let list = api
        .read(move |queries| {
            let mut filter = filter;
            let mut found = Vec::new();
            let mut scanned = 0;
            loop {
                let page = queries.jobs(&filter, PAGE_MAX)?;
                let last_page = page.len() < PAGE_MAX as usize;
                scanned += page.len();
                for record in page {
                    filter.before = Some(record.id);
                    if (private || !record.private) && query.wants(&record) {
                        let builder = builder_of(queries, &record)?;
                        let job = show::job(&record);
                        found.push(JobView { builder, ..job });
                    }
                    if found.len() == limit {
                        return Ok(JobList::up_to(found, filter.before));
                    }
                }
                if last_page {
                    return Ok(JobList::up_to(found, None));
                }
                if scanned >= SCAN_MAX {
                    return Ok(JobList::up_to(found, filter.before));
                }
            }
        })
        .await?;
    Ok(Json(list))
}

/// Where it runs, or ran last in this generation.
fn builder_of(
    queries: &dyn Queries,
    job: &JobRecord,
) -> std::result::Result<Option<String>, QueryError> {
    match &job.state {
        JobState::Waiting { .. } => Ok(None),
        JobState::Live(attempt) => Ok(Some(attempt.builder_name.to_string())),
        JobState::Done(_) => {
            let attempts = queries.attempts(job.id)?;
            let last = attempts.last();
            let last = last.filter(|attempt| attempt.id.generation == job.generation);
            Ok(last.map(|attempt| attempt.builder_name.to_string()))
        }
    }
}

impl JobList {
    fn up_to(jobs: Vec<JobView>, last: Option<JobId>) -> Self {
        Self {
            jobs,
            next: last.map(|job| job.to_string()),
        }
    }
}

fn filter(query: &ListQuery) -> Result<JobFilter> {
    let standing = match query.state.as_deref() {
        None => None,
        Some("waiting" | "suspended") => Some(JobStanding::Waiting),
        Some("live" | "assigned" | "running" | "collecting" | "finishing" | "cancelling") => {
            Some(JobStanding::Live)
        }
        Some(
            "done" | "succeeded" | "failed" | "cancelled" | "superseded" | "infrastructure"
            | "dependency_wait" | "chroot_problem",
        ) => Some(JobStanding::Done),
        Some(other) => {
            return Err(invalid(
                format!("'{other}' is no state of a job"),
                "It is waiting, suspended, assigned, running, collecting, finishing, \
                 cancelling, done, or a verdict: \
                 succeeded, failed, cancelled, superseded, infrastructure; or of the \
                 failed: dependency_wait, chroot_problem.",
            ));
        }
    };
    named("arch", query.arch.as_deref())?;
    named("name", query.name.as_deref())?;
    let owner = named("owner", query.owner.as_deref())?
        .map(Text::new)
        .transpose()
        .map_err(|_| not_found("no owner has so long a name", "Check the name."))?;
    let submission = query
        .submission
        .as_deref()
        .map(lookup::submission)
        .transpose()?;
    let before = query
        .cursor
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|_| {
            invalid(
                "the cursor is not one of ours",
                "Use the 'next' of an answer.",
            )
        })?;
    Ok(JobFilter {
        standing,
        owner,
        submission,
        before,
    })
}

impl ListQuery {
    /// What the store's filter does not tell apart.
    fn wants(&self, job: &JobRecord) -> bool {
        let arch = self.arch.as_deref();
        let name = self.name.as_deref();
        arch.is_none_or(|arch| arch == job.needs.architecture.as_str())
            && name.is_none_or(|name| job.name.starts_with(name))
            && self.state.as_deref().is_none_or(|state| {
                let view = show::job(job);
                let verdict = view
                    .verdict
                    .as_ref()
                    .map(|verdict| verdict.verdict.as_str());
                let kind = failure(job).map(FailureKind::as_str);
                state == view.state
                    || Some(state) == verdict
                    || Some(state) == kind
                    || state == "live"
                    // Of those that wait, and of those that are live.
                    || (state == "suspended" && job.suspended)
                    || (state == "cancelling" && job.cancel.is_some())
            })
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Addressed(id): Addressed<String>,
) -> Result<Json<JobDetail>> {
    let job = lookup::job(&api, &caller, &id).await?;
    let attempts = lookup::attempts(&api, &job).await?;
    let artifacts = artifacts::of_job(&api, &job, &attempts).await?;
    let id = job.id;
    let spec = api.read(move |queries| queries.spec(id)).await?;
    let spec = spec.ok_or_else(|| {
        not_found(
            format!("job {id} has no spec in the store"),
            "Run `farmbell-coordinator check`.",
        )
    })?;
    let waits_for = match wait_of(&api, &job).await?.and_then(|wait| wait.held) {
        Some(Hold::Dependencies { missing }) => Some(missing.to_string()),
        Some(Hold::Suspended | Hold::Brake { .. } | Hold::OwnerLimit { .. }) | None => None,
    };
    Ok(Json(JobDetail {
        job: show::job(&job),
        spec: Spec::from(spec.as_ref()),
        attempts: attempts.iter().map(show::attempt).collect(),
        waits_for,
        artifacts,
    }))
}

pub(super) async fn cancel(
    State(api): State<Api>,
    Operator(by): Operator,
    Addressed(id): Addressed<String>,
    Said(act): Said<Option<Act>>,
) -> Result<Json<JobView>> {
    let job = lookup::job(&api, &Caller::Operator(by.clone()), &id)
        .await?
        .id;
    let why = Text::cut(act.unwrap_or_default().reason);
    let reply = api.ask(by, Command::Cancel { job, why }).await?;
    after(&api, job, reply).await
}

pub(super) async fn retry(
    State(api): State<Api>,
    Operator(by): Operator,
    Addressed(id): Addressed<String>,
    Said(act): Said<Option<Act>>,
) -> Result<Json<JobView>> {
    let job = lookup::job(&api, &Caller::Operator(by.clone()), &id).await?;
    let id = job.id;
    let job = Box::new(job);
    let why = Text::cut(act.unwrap_or_default().reason);
    let reply = api.ask(by, Command::Retry { job, why }).await?;
    after(&api, id, reply).await
}

/// A job that waits for its dependencies runs again.
pub(super) async fn wake(
    State(api): State<Api>,
    Operator(by): Operator,
    Addressed(id): Addressed<String>,
    Said(act): Said<Option<Act>>,
) -> Result<Json<JobView>> {
    let caller = Caller::Operator(by.clone());
    let job = lookup::job(&api, &caller, &id).await?.id;
    let why = Text::cut(act.unwrap_or_default().reason);
    let reply = api.ask(by, Command::Wake { job, why }).await?;
    after(&api, job, reply).await
}

/// The job as an act left it.
pub(super) async fn after(api: &Api, job: JobId, reply: Reply) -> Result<Json<JobView>> {
    if let Reply::Job(job) = &reply {
        return Ok(Json(show::job(job)));
    }
    Ok(Json(show::job(&again(api, job).await?)))
}

pub(super) async fn explain(
    State(api): State<Api>,
    caller: Caller,
    Addressed(id): Addressed<String>,
) -> Result<Json<ExplainView>> {
    let job = lookup::job(&api, &caller, &id).await?;
    Ok(Json(explained(&api, job).await?))
}

/// Why a job waits that the store had as this, or what became of it since.
pub(super) async fn explained(api: &Api, job: JobRecord) -> Result<ExplainView> {
    let job = match job.state {
        // What is done may be forgotten by the farm, but not by the store.
        JobState::Done(_) => job,
        JobState::Waiting { .. } | JobState::Live(_) => match why(api, job.id).await? {
            Some((job, explanation)) => {
                return Ok(ExplainView {
                    job: show::job(&job),
                    plan: explanation.as_ref().map(show::plan),
                });
            }
            None => again(api, job.id).await?,
        },
    };
    Ok(ExplainView {
        plan: wait_of(api, &job).await?.as_ref().map(show::plan),
        job: show::job(&job),
    })
}

/// A job as it is now and why it waits, if it does; none once it has its
/// verdict and nothing runs it again.
pub(super) async fn why(
    api: &Api,
    job: JobId,
) -> Result<Option<(Box<JobRecord>, Option<Explanation>)>> {
    match api.look(Command::Explain { job }).await {
        Ok(Reply::Explained { job, explanation }) => Ok(Some((job, explanation))),
        Ok(reply) => Err(unexpected(&reply)),
        Err(problem) if matches!(problem.code, Code::NotFound | Code::Conflict) => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Why a job with a verdict may still run again, if it may.
async fn wait_of(api: &Api, job: &JobRecord) -> Result<Option<Explanation>> {
    if failure(job) != Some(FailureKind::DependencyWait) {
        return Ok(None);
    }
    let why = why(api, job.id).await?;
    Ok(why.and_then(|(_, explanation)| explanation))
}

/// How a job failed, if it did.
const fn failure(job: &JobRecord) -> Option<FailureKind> {
    match &job.state {
        JobState::Done(done) => match done.verdict {
            Verdict::Failed { kind, .. } => Some(kind),
            Verdict::Succeeded
            | Verdict::Cancelled
            | Verdict::Superseded
            | Verdict::Infrastructure { .. } => None,
        },
        JobState::Waiting { .. } | JobState::Live(_) => None,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WaitQuery {
    timeout_ms: Option<u64>,
}

/// Answers when the job has a verdict, or when the time is up.
pub(super) async fn wait(
    State(api): State<Api>,
    caller: Caller,
    Addressed(id): Addressed<String>,
    Asked(query): Asked<WaitQuery>,
) -> Result<Json<WaitView>> {
    let mut watch = Watch::new(&api.farm);
    let mut job = lookup::job(&api, &caller, &id).await?;
    let patience = query
        .timeout_ms
        .map_or(WAIT_MAX, Duration::from_millis)
        .min(WAIT_MAX);
    let until = tokio::time::Instant::now() + patience;
    loop {
        if let JobState::Done(_) = job.state {
            return Ok(Json(WaitView {
                done: true,
                job: show::job(&job),
            }));
        }
        match tokio::time::timeout_at(until, watch.changed(job.id)).await {
            Ok(changed) => changed?,
            Err(_) => {
                return Ok(Json(WaitView {
                    done: false,
                    job: show::job(&job),
                }));
            }
        }
        job = again(&api, job.id).await?;
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NextAttemptQuery {
    /// `GENERATION.NUMBER`.
    after: Option<String>,
}

/// The first attempt after the one named, as soon as there is one; `null` when
/// the job has its verdict and no further attempt.
pub(super) async fn next_attempt(
    State(api): State<Api>,
    caller: Caller,
    Addressed(id): Addressed<String>,
    Asked(query): Asked<NextAttemptQuery>,
) -> Result<Json<Option<String>>> {
    let after = query.after.as_deref().map(Ordinal::parse).transpose()?;
    let mut watch = Watch::new(&api.farm);
    let mut job = lookup::job(&api, &caller, &id).await?;
    loop {
        let attempts = lookup::attempts(&api, &job).await?;
        let next = attempts
            .iter()
            .map(|attempt| Ordinal::of(attempt.id))
            .find(|ordinal| after.is_none_or(|after| *ordinal > after));
        if let Some(next) = next {
            return Ok(Json(Some(next.to_string())));
        }
        if let JobState::Done(_) = job.state {
            return Ok(Json(None));
        }
        watch.changed(job.id).await?;
        job = again(&api, job.id).await?;
    }
}

async fn again(api: &Api, job: JobId) -> Result<JobRecord> {
    let record = api.read(move |queries| queries.job(job)).await?;
    record.ok_or_else(|| not_found(format!("job {job} was retired"), "Its history is over."))
}
