//! Gathers one moment of the farm for the page: its overview, why the first
//! jobs wait, the ends of running logs, the last verdicts.

use farmbell_farm::effect::Overview;
use farmbell_farm::record::{JobRecord, JobState};
use farmbell_protocol::id::AttemptId;

use crate::http::problem::{Result, internal};
use crate::http::wire::Stamp;
use crate::http::{Api, blocking, builders, queue, show};
use crate::page::Scene;
use crate::store::{JobFilter, JobStanding};

/// Waiting jobs whose reasons are asked for: those a person reads first.
const REASONS: usize = 5;
/// Running jobs whose logs are shown; the others stand without one.
pub(super) const TAILS: usize = 24;
/// Bytes of each: a screenful.
const TAIL_BYTES: usize = 2048;
/// Jobs among whose newest the last verdicts are looked for, and how many.
const DONE_SCANNED: u32 = 60;
const DONE_SHOWN: usize = 15;

pub(super) async fn now(api: &Api) -> Result<Scene> {
    let overview = builders::ask(api).await?;
    of(api, &overview).await
}

pub(super) async fn of(api: &Api, overview: &Overview) -> Result<Scene> {
    let mut reasons = Vec::with_capacity(REASONS);
    for job in overview.queue.iter().take(REASONS) {
        reasons.push(queue::reason(api, job.id).await?);
    }
    Ok(Scene {
        now: Stamp::now(),
        overview: show::overview(overview, true),
        reasons,
        tails: tails(api, &overview.running).await?,
        recent: recent(api).await?,
    })
}

/// The live attempts of these jobs, in their order.
pub(super) fn attempts(jobs: &[JobRecord]) -> Vec<Option<AttemptId>> {
    jobs.iter()
        .map(|job| match &job.state {
            JobState::Live(attempt) => Some(attempt.id),
            JobState::Waiting { .. } | JobState::Done(_) => None,
        })
        .collect()
}

async fn tails(api: &Api, running: &[JobRecord]) -> Result<Vec<Vec<u8>>> {
    let logs = api.logs.clone();
    let attempts = attempts(running);
    blocking(move || {
        let tail = |(place, attempt): (usize, Option<AttemptId>)| match attempt {
            Some(attempt) if place < TAILS => logs
                .tail(attempt, TAIL_BYTES)
                .map(|bytes| bytes.to_vec())
                .map_err(|e| internal(&e)),
            Some(_) | None => Ok(Vec::new()),
        };
        attempts.into_iter().enumerate().map(tail).collect()
    })
    .await?
}

async fn recent(api: &Api) -> Result<Vec<crate::http::wire::JobView>> {
    let filter = JobFilter {
        standing: Some(JobStanding::Done),
        ..JobFilter::default()
    };
    let jobs = api
        .read(move |queries| queries.jobs(&filter, DONE_SCANNED))
        .await?;
    let mut recent: Vec<_> = jobs.iter().map(show::job).collect();
    recent.sort_by_key(|job| std::cmp::Reverse(job.verdict.as_ref().map(|verdict| verdict.at)));
    recent.truncate(DONE_SHOWN);
    Ok(recent)
}
