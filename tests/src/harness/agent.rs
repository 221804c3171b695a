//! An agent of a test farm. Owns its configuration and its lives.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::around::Around;
use super::binaries::Binaries;
use super::cli::Said;
use super::daemon::Daemon;

/// One builder as a story wants it.
#[derive(Clone, Debug)]
pub struct BuilderPlan {
    name: String,
    settings: String,
    becomes_clean: bool,
}

impl BuilderPlan {
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            settings: String::new(),
            becomes_clean: true,
        }
    }

    /// A line of its table in `agent.toml`.
    #[must_use]
    pub fn with(mut self, setting: &str) -> Self {
        self.settings.push_str(setting);
        self.settings.push('\n');
        self
    }

    /// The story does not expect it to be proved clean when it starts.
    #[must_use]
    pub fn never_clean(mut self) -> Self {
        self.becomes_clean = false;
        self
    }

    pub(super) fn becomes_clean(&self) -> bool {
        self.becomes_clean
    }
}

#[derive(Debug)]
pub struct Agent {
    pub daemon: Daemon,
    pub name: String,
    /// What each life is started inside of.
    pub around: Option<Around>,
    directory: PathBuf,
    binaries: Binaries,
}

impl Agent {
    /// Writes the configuration; nothing runs yet.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn prepare(
        binaries: &Binaries,
        directory: &Path,
        name: &str,
        builders: &[BuilderPlan],
    ) -> Self {
        std::fs::create_dir_all(directory).expect("a directory can be made");
        let agent = Self {
            daemon: Daemon::new(name, directory),
            name: name.to_owned(),
            around: None,
            directory: directory.to_owned(),
            binaries: binaries.clone(),
        };
        let mut text = format!("name = {name:?}\nstate = {:?}\n", agent.state());
        for builder in builders {
            write!(
                text,
                "\n[[builder]]\nname = {:?}\n{}",
                builder.name, builder.settings
            )
            .expect("text can be appended to");
        }
        std::fs::write(agent.configuration(), text).expect("a configuration can be written");
        agent
    }

    /// Joins the farm that the token names.
    #[must_use]
    pub fn join(&self, token: &str) -> Said {
        let mut command = self.program("join");
        command.arg(token);
        Said::by(command)
    }

    /// Starts the next life on the same state.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the next life with these variables.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        let mut run = self.program("run");
        run.envs(variables.iter().copied());
        match self.around {
            // Nobody is told that it is ready: its builders say so.
            Some(Around::Ordinary(_)) => drop(self.daemon.start_only(run)),
            Some(_) | None => self.daemon.start(run),
        }
    }

    /// Its files become those of whom it runs as.
    pub(super) fn hand_over(&self) {
        if let Some(Around::Ordinary(user)) = &self.around {
            user.owns(&self.directory);
        }
    }

    /// As [`start_with`](Self::start_with); false when it dies at its start.
    pub fn try_start_with(&mut self, variables: &[(&str, &str)]) -> bool {
        let mut run = self.program("run");
        run.envs(variables.iter().copied());
        self.daemon.try_start(run)
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The agent's program with a subcommand, for the caller to start.
    #[must_use]
    pub fn program(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.binaries.agent());
        command
            .arg(subcommand)
            .arg("--config")
            .arg(self.configuration());
        match &self.around {
            Some(around) => around.wrap(&command),
            None => command,
        }
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }
}
