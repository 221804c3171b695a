//! Agents: looking at identities and the operator's acts on them.

use axum::Json;
use axum::extract::State;
use farmbell_farm::effect::Reply;
use farmbell_farm::event::{AgentAct, Command};
use farmbell_farm::record::AgentRecord;
use farmbell_protocol::bounded::Text;

use super::caller::Operator;
use super::extract::{Addressed, Said};
use super::problem::{Result, not_found};
use super::wire::{Act, AgentView, Code, Problem};
use super::{Api, show, unexpected};

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<AgentView>>> {
    let agents = ask(&api).await?;
    let views = agents
        .iter()
        .map(|(agent, connected)| show::agent(agent, *connected));
    Ok(Json(views.collect()))
}

pub(super) async fn act(
    State(api): State<Api>,
    Operator(by): Operator,
    Addressed((name, word)): Addressed<(String, String)>,
    Said(said): Said<Option<Act>>,
) -> Result<Json<Option<AgentView>>> {
    let act = match word.as_str() {
        "revoke" => AgentAct::Revoke,
        "approve" => AgentAct::Approve,
        "remove" => AgentAct::Remove,
        other => {
            return Err(not_found(
                format!("'{other}' is nothing one can do with an agent"),
                "It is revoke, approve or remove.",
            ));
        }
    };
    let agent = find(&ask(&api).await?, &name)?;
    let why = Text::cut(said.unwrap_or_default().reason);
    api.ask(by, Command::Agent { agent, act, why }).await?;
    let now = ask(&api).await?;
    let view = now.iter().find(|(record, _)| record.id == agent);
    Ok(Json(view.map(|(record, connected)| {
        show::agent(record, *connected)
    })))
}

pub(super) async fn ask(api: &Api) -> Result<Vec<(AgentRecord, bool)>> {
    let reply = api.look(Command::Agents).await?;
    let Reply::Agents(agents) = reply else {
        return Err(unexpected(&reply));
    };
    Ok(agents)
}

/// The agent of this name; the beginning of its key where several have it.
fn find(agents: &[(AgentRecord, bool)], name: &str) -> Result<farmbell_protocol::id::AgentId> {
    let found: Vec<_> = agents
        .iter()
        .map(|(record, _)| record)
        .filter(|record| {
            record.name.as_str() == name
                || (name.len() >= 8 && record.key.to_string().starts_with(name))
        })
        .collect();
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => Err(not_found(
            format!("there is no agent '{name}'"),
            "See which there are: farmbell agents",
        )),
        several => {
            let mut problem = Problem::new(
                Code::Ambiguous,
                format!("several agents are called '{name}'"),
                "Name one by the beginning of its key (at least 8 letters):",
            );
            problem.candidates = several
                .iter()
                .map(|record| format!("{} {}", record.key, record.address))
                .collect();
            Err(problem)
        }
    }
}
