//! Acts on jobs, one or many, and the brake on the queue: from JSON to the
//! farm's commands.

use axum::Json;
use axum::extract::State;
use farmbell_farm::effect::{Reply, Search};
use farmbell_farm::event::{Command, Ending, Filter, JobAct, PackageKey};
use farmbell_protocol::bounded::Text;
use farmbell_protocol::outcome::FailureKind;

use super::caller::{Caller, Operator};
use super::extract::{Addressed, Said, named};
use super::problem::{Result, invalid};
use super::wire::{
    BrakeRequest, BrakeView, BulkRequest, BulkView, FilterSpec, JobActRequest, JobActSpec, JobView,
    PackageRequest,
};
use super::{Api, jobs, lookup, unexpected};

pub(super) async fn one(
    State(api): State<Api>,
    Operator(by): Operator,
    Addressed(id): Addressed<String>,
    Said(request): Said<JobActRequest>,
) -> Result<Json<JobView>> {
    let caller = Caller::Operator(by.clone());
    let job = lookup::job(&api, &caller, &id).await?;
    let id = job.id;
    let why = Text::cut(request.reason);
    let command = match act(request.act) {
        Some(act) => Command::Job { job: id, act, why },
        None => Command::Retry {
            job: Box::new(job),
            why,
        },
    };
    let reply = api.ask(by, command).await?;
    jobs::after(&api, id, reply).await
}

pub(super) async fn bulk(
    State(api): State<Api>,
    Operator(by): Operator,
    Said(request): Said<BulkRequest>,
) -> Result<Json<BulkView>> {
    if request.filter == FilterSpec::default() {
        return Err(invalid(
            "the filter names nothing, so that every job of the farm would be meant",
            "Add an owner, submission, architecture, name or verdict, or \"waiting\": true for all that wait.",
        ));
    }
    let filter = filter(&request.filter)?;
    let why = Text::cut(request.reason);
    let command = match act(request.act) {
        Some(act) => Command::Bulk { filter, act, why },
        None => {
            let search = Search::first(filter.clone());
            let found = api.read(move |queries| queries.search(&search)).await?;
            Command::RetryAll { filter, found, why }
        }
    };
    let reply = api.ask(by, command).await?;
    let Reply::Bulk {
        operation,
        matched,
        changed,
        finished,
    } = reply
    else {
        return Err(unexpected(&reply));
    };
    Ok(Json(BulkView {
        operation,
        matched,
        changed,
        finished,
    }))
}

pub(super) async fn brake(
    State(api): State<Api>,
    Operator(by): Operator,
    Said(request): Said<BrakeRequest>,
) -> Result<Json<BrakeView>> {
    let command = Command::Brake {
        architecture: name("architecture", request.architecture.as_deref())?,
        least: request.least,
        why: Text::cut(request.reason),
    };
    let reply = api.ask(by, command).await?;
    let Reply::Braked { effective, changed } = reply else {
        return Err(unexpected(&reply));
    };
    Ok(Json(BrakeView {
        architecture: request.architecture,
        least: request.least,
        effective,
        changed,
    }))
}

/// The hook of an archive: a package can be had from now on.
pub(super) async fn provide(
    State(api): State<Api>,
    Operator(by): Operator,
    Said(request): Said<PackageRequest>,
) -> Result<Json<PackageRequest>> {
    let command = Command::Provide {
        version: name("version", Some(&request.version))?.unwrap_or_default(),
        package: PackageKey {
            name: name("name", Some(&request.name))?.unwrap_or_default(),
            architecture: name("architecture", Some(&request.architecture))?.unwrap_or_default(),
            // An archive may have but one.
            suite: bounded("suite", &request.suite)?,
            owner: None,
        },
    };
    api.ask(by, command).await?;
    Ok(Json(request))
}

/// None: a retry, for which the farm has to be brought what is finished.
const fn act(act: JobActSpec) -> Option<JobAct> {
    Some(match act {
        JobActSpec::Cancel => JobAct::Cancel,
        JobActSpec::Supersede => JobAct::Supersede,
        JobActSpec::Suspend => JobAct::Suspend,
        JobActSpec::Resume => JobAct::Resume,
        JobActSpec::SetPriority(priority) => JobAct::SetPriority(priority),
        JobActSpec::Retry => return None,
    })
}

fn filter(spec: &FilterSpec) -> Result<Filter> {
    Ok(Filter {
        owner: name("owner", spec.owner.as_deref())?,
        submission: spec
            .submission
            .as_deref()
            .map(lookup::submission)
            .transpose()?,
        architecture: name("architecture", spec.architecture.as_deref())?,
        name: name("name", spec.name.as_deref())?,
        begins: name("name", spec.begins.as_deref())?,
        verdict: spec.verdict.as_deref().map(ending).transpose()?,
        waiting: spec.waiting,
    })
}

fn ending(word: &str) -> Result<Ending> {
    let kinds = [FailureKind::DependencyWait, FailureKind::ChrootProblem];
    match word {
        "succeeded" => Ok(Ending::Succeeded),
        "failed" => Ok(Ending::Failed),
        "cancelled" => Ok(Ending::Cancelled),
        "superseded" => Ok(Ending::Superseded),
        "infrastructure" => Ok(Ending::Infrastructure),
        other => {
            let kind = kinds.into_iter().find(|kind| kind.as_str() == other);
            kind.map(Ending::FailedAs).ok_or_else(|| {
                invalid(
                    format!("'{other}' is no verdict of a job"),
                    "It is succeeded, failed, cancelled, superseded, infrastructure; or of the \
                     failed: dependency_wait, chroot_problem.",
                )
            })
        }
    }
}

fn name<const MAX: usize>(field: &str, text: Option<&str>) -> Result<Option<Text<MAX>>> {
    named(field, text)?
        .map(|text| bounded(field, text))
        .transpose()
}

fn bounded<const MAX: usize>(field: &str, text: &str) -> Result<Text<MAX>> {
    Text::new(text).map_err(|e| {
        invalid(
            format!("the {field} has {} bytes; there may be {}", e.length, e.max),
            "Nothing has so long a name.",
        )
    })
}
