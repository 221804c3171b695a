//! `farmbell token …`: what lets agents join. A token is shown once, when it
//! is made; the coordinator keeps only its hash.

use clap::{Args, Subcommand};

use super::exit::{Exit, Result};
use super::output::span;
use super::{Context, units};
use crate::http::wire::{Act, EnvelopeView, Stamp, TokenCreate, TokenCreated, TokenView};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print the line to paste on the builder's host
    #[command(after_help = "Examples:
  farmbell token create
  farmbell token create --uses 20 --ttl 12h --arch arm64 --name 'board*'")]
    Create(CreateArgs),
    /// List tokens
    List,
    /// Refuse a token from now on; agents that joined with it stay
    #[command(after_help = "Example:\n  farmbell token revoke 3 --reason leaked")]
    Revoke {
        /// Its number in `token list`
        id: u64,
        /// Why; stands in the history
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// How many agents may join with it
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// How long it is valid
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = units::milliseconds)]
    ttl: u64,
    /// Architectures its builders may have; any otherwise
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// Tags its builders may offer; any otherwise
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    tag: Vec<String>,
    /// Names its builders may have, a trailing * for any ending; any otherwise
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    name: Vec<String>,
    /// Whether its builders are virtual (true) or real (false); both otherwise
    #[arg(long, value_name = "BOOL")]
    virtualized: Option<bool>,
}

pub(super) async fn run(context: &Context, command: TokenCommand) -> Result<Exit> {
    match command {
        TokenCommand::Create(args) => create(context, args).await,
        TokenCommand::List => list(context).await,
        TokenCommand::Revoke { id, reason } => {
            let view: TokenView = context
                .client
                .post(&format!("/api/v1/tokens/{id}/revoke"), &Act { reason })
                .await?;
            context
                .output
                .one(&view, |view| format!("token {} is revoked", view.id))?;
            Ok(Exit::Ok)
        }
    }
}

async fn create(context: &Context, args: CreateArgs) -> Result<Exit> {
    let request = TokenCreate {
        uses: args.uses,
        ttl_ms: args.ttl,
        envelope: EnvelopeView {
            names: args.name,
            architectures: args.arch,
            tags: args.tag,
            virtualized: args.virtualized,
        },
    };
    let created: TokenCreated = context.client.post("/api/v1/tokens", &request).await?;
    context.output.one(&created, |created| {
        let uses = match created.view.uses {
            1 => "once".to_owned(),
            uses => format!("{uses} times"),
        };
        format!(
            "On the builder's host, type (valid {uses}, until {}):\n\nfarmbell-agent join {}",
            created.view.expires, created.token
        )
    })?;
    Ok(Exit::Ok)
}

async fn list(context: &Context) -> Result<Exit> {
    let tokens: Vec<TokenView> = context.client.get("/api/v1/tokens").await?;
    let now = Stamp::now();
    context.output.list(
        &tokens,
        &["TOKEN", "USED", "STATE", "NAMES", "ARCH", "TAGS", "MADE BY"],
        |token| {
            vec![
                token.id.to_string(),
                format!("{} of {}", token.used, token.uses),
                state(token, now),
                token.envelope.names.join(","),
                token.envelope.architectures.join(","),
                token.envelope.tags.join(","),
                token.created_by.clone(),
            ]
        },
    )?;
    Ok(Exit::Ok)
}

fn state(token: &TokenView, now: Stamp) -> String {
    if token.revoked {
        "revoked".to_owned()
    } else if token.used >= token.uses {
        "used up".to_owned()
    } else if token.expires <= now {
        "expired".to_owned()
    } else {
        format!("valid for {}", span(now.until_ms(token.expires)))
    }
}
