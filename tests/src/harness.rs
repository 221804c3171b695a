//! Real daemons for stories, figures and chaos: a coordinator and agents as
//! child processes in a temporary directory, spoken to by the `farmbell`
//! command as a person would.
//!
//! Owns starting, killing, restarting and clearing away. Never looks into a
//! daemon: what a story asserts it learns from the command line, the event
//! stream, or files that the jobs themselves wrote. Nothing here sleeps or
//! polls: readiness is the daemons' own notification, progress is an event.

mod agent;
mod api;
mod around;
mod binaries;
mod cli;
mod coordinator;
mod daemon;
mod events;
mod leftovers;
mod network;
mod ordinary;
mod relay;
mod scripts;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use agent::{Agent, BuilderPlan};
pub use api::Api;
pub use around::{Around, Recorder};
pub use binaries::Binaries;
pub use cli::{Cli, Said, text};
pub use coordinator::{Coordinator, CoordinatorPlan, StoreHold};
pub use daemon::{Daemon, Exit};
pub use events::{Entry, Events};
pub use network::{Host, Network, Plug};
pub use ordinary::Ordinary;
pub use relay::Relay;
pub use scripts::write_script;

/// Longer than anything a story waits for takes on a busy machine; shorter
/// than the test runner's own patience.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A coordinator, its agents, and the directory that holds all they write.
#[derive(Debug)]
pub struct TestFarm {
    // Daemons stop before the directory goes.
    pub agents: Vec<Agent>,
    pub coordinator: Coordinator,
    directory: tempfile::TempDir,
    binaries: Binaries,
}

impl TestFarm {
    /// A running coordinator without agents.
    #[must_use]
    pub fn start() -> Self {
        Self::start_as(&CoordinatorPlan::default())
    }

    /// # Panics
    /// If the coordinator does not come up: nothing can be tested then.
    #[must_use]
    pub fn start_as(plan: &CoordinatorPlan) -> Self {
        let binaries = Binaries::built();
        let directory = tempfile::Builder::new()
            .prefix("farmbell-test-")
            .tempdir()
            .expect("a temporary directory can be made");
        let coordinator =
            Coordinator::start(&binaries, &directory.path().join("coordinator"), plan);
        Self {
            agents: Vec::new(),
            coordinator,
            directory,
            binaries,
        }
    }

    /// A coordinator and one agent with one builder that runs commands.
    #[must_use]
    pub fn with_one_builder() -> Self {
        let mut farm = Self::start();
        farm.add_agent("a1", &[BuilderPlan::named("b1")]);
        farm
    }

    /// Joins an agent by a fresh token and waits until all its builders are
    /// proved clean.
    pub fn add_agent(&mut self, name: &str, builders: &[BuilderPlan]) -> &mut Agent {
        self.add_agent_inside(None, name, builders)
    }

    /// The same, inside of something.
    pub fn add_agent_inside(
        &mut self,
        around: Option<Around>,
        name: &str,
        builders: &[BuilderPlan],
    ) -> &mut Agent {
        let mut events = self.coordinator.events();
        let token = self.coordinator.cli().token(&[]);
        let mut agent = Agent::prepare(&self.binaries, &self.path().join(name), name, builders);
        agent.around = around;
        agent.hand_over();
        agent.join(&token).succeeds();
        agent.start();
        for _ in builders.iter().filter(|builder| builder.becomes_clean()) {
            events.next_of("builder.clean");
        }
        self.agents.push(agent);
        self.agents.last_mut().expect("one was pushed just now")
    }

    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The directory of this farm, for files that jobs and stories share.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[must_use]
    pub fn cli(&self) -> Cli {
        self.coordinator.cli()
    }

    /// A connection to the API, for measurements.
    ///
    /// # Panics
    /// If the coordinator is not there.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::connect(&self.coordinator.socket()).expect("a running coordinator listens")
    }

    #[must_use]
    pub fn events(&self) -> Events {
        self.coordinator.events()
    }
}

impl Drop for TestFarm {
    #[expect(
        clippy::print_stderr,
        reason = "a failed story says where its files are"
    )]
    fn drop(&mut self) {
        for agent in &mut self.agents {
            agent.daemon.kill();
        }
        self.coordinator.daemon.kill();
        leftovers::end(self.directory.path());
        if std::thread::panicking() {
            let kept = std::mem::replace(
                &mut self.directory,
                tempfile::tempdir().expect("a temporary directory can be made"),
            )
            .keep();
            eprintln!("the farm's files and logs are kept in {}", kept.display());
        }
    }
}
