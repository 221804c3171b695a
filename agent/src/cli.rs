//! The agent's command line: which words it takes and what they mean. Owns the
//! texts a person reads there; the work is done by the modules it calls.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use farmbell_protocol::bounded::Name;

use crate::config::{Config, USUAL_STATE};
use crate::join::join_farm;
use crate::launcher::{self, unit::Unit};

/// Makes this host a builder of a Farmbell farm.
#[derive(Debug, Parser)]
#[command(
    name = "farmbell-agent",
    version,
    after_help = "Examples:\n  \
        farmbell-agent join fbj_0123…          join with the line `farmbell token create` printed\n  \
        farmbell-agent join --token-file -     the same, the token on standard input\n  \
        farmbell-agent run                     serve until told to stop\n\n\
        Signals: TERM finishes what runs and leaves; QUIT cancels it and leaves; USR1 leaves at\n\
        once, builds go on under their supervisors and are taken up again at the next start."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Exchange a join token for an identity.
    Join(Join),
    /// Serve the coordinator: run its jobs here until told to stop.
    Run(crate::run::Run),
    /// Look at this host and say what to mend.
    Doctor(crate::doctor::Doctor),
    /// Start builds for the agent, in a unit that upgrades leave alone.
    Launcher(Launcher),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Run by farmbell-launcher.service, as the agent's user, with a control group handed\n\
    to it. Builds belong to that unit: the agent may be restarted, and limits hold."
)]
struct Launcher {
    /// The socket to listen on; the package's without it.
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Join {
    /// The token that `farmbell token create` printed.
    #[arg(
        env = "FARMBELL_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    token: Option<String>,
    /// Read the token from a file, or from standard input with `-`: then it
    /// stands in no list of processes and no history.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What the farm calls this agent; the host's name otherwise.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    places: Places,
}

/// Where the agent finds its files.
#[derive(Clone, Debug, Args)]
pub struct Places {
    /// The configuration; /etc/farmbell/agent.toml if that is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Identity, spool and builds; wins over the configuration's.
    #[arg(long, value_name = "DIR", env = "FARMBELL_AGENT_STATE")]
    state: Option<PathBuf>,
    /// The socket of `farmbell-agent launcher`; the package's if it is there.
    #[arg(long, value_name = "SOCKET", env = "FARMBELL_LAUNCHER")]
    launcher: Option<PathBuf>,
}

impl Places {
    /// # Errors
    /// As [`Unit::find`].
    pub(crate) fn launcher(&self) -> anyhow::Result<Option<Unit>> {
        Unit::find(self.launcher.as_deref())
    }

    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(state) = &self.state {
            config.state.clone_from(state);
        }
        Ok(config)
    }
}

/// The command line's shape, for manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Join(join) => join.perform(),
        Command::Run(run) => run.perform(),
        Command::Doctor(doctor) => doctor.perform(),
        Command::Launcher(launcher) => launcher.perform(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where a person is told why nothing came of it"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("farmbell-agent: {error:#}");
}

impl Launcher {
    fn perform(self) -> anyhow::Result<ExitCode> {
        crate::run::start_log();
        match launcher::unit::serve(self.socket.as_deref())? {}
    }
}

impl Join {
    #[expect(clippy::print_stdout, reason = "this is a command a person types")]
    fn perform(self) -> anyhow::Result<ExitCode> {
        let token = self.token()?;
        let config = self.places.config()?;
        let name = match self.name {
            Some(name) => Name::new(name).context("the agent's name is too long")?,
            None => config.name.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let name = runtime.block_on(join_farm(&config.state, &token, name))?;
        println!("joined as {name}");
        if std::io::stdout().is_terminal() {
            let state = config.state.display();
            let place = if config.state.as_path() == Path::new(USUAL_STATE) {
                "sudo systemctl enable --now farmbell-agent".to_owned()
            } else {
                format!("farmbell-agent run --state {state}")
            };
            println!("next: {place}");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn token(&self) -> anyhow::Result<String> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(token.clone()),
            (None, Some(path)) if path.as_os_str() == "-" => {
                let mut token = String::new();
                std::io::stdin()
                    .read_to_string(&mut token)
                    .context("standard input")?;
                Ok(token)
            }
            (None, Some(path)) => std::fs::read_to_string(path)
                .with_context(|| format!("the token file {} cannot be read", path.display())),
            (None, None) => anyhow::bail!(
                "a join token is needed: farmbell-agent join TOKEN; make one on the coordinator \
                 with: farmbell token create"
            ),
        }
    }
}
