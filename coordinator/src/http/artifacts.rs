//! Artifacts: what jobs built, by job and name. Owns which attempt's outputs
//! are a job's: those its verdict rests on, else of its last finished generation.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use farmbell_farm::record::{AttemptEnd, AttemptRecord, JobRecord, JobState};
use farmbell_protocol::digest::Digest;

use super::blobs;
use super::caller::Caller;
use super::extract::Addressed;
use super::problem::{Result, internal, not_found};
use super::wire::ArtifactView;
use super::{Api, lookup, show};

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Addressed(id): Addressed<String>,
) -> Result<Json<Vec<ArtifactView>>> {
    let job = lookup::job(&api, &caller, &id).await?;
    let attempts = lookup::attempts(&api, &job).await?;
    Ok(Json(of_job(&api, &job, &attempts).await?))
}

pub(super) async fn of_job(
    api: &Api,
    job: &JobRecord,
    attempts: &[AttemptRecord],
) -> Result<Vec<ArtifactView>> {
    let named = match &job.state {
        JobState::Done(verdict) => verdict.attempt,
        JobState::Waiting { .. } | JobState::Live(_) => None,
    };
    let source = attempts.iter().rev().find(|attempt| match named {
        Some(named) => attempt.id == named,
        None => attempt.end == Some(AttemptEnd::Verdict),
    });
    let Some(source) = source else {
        return Ok(Vec::new());
    };
    let id = source.id;
    let outputs = api.read(move |queries| queries.artifacts(id)).await?;
    let outputs = outputs.unwrap_or_default();
    Ok(outputs
        .iter()
        .map(|output| show::artifact(source, output))
        .collect())
}

pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Addressed((id, name)): Addressed<(String, String)>,
) -> Result<Response> {
    let job = lookup::job(&api, &caller, &id).await?;
    let attempts = lookup::attempts(&api, &job).await?;
    let artifacts = of_job(&api, &job, &attempts).await?;
    let Some(artifact) = artifacts.into_iter().find(|artifact| artifact.name == name) else {
        return Err(not_found(
            format!("job {} has no artifact '{name}'", job.id),
            format!("See which there are: farmbell artifacts {}", job.id),
        ));
    };
    let digest: Digest = artifact.digest.parse().map_err(|e| internal(&e))?;
    let (length, body) = blobs::open(&api, digest).await?;
    Ok((headers(&artifact, length), Body::from_stream(body)).into_response())
}

/// Built by strangers: saved by a browser, never shown or run by it.
fn headers(artifact: &ArtifactView, length: u64) -> HeaderMap {
    let mut headers = blobs::headers(length);
    let plain: String = artifact
        .name
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._+~-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let disposition = format!("attachment; filename=\"{plain}\"");
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", artifact.digest)) {
        headers.insert(header::ETAG, value);
    }
    headers
}
