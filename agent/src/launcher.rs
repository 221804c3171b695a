//! The launcher: the only one that starts supervisors and reset scripts, and
//! that ends what a dead supervisor left behind. A seam of few typed requests
//! that name configured things, never paths or argument lists, so that a root
//! process without network can stand behind it. Here: in the agent itself, or
//! with only the start of supervisors in a process of its own (`unit.rs`).
//!
//! Owns how a supervisor comes to life: its lock, its socket and its log exist
//! before it does and are handed over, so no crash of the agent leaves an
//! attempt that is started and not locked.

mod stray;
pub(crate) mod unit;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::ResetStage;
use farmbell_protocol::bounded::Name;
use farmbell_protocol::id::AttemptId;

use crate::attempt::{AttemptDir, directory_name, emptied};
use crate::config::Script;
use crate::failpoint::{self, Failpoint};
use crate::groups::Place;
use crate::script::{self, ScriptReport};
use crate::supervisor;
use unit::Unit;

/// What is left of a build whose supervisor died must be gone by then.
const CLEAR_PATIENCE: Duration = Duration::from_secs(10);

/// What the launcher answers with when there is waiting in it.
pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The requests. Those without an [`Answer`] may block.
pub(crate) trait Launcher: Send + Sync + 'static {
    /// Starts the supervisor of an attempt whose directory is prepared.
    ///
    /// # Errors
    /// If nothing was started.
    fn start(&self, builder: &Name, attempt: AttemptId) -> io::Result<UnixStream>;

    /// The line to a supervisor that runs.
    ///
    /// # Errors
    /// If nobody listens there.
    fn connect(&self, builder: &Name, attempt: AttemptId) -> io::Result<UnixStream>;

    /// Ends what a dead supervisor left and proves it gone; `false` where
    /// nothing can prove it.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn clear(&self, builder: &Name, attempt: AttemptId) -> io::Result<bool>;

    /// Runs a builder's reset or probe, if it has one.
    fn script(&self, builder: &Name, stage: ResetStage) -> Answer<Option<ScriptReport>>;
}

/// The launcher inside the agent: no privilege beyond the agent's own.
#[derive(Debug)]
pub(crate) struct InProcess {
    work: PathBuf,
    scripts: BTreeMap<Name, Scripts>,
    place: Place,
    /// Who starts supervisors, where that is another process.
    unit: Option<Unit>,
}

/// A builder's scripts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripts {
    pub(crate) reset: Option<Script>,
    pub(crate) probe: Option<Script>,
}

impl InProcess {
    pub(crate) fn new(
        work: PathBuf,
        scripts: BTreeMap<Name, Scripts>,
        place: Place,
        unit: Option<Unit>,
    ) -> Self {
        Self {
            work,
            scripts,
            place,
            unit,
        }
    }

    fn dir(&self, builder: &Name, attempt: AttemptId) -> AttemptDir {
        AttemptDir::of(&self.work.join(builder.as_str()), attempt)
    }
}

impl Launcher for InProcess {
    fn start(&self, builder: &Name, attempt: AttemptId) -> io::Result<UnixStream> {
        let dir = self.dir(builder, attempt);
        let stream = match &self.unit {
            Some(unit) => {
                unit.start(&dir)?;
                match self.connect(builder, attempt) {
                    // It has ended already: whoever listens is told at once,
                    // and reads its exit record.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        let (stream, _gone) = UnixStream::pair()?;
                        stream
                    }
                    connected => connected?,
                }
            }
            None => {
                // The running program itself, even where an upgrade has replaced its file.
                let supervisor = start_supervisor(&dir, Path::new("/proc/self/exe"))?;
                // Before it runs: a short build's supervisor may be gone again
                // by the time that anybody could ask for it.
                let stream = self.connect(builder, attempt)?;
                spawn(supervisor, attempt)?;
                stream
            }
        };
        failpoint::pass(Failpoint::SupervisorStarted);
        Ok(stream)
    }

    fn connect(&self, builder: &Name, attempt: AttemptId) -> io::Result<UnixStream> {
        let root = File::open(self.dir(builder, attempt).root())?;
        UnixStream::connect(socket_in(&root))
    }

    fn clear(&self, builder: &Name, attempt: AttemptId) -> io::Result<bool> {
        let name = directory_name(attempt);
        tracing::debug!(%builder, %attempt, "ending what a dead supervisor left");
        let group = self.place.group(&name);
        let proved = group.kill_and_prove(CLEAR_PATIENCE)?;
        // Whatever never reached its group is found by its environment.
        let found = stray::kill_all(&name)?;
        group.remove();
        Ok(proved || (!found && !self.dir(builder, attempt).has_begun()?))
    }

    fn script(&self, builder: &Name, stage: ResetStage) -> Answer<Option<ScriptReport>> {
        let script = self.scripts.get(builder).and_then(|scripts| match stage {
            ResetStage::Reset => scripts.reset.clone(),
            ResetStage::Probe => scripts.probe.clone(),
        });
        Box::pin(async move {
            match script {
                Some(script) => Some(script::run(&script).await),
                None => None,
            }
        })
    }
}

/// A supervisor ready to be started: the locked directory, its socket and log
/// are there and handed over.
fn start_supervisor(dir: &AttemptDir, program: &Path) -> io::Result<Command> {
    let root = dir.open()?;
    root.try_lock().map_err(io::Error::from)?;
    let listener = UnixListener::bind(socket_in(&root))?;
    let log = emptied(&dir.supervisor_log())?;
    failpoint::pass(Failpoint::Prepared);
    let mut command = Command::new(program);
    command
        .arg(supervisor::SUBCOMMAND)
        .arg(dir.root())
        .env_clear()
        .stdin(Stdio::from(root))
        .stdout(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::from(log));
    Ok(command)
}

fn spawn(command: Command, attempt: AttemptId) -> io::Result<()> {
    let mut child = tokio::process::Command::from(command).spawn()?;
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!(%attempt, %status, "a supervisor failed"),
            Err(error) => tracing::warn!(%attempt, %error, "a supervisor was not waited for"),
        }
    });
    Ok(())
}

/// The socket's path by way of its directory's handle: a socket's path may
/// have 107 bytes only, a state directory more.
fn socket_in(root: &File) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(root.as_raw_fd().to_string())
        .join("socket")
}

/// Drops an attempt's directory and its groups.
///
/// # Errors
/// If something of it stays.
pub(crate) fn remove(dir: &AttemptDir, place: &Place, attempt: AttemptId) -> io::Result<()> {
    place.group(&directory_name(attempt)).remove();
    crate::places::remove_tree(dir.root())?;
    failpoint::pass(Failpoint::Released);
    match dir.root().parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
