//! The coordinator of a test farm. Owns its configuration and its lives.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PATIENCE;
use super::around::Around;
use super::binaries::Binaries;
use super::cli::{Cli, Said};
use super::daemon::Daemon;
use super::events::Events;

/// What a story wants different from a plain coordinator.
#[derive(Clone, Debug, Default)]
pub struct CoordinatorPlan {
    /// Lines of `coordinator.toml` beside those the harness writes.
    pub settings: String,
    /// The environment of every life, for example failpoints.
    pub environment: Vec<(String, String)>,
    /// What each life is started inside of.
    pub around: Option<Around>,
}

#[derive(Debug)]
pub struct Coordinator {
    pub daemon: Daemon,
    directory: PathBuf,
    binaries: Binaries,
    environment: Vec<(String, String)>,
    settings: String,
    /// What each life is started inside of.
    pub around: Option<Around>,
}

/// The store's write lock in the hands of this process, as a person's shell
/// might hold it: while this lives no commit works.
#[derive(Debug)]
pub struct StoreHold {
    _connection: rusqlite::Connection,
}

impl Coordinator {
    /// Makes the store stall until what this gives is dropped.
    ///
    /// # Panics
    /// If the store cannot be had between two commits.
    #[must_use]
    pub fn hold_store(&self) -> StoreHold {
        let held = rusqlite::Connection::open(self.state().join("farm.db"))
            .and_then(|connection| {
                connection.busy_timeout(PATIENCE)?;
                connection.execute_batch("BEGIN IMMEDIATE")?;
                Ok(connection)
            })
            .expect("the store is free between two commits");
        StoreHold { _connection: held }
    }

    /// A coordinator with a fresh state directory, running.
    ///
    /// # Panics
    /// If its files cannot be written or it does not come up.
    #[must_use]
    pub fn start(binaries: &Binaries, directory: &Path, plan: &CoordinatorPlan) -> Self {
        std::fs::create_dir_all(directory).expect("a directory can be made");
        let mut coordinator = Self {
            daemon: Daemon::new("coordinator", directory),
            directory: directory.to_owned(),
            binaries: binaries.clone(),
            environment: plan.environment.clone(),
            settings: plan.settings.clone(),
            around: plan.around.clone(),
        };
        let here = Ipv4Addr::LOCALHOST;
        let seen = match &plan.around {
            Some(Around::Host(host)) => host.address(),
            Some(
                Around::Recorder(_)
                | Around::Boot(_)
                | Around::WithoutPidfds(_)
                | Around::SmallDisk(..)
                | Around::Ordinary(_),
            )
            | None => here,
        };
        let any = [seen, seen, here].map(|address| format!("{address}:0"));
        coordinator.write_configuration(any);
        Said::by(coordinator.program("init")).succeeds();
        coordinator.restart();
        coordinator
    }

    /// Starts the next life on the same state.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// Starts the next life with these variables beside the plan's.
    pub fn restart_with(&mut self, variables: &[(&str, &str)]) {
        let mut serve = self.program("serve");
        serve.envs(variables.iter().copied());
        self.daemon.start(serve);
        self.keep_addresses();
    }

    /// As [`restart_with`](Self::restart_with); false when it dies at its start.
    pub fn try_restart_with(&mut self, variables: &[(&str, &str)]) -> bool {
        let mut serve = self.program("serve");
        serve.envs(variables.iter().copied());
        self.daemon.try_start(serve)
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli::new(self.binaries.cli(), self.socket())
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state().join("farmbell.sock")
    }

    /// The event stream from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        // Whatever happens from here on is seen, however late the follower
        // gets to its first question.
        let newest = ["--output", "ndjson", "events", "--tail", "1"];
        let newest = self.cli().run(&newest).succeeds().json();
        let after = newest["seq"].to_string();
        let follow = ["--output", "ndjson", "events", "-f", "--after", &after];
        Events::follow(self.cli().command(&follow))
    }

    /// The event stream behind this entry.
    #[must_use]
    pub fn events_after(&self, seq: u64) -> Events {
        let after = seq.to_string();
        Events::follow(
            self.cli()
                .command(&["--output", "ndjson", "events", "-f", "--after", &after]),
        )
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Where a name of its addresses file points.
    ///
    /// # Panics
    /// If the coordinator wrote no such address.
    #[must_use]
    pub fn address(&self, name: &str) -> std::net::SocketAddr {
        let path = self.state().join("addresses.json");
        let bytes = std::fs::read(&path).expect("a running coordinator wrote its addresses");
        let all: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
        all[name]
            .as_str()
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("no address {name:?} in {all}"))
    }

    /// The coordinator's program with a subcommand, for the caller to start.
    #[must_use]
    pub fn program(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.binaries.coordinator());
        command
            .arg(subcommand)
            .arg("--config")
            .arg(self.configuration())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        match &self.around {
            Some(around) => around.wrap(&command),
            None => command,
        }
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("coordinator.toml")
    }

    /// The next life listens where this one does: agents know no other place.
    fn keep_addresses(&self) {
        let kept = ["control", "bulk", "http"].map(|name| self.address(name).to_string());
        self.write_configuration(kept);
    }

    fn write_configuration(&self, [control, bulk, http]: [String; 3]) {
        let text = format!(
            "state = {:?}\ncontrol = {control:?}\nbulk = {bulk:?}\nhttp = {http:?}\n{}",
            self.state(),
            self.settings,
        );
        std::fs::write(self.configuration(), text).expect("a configuration can be written");
    }
}
