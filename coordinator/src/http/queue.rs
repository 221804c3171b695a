//! The queue as people ask for it: the jobs that start next, each with the
//! reason why it has not started yet.

use axum::Json;
use axum::extract::State;
use farmbell_farm::effect::Reply;
use farmbell_farm::event::Command;
use farmbell_protocol::id::JobId;

use super::caller::Caller;
use super::problem::Result;
use super::wire::{Code, QueueView, QueuedView};
use super::{Api, builders, show};

pub(super) async fn queue(State(api): State<Api>, caller: Caller) -> Result<Json<QueueView>> {
    let overview = builders::ask(&api).await?;
    let mut jobs = Vec::with_capacity(overview.queue.len());
    for job in &overview.queue {
        if caller.sees_private() || !job.private {
            jobs.push(QueuedView {
                reason: reason(&api, job.id).await?,
                job: show::job(job),
            });
        }
    }
    Ok(Json(QueueView {
        waiting: overview.waiting,
        oldest_waiting_ms: overview.oldest_waiting_ms,
        dependents: overview.dependents,
        jobs,
    }))
}

/// Why a job waits, in one sentence; empty if it does not any more.
pub(super) async fn reason(api: &Api, job: JobId) -> Result<String> {
    match api.look(Command::Explain { job }).await {
        Ok(Reply::Explained {
            explanation: Some(explanation),
            ..
        }) => Ok(explanation.summary),
        Ok(_) => Ok(String::new()),
        // It ended in this very moment.
        Err(problem) if problem.code == Code::NotFound => Ok(String::new()),
        Err(problem) => Err(problem),
    }
}
