//! Builders: looking at them and the operator's acts on them.

use axum::Json;
use axum::extract::State;
use farmbell_farm::effect::{BuilderView as FarmView, Overview, Reply};
use farmbell_farm::event::{BuilderAct, Command};
use farmbell_farm::record::{OperatorMode, ResetRule, ResetWhen};
use farmbell_protocol::bounded::Text;
use farmbell_protocol::id::ParseIdError;

use super::caller::{Caller, Operator};
use super::extract::{Addressed, Asked, Said, named};
use super::problem::{Result, invalid, not_found};
use super::wire::{Act, ActQuery, BuilderView, Code, OverviewView, Problem};
use super::{Api, show, unexpected};

pub(super) async fn overview(State(api): State<Api>, caller: Caller) -> Result<Json<OverviewView>> {
    let overview = ask(&api).await?;
    Ok(Json(show::overview(&overview, caller.sees_private())))
}

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<BuilderView>>> {
    let overview = ask(&api).await?;
    Ok(Json(overview.builders.iter().map(show::builder).collect()))
}

pub(super) async fn show(
    State(api): State<Api>,
    Addressed(name): Addressed<String>,
) -> Result<Json<BuilderView>> {
    let overview = ask(&api).await?;
    let found = find(&overview, &name)?;
    let agents = super::agents::ask(&api).await?;
    let mut hosts = agents.iter().map(|(host, _)| host);
    let host = hosts.find(|host| host.id == found.record.agent);
    Ok(Json(show::builder_and_host(found, host)))
}

pub(super) async fn act(
    State(api): State<Api>,
    Operator(by): Operator,
    Addressed((name, word)): Addressed<(String, String)>,
    Asked(query): Asked<ActQuery>,
    Said(said): Said<Option<Act>>,
) -> Result<Json<Option<BuilderView>>> {
    let act = parse(&word, query)?;
    let builder = find(&*ask(&api).await?, &name)?.record.id;
    let why = Text::cut(said.unwrap_or_default().reason);
    api.ask(by, Command::Builder { builder, act, why }).await?;
    let now = ask(&api).await?;
    let view = now.builders.iter().find(|view| view.record.id == builder);
    Ok(Json(view.map(show::builder)))
}

fn parse(word: &str, query: ActQuery) -> Result<BuilderAct> {
    match word {
        "enable" => Ok(BuilderAct::Set(OperatorMode::Enabled)),
        "auto" => Ok(BuilderAct::Auto),
        "resume" => Ok(BuilderAct::Resume),
        "disable" => Ok(BuilderAct::Set(OperatorMode::Disabled)),
        "manual" => Ok(BuilderAct::Set(OperatorMode::Manual)),
        "drain" => Ok(match query.within_ms {
            Some(within_ms) => BuilderAct::Drain { within_ms },
            None => BuilderAct::Set(OperatorMode::Draining),
        }),
        "quarantine" => Ok(BuilderAct::Set(OperatorMode::Quarantined)),
        "reset" => Ok(BuilderAct::Reset),
        "reset-rule" => reset_rule(query),
        "reset-over" => reset_over(query),
        "remove" => Ok(BuilderAct::Remove {
            abandon: query.abandon,
        }),
        other => Err(not_found(
            format!("'{other}' is nothing one can do with a builder"),
            "It is enable, disable, manual, auto, drain, resume, quarantine, reset, reset-rule, \
             reset-over or remove.",
        )),
    }
}

fn reset_rule(query: ActQuery) -> Result<BuilderAct> {
    let word = query.when.unwrap_or_default();
    let when = [ResetWhen::After, ResetWhen::Before, ResetWhen::ByHand]
        .into_iter()
        .find(|when| when.as_str() == word)
        .ok_or_else(|| {
            invalid(
                format!("'{word}' is no time to reset a builder"),
                "It is after, before or by-hand.",
            )
        })?;
    // Nobody could be an empty one, and no reset would ever be reported.
    let reporter = named("reporter", query.reporter.as_deref())?;
    let reporter = reporter.map(Text::new).transpose().map_err(|e| {
        invalid(
            format!("the reporter's name has {} bytes", e.length),
            "Name who asks, as `farmbell events` shows it.",
        )
    })?;
    Ok(BuilderAct::ResetRule(ResetRule { when, reporter }))
}

fn reset_over(query: ActQuery) -> Result<BuilderAct> {
    let nonce = query.nonce.unwrap_or_default();
    let nonce = nonce.parse().map_err(|e: ParseIdError| {
        invalid(
            e.to_string(),
            "`farmbell builder show` has the one that stands.",
        )
    })?;
    let failed = query.failed.map(Text::cut);
    Ok(BuilderAct::ResetOver { nonce, failed })
}

pub(super) async fn ask(api: &Api) -> Result<Box<Overview>> {
    let reply = api.look(Command::Overview).await?;
    let Reply::Overview(overview) = reply else {
        return Err(unexpected(&reply));
    };
    Ok(overview)
}

/// The builder of this name; `AGENT/NAME` where several have it.
fn find<'o>(overview: &'o Overview, name: &str) -> Result<&'o FarmView> {
    let whole = |view: &FarmView| format!("{}/{}", view.agent, view.record.name);
    let found: Vec<_> = overview
        .builders
        .iter()
        .filter(|view| view.record.name.as_str() == name || whole(view) == name)
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(not_found(
            format!("there is no builder '{name}'"),
            "See which there are: farmbell builders",
        )),
        several => {
            let mut problem = Problem::new(
                Code::Ambiguous,
                format!("several agents have a builder '{name}'"),
                "Name one of these:",
            );
            problem.candidates = several.iter().map(|view| whole(view)).collect();
            Err(problem)
        }
    }
}
