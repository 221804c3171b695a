//! The queue as people ask for it: the jobs that start next, each with the
//! reason why it has not started yet.

use axum::Json;
use axum::extract::State;
use farmbell_protocol::id::JobId;

use super::caller::Caller;
use super::problem::Result;
use super::wire::{QueueView, QueuedView};
use super::{Api, builders, jobs, show};

pub(super) async fn queue(State(api): State<Api>, caller: Caller) -> Result<Json<QueueView>> {
    let overview = builders::ask(&api).await?;
    let mut queued = Vec::with_capacity(overview.queue.len());
    for job in &overview.queue {
        if caller.sees_private() || !job.private {
            queued.push(QueuedView {
                reason: reason(&api, job.id).await?,
                job: show::job(job),
            });
        }
    }
    Ok(Json(QueueView {
        waiting: overview.waiting,
        held: overview.held,
        brakes: show::brakes(&overview),
        oldest_waiting_ms: overview.oldest_waiting_ms,
        dependents: overview.dependents,
        jobs: queued,
    }))
}

/// Why a job waits, in one sentence; empty if it does not any more.
pub(super) async fn reason(api: &Api, job: JobId) -> Result<String> {
    let why = jobs::why(api, job).await?;
    let explanation = why.and_then(|(_, explanation)| explanation);
    Ok(explanation.map_or_else(String::new, |explanation| explanation.summary))
}
