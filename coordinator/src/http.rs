//! The HTTP API, its pages and metrics. Owns the translation: requests become
//! commands of the farm or reads of the store, replies become JSON. Decides
//! nothing about jobs or builders, and holds no state of the farm.
//!
//! Invariant: whatever is answered was committed before (contract §3).
//!
//! | under `/api/v1` | |
//! |---|---|
//! | `POST submissions` | submit; `Idempotency-Key`; `?dry_run=true` |
//! | `PUT`, `HEAD`, `GET blobs/DIGEST` | inputs, by BLAKE3 |
//! | `GET jobs` | `?state&owner&arch&name&submission&limit&cursor` |
//! | `GET jobs/ID`, `…/explain`, `…/artifacts` | an id or a unique beginning of one |
//! | `GET jobs/ID/wait?timeout_ms` | answered when there is a verdict |
//! | `GET jobs/ID/log?attempt&offset&tail&follow` | `X-Log-Offset`, `X-Attempt` |
//! | `GET jobs/ID/log/cuts?attempt` | where bytes over the limit were dropped |
//! | `GET jobs/ID/next-attempt?after` | answered when there is one |
//! | `POST jobs/ID/cancel`, `…/retry`, `…/wake`, `…/act` | acts: see [`wire::JobActSpec`] |
//! | `POST bulk`, `brake` | the same to all jobs of a filter; the least score that starts |
//! | `POST packages` | an archive's hook: a package can be had, jobs that lacked it run again |
//! | `GET artifacts/ID/NAME` | |
//! | `GET overview`, `queue`, `builders`, `agents` | the farm at one moment |
//! | `GET builders/NAME` | one builder, and what its host lacks |
//! | `POST builders/NAME/ACT`, `agents/NAME/ACT` | the operator's acts |
//! | `GET`, `POST tokens`, `POST tokens/ID/revoke` | |
//! | `POST restore/accept` | after a restored backup |
//! | `GET events?after&tail&follow` | NDJSON, or server-sent events by `Accept` |
//!
//! Beside it `/` (the builders page; `/live` and `/assets/NAME` are its own),
//! `/metrics` and `/healthz`. Refusals are [`wire::Problem`]s: cause, fix, and a
//! code for programs.

mod acts;
mod agents;
mod artifacts;
mod blobs;
mod builders;
mod caller;
mod events;
mod extract;
mod health;
mod jobs;
mod limited;
mod listen;
mod logs;
mod lookup;
mod metrics;
mod pages;
mod problem;
mod queue;
mod restore;
mod show;
#[cfg(test)]
mod stories;
mod submissions;
mod tokens;
mod watch;
pub mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post, put};
use farmbell_farm::effect::Reply;
use farmbell_farm::event::{Actor, Command};
use farmbell_protocol::id::KeyHash;

use crate::blobs::Blobs;
use crate::bulk::Counters;
use crate::driver::FarmHandle;
use crate::logs::Logs;
use crate::store::{Queries, QueryError};
use problem::{Result, internal};
use wire::Problem;

pub use listen::{bind_unix, serve};

/// What the API works with.
#[derive(Clone)]
pub struct Api {
    pub farm: FarmHandle,
    pub queries: Arc<dyn Queries>,
    pub blobs: Blobs,
    pub logs: Logs,
    /// What a writer over TCP has to show.
    pub api_token: Arc<str>,
    pub join: Arc<JoinPoint>,
    /// Bytes that the bulk door moved.
    pub moved: Arc<Counters>,
}

/// What tokens tell new agents.
#[derive(Clone, Debug)]
pub struct JoinPoint {
    /// `HOST:PORT` of the control endpoint, as agents reach it.
    pub address: String,
    /// The key that agents pin.
    pub key: KeyHash,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("join", &self.join)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// Asks the farm; a refusal of its is a problem here.
    async fn ask(&self, by: Actor, command: Command) -> Result<Reply> {
        let reply = self.farm.request(by, command).await?;
        if let Reply::Refused(refused) = reply {
            return Err(refused.into());
        }
        Ok(reply)
    }

    /// Asks for something that only reads.
    async fn look(&self, command: Command) -> Result<Reply> {
        let reader = Actor {
            name: farmbell_protocol::bounded::Text::default(),
        };
        self.ask(reader, command).await
    }

    /// Reads the store, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Queries) -> std::result::Result<T, QueryError> + Send + 'static,
    ) -> Result<T> {
        let queries = Arc::clone(&self.queries);
        Ok(blocking(move || read(queries.as_ref())).await??)
    }
}

/// Does what may block on a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| internal(&e))
}

/// A reply of a kind that the command does not have: a bug of ours.
fn unexpected(reply: &Reply) -> Problem {
    debug_assert!(false, "the farm answered with another kind: {reply:?}");
    Problem::new(
        wire::Code::Internal,
        "the farm's answer is of another kind than the question",
        "This is a bug; please report it with the coordinator's journal.",
    )
}

/// All routes.
fn router(api: Api, viewers: pages::Viewers, observed: metrics::Observed) -> Router {
    let v1 = Router::new()
        .route("/submissions", post(submissions::submit))
        .route("/blobs/{digest}", put(blobs::put).get(blobs::get))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{job}", get(jobs::show))
        .route("/jobs/{job}/cancel", post(jobs::cancel))
        .route("/jobs/{job}/retry", post(jobs::retry))
        .route("/jobs/{job}/wake", post(jobs::wake))
        .route("/jobs/{job}/act", post(acts::one))
        .route("/jobs/{job}/explain", get(jobs::explain))
        .route("/jobs/{job}/wait", get(jobs::wait))
        .route("/jobs/{job}/next-attempt", get(jobs::next_attempt))
        .route("/jobs/{job}/log", get(logs::log))
        .route("/jobs/{job}/log/cuts", get(logs::cuts))
        .route("/jobs/{job}/artifacts", get(artifacts::list))
        .route("/artifacts/{job}/{*name}", get(artifacts::get))
        .route("/overview", get(builders::overview))
        .route("/bulk", post(acts::bulk))
        .route("/brake", post(acts::brake))
        .route("/packages", post(acts::provide))
        .route("/queue", get(queue::queue))
        .route("/restore/accept", post(restore::accept))
        .route("/builders", get(builders::list))
        .route("/builders/{name}", get(builders::show))
        .route("/builders/{name}/{act}", post(builders::act))
        .route("/agents", get(agents::list))
        .route("/agents/{name}/{act}", post(agents::act))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}/revoke", post(tokens::revoke))
        .route("/events", get(events::events));
    Router::new()
        .nest("/api/v1", v1)
        .route("/", get(pages::page))
        .route("/live", get(pages::live))
        .route("/assets/{name}", get(pages::asset))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(health::healthz))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(axum::middleware::from_fn(caller::same_site))
        .layer(axum::Extension(viewers))
        .layer(axum::Extension(observed))
        .layer(DefaultBodyLimit::max(extract::JSON_MAX))
        .with_state(api)
}

async fn no_such_route(uri: Uri) -> Problem {
    problem::not_found(
        format!("there is nothing at {}", uri.path()),
        "Check the path; the API is under /api/v1.",
    )
}

/// The router adds the header `Allow`.
async fn no_such_method(method: Method) -> (StatusCode, Problem) {
    let problem = problem::invalid(
        format!("{method} is nothing that this path takes"),
        "The header Allow names what it takes.",
    );
    (StatusCode::METHOD_NOT_ALLOWED, problem)
}
