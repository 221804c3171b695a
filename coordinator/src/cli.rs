//! The `farmbell` command: what submitters and operators type. Owns the command
//! line and the way a result or a failure leaves; each subcommand is a file.
//! It is a plain client of the HTTP API and shares nothing with the service
//! but the shapes of its JSON.
//!
//! Invariant: every failure names its cause and what to do, and ends with an
//! exit code of the documented table.

mod agents;
mod artifacts;
mod builders;
mod client;
mod demo;
mod endpoint;
mod events;
mod exit;
mod farm;
mod jobs;
mod logs;
mod output;
mod pick;
#[cfg(test)]
mod stories;
mod submit;
mod tokens;
pub(crate) mod units;
mod wait;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use client::Client;
use endpoint::{Endpoint, EndpointArgs};
use exit::{Exit, Failure, Result};
use output::{Format, Output};

/// Submit jobs to a Farmbell farm, watch them, fetch what they built, and
/// operate the farm
#[derive(Debug, Parser)]
#[command(name = "farmbell", version, after_help = exit::TABLE, arg_required_else_help = true)]
struct Cli {
    /// How results are printed
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    output: Format,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give the farm something to build
    Submit(Box<submit::SubmitArgs>),
    /// List jobs, newest first
    Jobs(jobs::JobsArgs),
    /// Show one job, or act on it
    #[command(subcommand)]
    Job(jobs::JobCommand),
    /// Show a job's log
    Logs(logs::LogsArgs),
    /// List what a job built
    Artifacts(artifacts::ArtifactsArgs),
    /// Fetch what a job built
    #[command(subcommand)]
    Artifact(artifacts::ArtifactCommand),
    /// List builders
    Builders(builders::BuildersArgs),
    /// Operate one builder
    #[command(subcommand)]
    Builder(builders::BuilderCommand),
    /// List agents
    Agents,
    /// Operate one agent
    #[command(subcommand)]
    Agent(agents::AgentCommand),
    /// Tokens that let agents join
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// Show what waits, in the order it would start, and why
    Queue(farm::QueueArgs),
    /// Keep jobs with a low score from starting
    Brake(farm::BrakeArgs),
    /// Tell that a Debian package can be had: jobs that lacked it run again
    Provide(farm::ProvideArgs),
    /// After a restored backup
    #[command(subcommand)]
    Restore(farm::RestoreCommand),
    /// Show the farm's history
    Events(events::EventsArgs),
    /// Run a whole farm on this machine and build one Debian package
    Demo(demo::DemoArgs),
}

/// What every subcommand works with.
#[derive(Debug)]
struct Context {
    client: Client,
    output: Output,
}

/// The command line's description, for manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match parse(command(), std::env::args_os()) {
        Ok(cli) => cli,
        // Also `--help` and `--version`, which are no errors.
        Err(e) => e.exit(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            output::complain(&Failure::new(
                Exit::Infrastructure,
                format!("this program cannot start: {e}"),
                "Check the limits of this user (ulimit -a).",
            ));
            return code(Exit::Infrastructure);
        }
    };
    runtime.block_on(run(cli))
}

fn parse(
    command: clap::Command,
    line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> std::result::Result<Cli, clap::Error> {
    let matches = command.try_get_matches_from(line)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    cli.endpoint.prefer_typed(&matches);
    Ok(cli)
}

async fn run(cli: Cli) -> ExitCode {
    if let Command::Demo(args) = cli.command {
        return run_demo(args).await;
    }
    let ended = match Endpoint::find(&cli.endpoint) {
        Ok(endpoint) => {
            let context = Context {
                client: Client::new(endpoint),
                output: Output::new(cli.output),
            };
            Box::pin(dispatch(&context, cli.command)).await
        }
        Err(failure) => Err(failure),
    };
    match ended {
        Ok(exit) => code(exit),
        Err(failure) => {
            output::complain(&failure);
            code(failure.exit)
        }
    }
}

async fn run_demo(args: demo::DemoArgs) -> ExitCode {
    match demo::run(args).await {
        Ok(code) => code,
        Err(e) => {
            output::complain(&Failure::new(Exit::Infrastructure, format!("{e:#}"), ""));
            code(Exit::Infrastructure)
        }
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Submit(args) => submit::run(context, *args).await,
        Command::Jobs(args) => jobs::list(context, &args).await,
        Command::Job(command) => jobs::run(context, command).await,
        Command::Logs(args) => logs::run(context, &args).await,
        Command::Artifacts(args) => artifacts::list(context, &args).await,
        Command::Artifact(command) => artifacts::run(context, command).await,
        Command::Builders(args) => builders::list(context, &args).await,
        Command::Builder(command) => builders::run(context, command).await,
        Command::Agents => agents::list(context).await,
        Command::Agent(command) => agents::run(context, command).await,
        Command::Token(command) => tokens::run(context, command).await,
        Command::Queue(args) => farm::queue(context, &args).await,
        Command::Brake(args) => farm::brake(context, args).await,
        Command::Provide(args) => farm::provide(context, args).await,
        Command::Restore(command) => farm::restore(context, command).await,
        Command::Events(args) => events::run(context, &args).await,
        Command::Demo(_) => unreachable!("the demo makes its own coordinator first"),
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.number())
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_command_behind_two_dashes_keeps_its_own_options() {
        let cli = Cli::try_parse_from([
            "farmbell",
            "submit",
            "--arch",
            "amd64,arm64",
            "--",
            "ls",
            "--output",
            "x",
        ]);
        assert!(matches!(cli.unwrap().command, Command::Submit(_)));
        assert!(Cli::try_parse_from(["farmbell", "submit"]).is_err());
        assert!(Cli::try_parse_from(["farmbell", "submit", "a.dsc", "--", "ls"]).is_err());
    }

    #[test]
    fn a_typed_socket_goes_before_a_url_of_the_environment() {
        let url_of = |line: &str| {
            // Any variable that a test surely has.
            let command = command().mut_arg("url", |url| url.env("CARGO_MANIFEST_DIR"));
            let words = ["farmbell"].into_iter().chain(line.split(' '));
            parse(command, words).unwrap().endpoint.url
        };
        assert!(url_of("agents").is_some());
        assert_eq!(url_of("agents --socket s"), None);
        assert_eq!(url_of("--socket s job show k3v9"), None);
        assert_eq!(url_of("--socket s --url u agents").as_deref(), Some("u"));
    }

    /// As a script types it whose variable is not set: that may not mean all of them.
    #[test]
    fn an_empty_name_is_refused() {
        for line in [
            "job cancel --name ",
            "job cancel --state ",
            "job retry --owner ",
            "job suspend --arch ",
            "job wake --submission ",
            "job supersede ",
            "jobs --name ",
            "job show ",
            "job explain ",
            "job wait ",
            "logs ",
            "artifacts ",
            "artifact get ",
            "builders --arch ",
            "builder show ",
            "builder drain ",
            "agent revoke ",
            "brake 5 --arch ",
            "provide libfoo 1.0 --arch ",
            "provide libfoo ",
        ] {
            let words = ["farmbell"].into_iter().chain(line.split(' '));
            let refused = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{line}: {refused}");
        }
    }
}
