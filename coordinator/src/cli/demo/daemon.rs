//! A daemon of the demo's, as a child process. Owns its readiness (the daemon
//! says so, as it would to systemd) and its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anstream::println;
use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longer than a first start takes on a small board.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What is asked to end and does not is killed: nothing in a demo is precious.
/// A build has 10 s to heed the request itself.
const STOP_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Daemon {
    name: &'static str,
    child: Child,
}

impl Daemon {
    /// Starts it and waits until it is ready. Its log goes to `directory`.
    pub(super) async fn start(
        name: &'static str,
        mut command: Command,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let notices = Notices::bind(directory.join(format!("{name}.notify")))?;
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        println!("starting the {name}; its log is {}", log.display());
        let child = command
            .env("NOTIFY_SOCKET", &notices.path)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is for the demo, which stops its daemons in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let mut daemon = Self { name, child };
        tokio::select! {
            ready = timeout(READY_WITHIN, notices.ready()) => {
                ready.with_context(|| format!("the {name} does not get ready: see {}", log.display()))??;
            }
            ended = daemon.ended() => {
                bail!("the {name} ended at once ({}):\n{}", ended?, std::fs::read_to_string(&log)?);
            }
        }
        Ok(daemon)
    }

    pub(super) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.child.wait().await;
        status.with_context(|| format!("cannot wait for the {}", self.name))
    }

    /// Asks it to end in the way this signal means, and waits.
    pub(super) async fn stop(mut self, how: Signal) -> anyhow::Result<()> {
        let Some(id) = self.child.id() else {
            return Ok(());
        };
        kill(Pid::from_raw(i32::try_from(id)?), how)
            .with_context(|| format!("cannot stop the {}", self.name))?;
        match timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(status) => {
                status.with_context(|| format!("cannot wait for the {}", self.name))?;
            }
            Err(_too_long) => self.child.kill().await?,
        }
        println!("stopped the {}", self.name);
        Ok(())
    }
}

/// Where a daemon says that it is ready.
struct Notices {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notices {
    fn bind(path: PathBuf) -> anyhow::Result<Self> {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => bail!("cannot remove {}: {error}", path.display()),
        }
        let socket = UnixDatagram::bind(&path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        Ok(Self { socket, path })
    }

    async fn ready(&self) -> std::io::Result<()> {
        let mut notice = [0; 4096];
        loop {
            let length = self.socket.recv(&mut notice).await?;
            if notice[..length]
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                return Ok(());
            }
        }
    }
}
