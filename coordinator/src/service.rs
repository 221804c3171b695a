//! The command line of `farmbell-coordinator`. Owns its words and exit codes;
//! what the commands do stands in modules of their own.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::check::Depth;
use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::statedir::StateDir;
use crate::{backup, check, failpoint, init, serve};

#[derive(Parser)]
#[command(
    name = "farmbell-coordinator",
    version,
    about = "The coordinator of a Farmbell build farm",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\
        First steps:\n  \
        farmbell-coordinator init\n  \
        systemctl enable --now farmbell-coordinator    (or: farmbell-coordinator serve)\n  \
        farmbell token create                          (then run what it prints on a builder)"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the state directory, the coordinator's key and its store
    ///
    /// Does nothing to what is there already, so it may be repeated.
    #[command(after_help = "Example:\n  farmbell-coordinator init --state /srv/farmbell")]
    Init(Place),
    /// Run the coordinator until SIGTERM or SIGINT
    ///
    /// Running builds go on without it, and report when it is back.
    #[command(after_help = "Examples:\n  farmbell-coordinator serve\n  \
        farmbell-coordinator serve --config ./coordinator.toml\n\
        The log's detail: FARMBELL_LOG=debug (error, warn, info, debug, trace).")]
    Serve(Place),
    /// Copy the store, the blobs, the logs and the key into a new directory
    ///
    /// May run while the coordinator serves: what it had committed when the
    /// backup began is in it, with all the files that this speaks of.
    #[command(after_help = "Example:\n  farmbell-coordinator backup /backup/farm-monday")]
    Backup {
        /// A directory that is not there yet
        to: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Make a state directory from a backup
    ///
    /// Agents that went on since know more than the backup. The coordinator
    /// notices, assigns nothing and abandons nothing until you accept with
    /// `farmbell restore accept`.
    #[command(after_help = "Example, on the stopped coordinator's host:\n  \
        mv /var/lib/farmbell /var/lib/farmbell.old\n  \
        farmbell-coordinator restore /backup/farm-monday")]
    Restore {
        /// What `backup` made
        from: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Look whether everything the store speaks of is there and whole
    ///
    /// Only reads; may run while the coordinator serves. Exit code 1 if
    /// anything is wrong.
    #[command(after_help = "Example:\n  farmbell-coordinator check --bytes")]
    Check {
        /// Read and hash every blob as well
        #[arg(long)]
        bytes: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// Which coordinator.
#[derive(Args)]
struct Place {
    /// The configuration
    #[arg(long, value_name = "FILE", help = format!("The configuration [default: {DEFAULT_PATH}, if it is there]"))]
    config: Option<PathBuf>,
    /// The state directory, instead of the one the configuration names
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// The command line as a value, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // What is made here is for the owner only, unless its place says otherwise.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    speak();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    failpoint::arm_from_environment()?;
    match command {
        Command::Init(place) => init::run(&place.state()?),
        Command::Serve(place) => serve::run(place.config()?),
        Command::Backup { to, place } => backup::backup(&place.state()?, &to),
        Command::Restore { from, place } => backup::restore(&from, &place.state()?),
        Command::Check { bytes, place } => {
            let depth = if bytes { Depth::Bytes } else { Depth::Lengths };
            check::run(&place.state()?, depth)
        }
    }
}

impl Place {
    fn state(self) -> Result<StateDir, ConfigError> {
        Ok(StateDir::at(self.config()?.state))
    }

    fn config(self) -> Result<Config, ConfigError> {
        let config = Config::read(self.config.as_deref())?;
        Ok(match self.state {
            Some(state) => Config { state, ..config },
            None => config,
        })
    }
}

/// The log goes to standard error: systemd's journal adds the time, a file or
/// a terminal needs it here.
fn speak() {
    let filter = EnvFilter::try_from_env("FARMBELL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
