//! After a restored backup: the operator's word that the farm may go on.

use axum::Json;
use axum::extract::State;
use farmbell_farm::event::Command;
use farmbell_protocol::bounded::Text;

use super::caller::Operator;
use super::extract::Said;
use super::problem::Result;
use super::wire::{Act, OverviewView};
use super::{Api, builders, show};

pub(super) async fn accept(
    State(api): State<Api>,
    Operator(by): Operator,
    Said(act): Said<Option<Act>>,
) -> Result<Json<OverviewView>> {
    let why = Text::cut(act.unwrap_or_default().reason);
    api.ask(by, Command::AcceptRestore { why }).await?;
    let overview = builders::ask(&api).await?;
    Ok(Json(show::overview(&overview, true)))
}
