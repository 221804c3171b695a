//! Submits: from JSON to the farm's command. Owns the checks that need more
//! than the farm knows: that every input is stored, with its length.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use farmbell_farm::effect::Reply;
use farmbell_farm::event::{Command, Submit};
use farmbell_protocol::bounded::{List, Text};
use farmbell_protocol::spec::JobSpec;
use serde::Deserialize;

use axum::response::{IntoResponse, Response};

use super::caller::Operator;
use super::extract::{Asked, Said};
use super::problem::{Result, internal, invalid};
use super::wire::{PlanView, Spec, SubmitRequest, Submitted, SubmittedJob};
use super::{Api, blocking, show, unexpected};
use crate::blobs::Blobs;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SubmitQuery {
    /// Accept nothing; say which builders could take the jobs.
    dry_run: bool,
}

pub(super) async fn submit(
    State(api): State<Api>,
    Operator(by): Operator,
    Asked(query): Asked<SubmitQuery>,
    headers: HeaderMap,
    Said(request): Said<SubmitRequest>,
) -> Result<Response> {
    let jobs = specs(&request.jobs, by.name.as_str())?;
    if query.dry_run {
        let reply = api.ask(by, Command::DryRun { jobs }).await?;
        let Reply::Plan(plans) = reply else {
            return Err(unexpected(&reply));
        };
        let plans: Vec<PlanView> = plans.iter().map(show::plan).collect();
        return Ok(Json(plans).into_response());
    }
    let jobs = if jobs.iter().any(|job| !job.inputs.is_empty()) {
        let blobs = api.blobs.clone();
        blocking(move || check_inputs(&blobs, &jobs).map(|()| jobs)).await??
    } else {
        jobs
    };
    let shown = jobs.clone();
    let command = Command::Submit(Submit {
        key: key(&headers)?,
        jobs: List::new(jobs).map_err(|e| too_many(e.length, e.max))?,
        allow_unmatched: request.allow_unmatched,
    });
    let reply = api.ask(by, command).await?;
    let Reply::Submitted {
        submission,
        jobs,
        existed,
    } = reply
    else {
        return Err(unexpected(&reply));
    };
    let jobs = jobs.iter().zip(&shown).map(|(job, spec)| SubmittedJob {
        id: job.to_string(),
        name: spec.name.to_string(),
        architecture: spec.architecture.to_string(),
    });
    let status = if existed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let submitted = Submitted {
        submission: submission.to_string(),
        jobs: jobs.collect(),
        existed,
    };
    Ok((status, Json(submitted)).into_response())
}

/// Jobs without an owner are those of whoever submits.
fn specs(jobs: &[Spec], by: &str) -> Result<Vec<JobSpec>> {
    if jobs.is_empty() {
        return Err(invalid(
            "a submission without jobs",
            "Name at least one architecture.",
        ));
    }
    jobs.iter()
        .map(|spec| {
            let mut spec = spec.clone();
            if spec.owner.is_empty() {
                spec.owner = Text::<64>::cut(by).into_string();
            }
            spec.to_protocol()
                .map_err(|e| invalid(format!("the job is refused: {e}"), "Mend that field."))
        })
        .collect()
}

fn check_inputs(blobs: &Blobs, jobs: &[JobSpec]) -> Result<()> {
    let mut inputs: Vec<_> = jobs.iter().flat_map(|job| job.inputs.iter()).collect();
    inputs.sort_by_key(|input| (input.digest, input.length));
    inputs.dedup_by_key(|input| (input.digest, input.length));
    for input in inputs {
        match blobs.claim(input.digest).map_err(|e| internal(&e))? {
            Some(length) if length == input.length => {}
            Some(length) => {
                return Err(invalid(
                    format!(
                        "the input {} has {length} bytes, not {}",
                        input.name, input.length
                    ),
                    "Give the length of the file that has this digest.",
                ));
            }
            None => {
                return Err(invalid(
                    format!("the input {} ({}) is not here", input.name, input.digest),
                    format!("Upload it first: PUT /api/v1/blobs/{}", input.digest),
                ));
            }
        }
    }
    Ok(())
}

fn key(headers: &HeaderMap) -> Result<Option<Text<128>>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|text| !text.is_empty());
    text.and_then(|text| Text::new(text).ok())
        .map(Some)
        .ok_or_else(|| {
            invalid(
                "the Idempotency-Key is refused",
                "Give 1 to 128 ASCII characters.",
            )
        })
}

fn too_many(length: usize, max: usize) -> super::wire::Problem {
    invalid(
        format!("{length} jobs in one submission; there may be {max}"),
        "Submit them in several parts.",
    )
}
