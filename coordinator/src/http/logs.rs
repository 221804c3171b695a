//! Logs of attempts: a range, the end, or as it is written. The offset of the
//! first byte goes in `X-Log-Offset`, the attempt in `X-Attempt`, so that a
//! reader can go on where it stopped.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use farmbell_farm::record::{AttemptRecord, JobRecord, JobState};
use farmbell_protocol::id::AttemptId;
use futures_util::stream::try_unfold;
use serde::Deserialize;

use super::caller::Caller;
use super::extract::{Addressed, Asked};
use super::lookup::{self, Ordinal};
use super::problem::{Result, internal, invalid, not_found};
use super::watch::Watch;
use super::wire::{CutView, Problem};
use super::{Api, blocking, show};
use crate::logs::{LogError, Logs};

/// Bytes read from a log at a time.
const PIECE: usize = 256 << 10;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogQuery {
    /// `GENERATION.NUMBER`; the newest otherwise.
    attempt: Option<String>,
    offset: Option<u64>,
    /// Begin this many bytes before the end.
    tail: Option<u64>,
    /// Go on until the log is closed.
    #[serde(deserialize_with = "flag")]
    follow: bool,
}

/// `follow=1` and `follow=true` alike.
fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(matches!(text.as_str(), "" | "1" | "true"))
}

pub(super) async fn log(
    State(api): State<Api>,
    caller: Caller,
    Addressed(id): Addressed<String>,
    Asked(query): Asked<LogQuery>,
) -> Result<Response> {
    let wanted = query.attempt.as_deref().map(Ordinal::parse).transpose()?;
    let attempt = attempt(&api, &caller, &id, wanted, query.follow).await?;
    let (logs, of) = (api.logs.clone(), attempt.id);
    let extent = blocking(move || logs.extent(of))
        .await?
        .map_err(|e| internal(&e))?;
    let from = match (query.offset, query.tail) {
        (Some(offset), _) => offset,
        (None, Some(tail)) => extent.length.saturating_sub(tail),
        (None, None) => 0,
    };
    if from > extent.length && !query.follow {
        return Err(invalid(
            format!(
                "the log has {} bytes, fewer than the offset {from}",
                extent.length
            ),
            "Begin earlier.",
        ));
    }
    // What is over and was never closed will not be closed any more.
    let grows = query.follow && !extent.closed && attempt.end.is_none();
    let body = if grows {
        followed(&api.logs, attempt.id, from)?
    } else {
        stored(api.logs.clone(), attempt.id, from, extent.length)
    };
    Ok((headers(&attempt, from), body).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CutsQuery {
    /// `GENERATION.NUMBER`; the newest otherwise.
    attempt: Option<String>,
}

pub(super) async fn cuts(
    State(api): State<Api>,
    caller: Caller,
    Addressed(id): Addressed<String>,
    Asked(query): Asked<CutsQuery>,
) -> Result<Json<Vec<CutView>>> {
    let wanted = query.attempt.as_deref().map(Ordinal::parse).transpose()?;
    let attempt = attempt(&api, &caller, &id, wanted, false).await?;
    let logs = api.logs.clone();
    let cuts = blocking(move || logs.cuts(attempt.id))
        .await?
        .map_err(|e| internal(&e))?;
    Ok(Json(cuts.iter().map(show::cut).collect()))
}

/// The attempt whose log is wanted. Who follows waits for the first one.
async fn attempt(
    api: &Api,
    caller: &Caller,
    id: &str,
    wanted: Option<Ordinal>,
    follow: bool,
) -> Result<AttemptRecord> {
    let mut watch = Watch::new(&api.farm);
    loop {
        let job = lookup::job(api, caller, id).await?;
        let attempts = lookup::attempts(api, &job).await?;
        let found = match wanted {
            Some(wanted) => attempts.into_iter().find(|a| Ordinal::of(a.id) == wanted),
            None => attempts.into_iter().next_back(),
        };
        match found {
            Some(attempt) => return Ok(attempt),
            None if follow && wanted.is_none() && !is_done(&job) => watch.changed(job.id).await?,
            None => return Err(no_attempt(&job, wanted)),
        }
    }
}

const fn is_done(job: &JobRecord) -> bool {
    match job.state {
        JobState::Done(_) => true,
        JobState::Waiting { .. } | JobState::Live(_) => false,
    }
}

fn no_attempt(job: &JobRecord, wanted: Option<Ordinal>) -> Problem {
    match wanted {
        Some(wanted) => not_found(
            format!("job {} has no attempt {wanted}", job.id),
            format!("See which there are: farmbell job show {}", job.id),
        ),
        None => not_found(
            format!("job {} has no log: no builder has taken it yet", job.id),
            format!("See why: farmbell job explain {}", job.id),
        ),
    }
}

fn followed(logs: &Logs, attempt: AttemptId, from: u64) -> Result<Body> {
    let follow = logs.follow(attempt, from).map_err(|e| internal(&e))?;
    Ok(Body::from_stream(try_unfold(
        follow,
        |mut follow| async move {
            let piece = follow.next().await?;
            Ok::<_, LogError>(piece.map(|piece| (piece, follow)))
        },
    )))
}

fn stored(logs: Logs, attempt: AttemptId, from: u64, end: u64) -> Body {
    Body::from_stream(try_unfold((logs, from), move |(logs, at)| async move {
        let length = usize::try_from(end.saturating_sub(at))
            .unwrap_or(PIECE)
            .min(PIECE);
        if length == 0 {
            return Ok(None);
        }
        let reader = logs.clone();
        let piece: Bytes = blocking(move || reader.read_range(attempt, at, length))
            .await
            .map_err(std::io::Error::other)?
            .map_err(std::io::Error::other)?;
        let next = at + piece.len() as u64;
        Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, (logs, next))))
    }))
}

fn headers(attempt: &AttemptRecord, from: u64) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([
        // A stranger's bytes: no browser may take them for a page.
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ]);
    headers.insert("x-log-offset", HeaderValue::from(from));
    if let Ok(ordinal) = HeaderValue::from_str(&Ordinal::of(attempt.id).to_string()) {
        headers.insert("x-attempt", ordinal);
    }
    headers
}
