//! Tokens that let agents join. Owns the making of the secret: it exists here
//! and in the one answer that shows it; the farm gets only its hash.

use axum::Json;
use axum::extract::State;
use farmbell_farm::effect::Reply;
use farmbell_farm::event::Command;
use farmbell_farm::record::{Envelope, TokenRecord};
use farmbell_protocol::bounded::{List, Text, TooLong};
use farmbell_protocol::client::token::Token;
use farmbell_protocol::digest::Digest;

use super::caller::Operator;
use super::extract::{Addressed, Said};
use super::problem::{Result, internal, invalid, not_found};
use super::wire::{Act, EnvelopeView, TokenCreate, TokenCreated, TokenView};
use super::{Api, show, unexpected};

pub(super) async fn create(
    State(api): State<Api>,
    Operator(by): Operator,
    Said(request): Said<TokenCreate>,
) -> Result<Json<TokenCreated>> {
    let envelope = envelope(&request.envelope).map_err(|e| {
        invalid(
            format!("the envelope is refused: {e}"),
            "Name fewer, or shorter.",
        )
    })?;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|e| internal(&e))?;
    let command = Command::TokenCreate {
        uses: request.uses,
        ttl_ms: request.ttl_ms,
        envelope,
        secret_hash: Digest::of(&secret).0,
    };
    let reply = api.ask(by, command).await?;
    let Reply::Token(record) = reply else {
        return Err(unexpected(&reply));
    };
    let token = Token {
        id: record.id,
        secret,
        coordinator: api.join.key,
        address: Text::new(api.join.address.as_str()).map_err(|e| internal(&e))?,
    };
    Ok(Json(TokenCreated {
        token: token.to_string(),
        view: show::token(&record),
    }))
}

fn envelope(view: &EnvelopeView) -> std::result::Result<Envelope, TooLong> {
    fn names<const COUNT: usize>(
        names: &[String],
    ) -> std::result::Result<List<Text<64>, COUNT>, TooLong> {
        let names = names.iter().map(|name| Text::new(name.as_str()));
        List::new(names.collect::<std::result::Result<_, _>>()?)
    }
    Ok(Envelope {
        names: names(&view.names)?,
        architectures: names(&view.architectures)?,
        tags: names(&view.tags)?,
        virtualized: view.virtualized,
    })
}

pub(super) async fn list(
    State(api): State<Api>,
    Operator(_): Operator,
) -> Result<Json<Vec<TokenView>>> {
    Ok(Json(ask(&api).await?.iter().map(show::token).collect()))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Operator(by): Operator,
    Addressed(id): Addressed<u64>,
    Said(act): Said<Option<Act>>,
) -> Result<Json<TokenView>> {
    let why = Text::cut(act.unwrap_or_default().reason);
    api.ask(by, Command::TokenRevoke { token: id, why }).await?;
    let tokens = ask(&api).await?;
    let token = tokens.iter().find(|token| token.id == id);
    token.map(|token| Json(show::token(token))).ok_or_else(|| {
        not_found(
            format!("there is no token {id}"),
            "See which there are: farmbell token list",
        )
    })
}

async fn ask(api: &Api) -> Result<Vec<TokenRecord>> {
    let reply = api.look(Command::Tokens).await?;
    let Reply::Tokens(tokens) = reply else {
        return Err(unexpected(&reply));
    };
    Ok(tokens)
}
