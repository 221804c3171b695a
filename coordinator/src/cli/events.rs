//! `farmbell events`: the farm's history, read or followed. Owns the number of
//! the last entry printed: after a lost connection it goes on behind it,
//! nothing twice and nothing missing.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use clap::Args;

use super::Context;
use super::client::{Retries, Trouble};
use super::exit::{Exit, Failure, Result};
use crate::http::wire::{AgentView, BuilderView, EventView};
use crate::inert;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  farmbell events --tail 20
  farmbell events -f
  farmbell --output ndjson events --after 0 | jq -r 'select(.kind == \"job.verdict\").why'")]
pub(super) struct EventsArgs {
    /// Go on as things happen
    #[arg(long, short)]
    follow: bool,
    /// Begin after the entry with this number
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Begin this many entries before the end
    #[arg(long, value_name = "N", conflicts_with = "after")]
    tail: Option<u64>,
}

/// Entries shown when nothing else is asked for.
const USUAL_TAIL: u64 = 50;

/// Where in the history the reader is.
#[derive(Clone, Copy, Debug)]
enum Place {
    After(u64),
    Tail(u64),
}

/// Names for the numbers that entries carry, fetched when one is new.
#[derive(Debug, Default)]
struct Names {
    builders: BTreeMap<u32, String>,
    agents: BTreeMap<u32, String>,
}

impl Names {
    /// Makes sure that the entry's names are known, if anyone knows them: the
    /// history outlives builders and agents.
    async fn learn(
        &mut self,
        context: &Context,
        event: &EventView,
    ) -> std::result::Result<(), Trouble> {
        if event
            .builder
            .is_some_and(|id| !self.builders.contains_key(&id))
        {
            let all: Vec<BuilderView> = context.client.try_get("/api/v1/builders").await?;
            self.builders
                .extend(all.into_iter().map(|view| (view.id, view.name)));
        }
        if event.agent.is_some_and(|id| !self.agents.contains_key(&id)) {
            let all: Vec<AgentView> = context.client.try_get("/api/v1/agents").await?;
            self.agents
                .extend(all.into_iter().map(|view| (view.id, view.name)));
        }
        for (ids, id) in [
            (&mut self.builders, event.builder),
            (&mut self.agents, event.agent),
        ] {
            if let Some(id) = id {
                ids.entry(id).or_insert_with(|| format!("#{id}"));
            }
        }
        Ok(())
    }
}

pub(super) async fn run(context: &Context, args: &EventsArgs) -> Result<Exit> {
    let mut place = match (args.after, args.tail) {
        (Some(after), _) => Place::After(after),
        (None, Some(tail)) => Place::Tail(tail),
        (None, None) => Place::Tail(USUAL_TAIL),
    };
    if !args.follow {
        read(context, &mut place, false, &mut Retries::default()).await?;
        return Ok(Exit::Ok);
    }
    let mut retries = Retries::default();
    loop {
        match read(context, &mut place, true, &mut retries).await {
            // The coordinator is stopping: its next life has the rest.
            Ok(()) => retries.pause(gone()).await?,
            Err(Trouble::Answer(failure)) => return Err(failure),
            Err(Trouble::Cut(failure)) => retries.pause(failure).await?,
        }
    }
}

async fn read(
    context: &Context,
    place: &mut Place,
    follow: bool,
    retries: &mut Retries,
) -> std::result::Result<(), Trouble> {
    let from = match place {
        Place::After(after) => format!("after={after}"),
        Place::Tail(tail) => format!("tail={tail}"),
    };
    let path = format!("/api/v1/events?{from}&follow={follow}");
    let mut answer = context.client.stream(&path).await?;
    // Even if no entry comes before the connection is lost, none may be missed.
    if let Some(after) = answer
        .header("x-events-after")
        .and_then(|seq| seq.parse().ok())
    {
        *place = Place::After(after);
    }
    let mut names = Names::default();
    let mut lines = BytesMut::new();
    while let Some(piece) = answer.piece().await? {
        retries.reset();
        lines.extend_from_slice(&piece);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line = lines.split_to(end);
            lines.advance(1);
            let event = event(&line).map_err(Trouble::Answer)?;
            if context.output.is_table() {
                names.learn(context, &event).await?;
            }
            let text = |event: &EventView| text(event, &names);
            context.output.item(&event, text).map_err(Trouble::Answer)?;
            *place = Place::After(event.seq);
        }
    }
    Ok(())
}

fn event(line: &[u8]) -> Result<EventView> {
    serde_json::from_slice(line).map_err(|e| {
        Failure::new(
            Exit::Infrastructure,
            format!("an entry of the history is not understood: {e}"),
            "Check that command and coordinator have the same version.",
        )
    })
}

fn gone() -> Failure {
    Failure::new(
        Exit::Unreachable,
        "the coordinator ended the stream and did not come back",
        "Start the coordinator, then follow again.",
    )
    .try_this("systemctl status farmbell-coordinator")
}

fn text(event: &EventView, names: &Names) -> String {
    let mut text = format!("{} {} {}", event.seq, event.at, event.kind);
    let subject = event.attempt.as_ref().or(event.job.as_ref());
    if let Some(subject) = subject {
        text.push_str(&format!(" {subject}"));
    }
    if let Some(name) = event.builder.and_then(|id| names.builders.get(&id)) {
        text.push_str(&format!(" builder {}", inert::line(name)));
    }
    if let Some(name) = event.agent.and_then(|id| names.agents.get(&id)) {
        text.push_str(&format!(" agent {}", inert::line(name)));
    }
    if !event.by.is_empty() {
        text.push_str(&format!(" by {}", inert::line(&event.by)));
    }
    if !event.why.is_empty() {
        text.push_str(&format!(": {}", inert::line(&event.why)));
    }
    text
}
