//! `farmbell agents` and `farmbell agent …`: identities and what the operator
//! does with them.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::Context;
use super::client::segment;
use super::exit::{Exit, Result};
use super::output::span;
use crate::http::wire::{Act, AgentView, Stamp};

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Refuse its key from now on and end its connections
    #[command(after_help = "Example:\n  farmbell agent revoke board7 --reason stolen")]
    Revoke(ActArgs),
    /// Take a frozen agent back in
    Approve(ActArgs),
    /// Forget it and its builders; refused while one holds an attempt
    Remove(ActArgs),
}

#[derive(Args, Debug)]
pub(super) struct ActArgs {
    /// The agent's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// Why; stands in the history
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) async fn list(context: &Context) -> Result<Exit> {
    let agents: Vec<AgentView> = context.client.get("/api/v1/agents").await?;
    let now = Stamp::now();
    context.output.list(
        &agents,
        &[
            "AGENT",
            "LINK",
            "STANDING",
            "ADDRESS",
            "SOFTWARE",
            "LAST SEEN",
            "KEY",
            "WHY",
        ],
        |agent| {
            let (link, seen) = if agent.connected {
                ("online", String::new())
            } else {
                (
                    "offline",
                    format!("{} ago", span(agent.last_seen.until_ms(now))),
                )
            };
            vec![
                agent.name.clone(),
                link.to_owned(),
                agent.standing.clone(),
                agent.address.clone(),
                agent.software.clone(),
                seen,
                agent.key.chars().take(12).collect(),
                agent.standing_why.clone(),
            ]
        },
    )?;
    Ok(Exit::Ok)
}

pub(super) async fn run(context: &Context, command: AgentCommand) -> Result<Exit> {
    let (act, word) = match command {
        AgentCommand::Revoke(act) => (act, "revoke"),
        AgentCommand::Approve(act) => (act, "approve"),
        AgentCommand::Remove(act) => (act, "remove"),
    };
    let path = format!("/api/v1/agents/{}/{word}", segment(&act.name));
    let body = Act { reason: act.reason };
    let view: Option<AgentView> = context.client.post(&path, &body).await?;
    context.output.one(&view, |view| match view {
        Some(view) => format!("agent {}: {}", view.name, view.standing),
        None => format!("agent {}: done", act.name),
    })?;
    Ok(Exit::Ok)
}
