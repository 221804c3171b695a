//! The launcher as a process of its own, in a unit that no upgrade restarts:
//! what it starts belongs to its unit's control group and not to the agent's.
//! Owns both ends of that conversation. It guards nothing: both ends are the
//! same user, and the launcher refuses others.
//!
//! The agent connects, writes the path of an attempt's prepared directory and
//! closes its half; the answer is empty, or says why nothing was started. The
//! supervisor is the program of whoever asks, so that a launcher which an
//! upgrade left running starts the new one.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use super::start_supervisor;
use crate::attempt::AttemptDir;
use crate::groups;

/// Where the package's unit listens.
const USUAL_SOCKET: &str = "/run/farmbell-agent/launcher";
/// More than any path of a directory.
const REQUEST_MAX: u64 = 4096;
/// Starting a process takes milliseconds; a machine under load takes more.
const PATIENCE: Duration = Duration::from_secs(10);
/// A thread that only waits for a child needs next to nothing.
const WAITER_STACK: usize = 64 << 10;

/// The agent's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    socket: PathBuf,
    /// The launcher's control group in the version 2 tree, from its root.
    pub(crate) group: Option<PathBuf>,
}

impl Unit {
    /// The launcher behind `socket`; without one, the package's if it is there
    /// and ours. `None` where the agent launches by itself.
    ///
    /// # Errors
    /// If there is one and it does not answer.
    pub(crate) fn find(socket: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let usual = Path::new(USUAL_SOCKET);
        let ours = |path: &Path| {
            std::fs::metadata(path).is_ok_and(|meta| meta.uid() == geteuid().as_raw())
        };
        let Some(socket) = socket.or_else(|| ours(usual).then_some(usual)) else {
            return Ok(None);
        };
        let stream = UnixStream::connect(socket).with_context(|| {
            let socket = socket.display();
            format!("no launcher answers on {socket}; type: systemctl restart farmbell-launcher")
        })?;
        let peer = getsockopt(&stream, PeerCredentials)?;
        Ok(Some(Self {
            socket: socket.to_owned(),
            group: groups::home_of(peer.pid()),
        }))
    }

    /// Has the supervisor of a prepared attempt started.
    ///
    /// # Errors
    /// If nothing was started.
    pub(super) fn start(&self, dir: &AttemptDir) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(dir.root().as_os_str().as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut refused = String::new();
        stream.read_to_string(&mut refused)?;
        if refused.is_empty() {
            Ok(())
        } else {
            Err(io::Error::other(refused))
        }
    }
}

/// Serves until it is killed; what it started goes on.
///
/// # Errors
/// If it cannot listen any more.
pub(crate) fn serve(socket: Option<&Path>) -> anyhow::Result<std::convert::Infallible> {
    let socket = socket.unwrap_or_else(|| Path::new(USUAL_SOCKET));
    if let Err(error) = groups::settle() {
        tracing::warn!(%error, "no control group of its own: limits are not enforced");
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| socket.display().to_string());
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("{} cannot be listened on", socket.display()))?;
    crate::run::tell_ready();
    loop {
        let (stream, _) = listener.accept().context("no more connections")?;
        if let Err(error) = answer(stream) {
            tracing::warn!(%error, "a request was not served");
        }
    }
}

fn answer(mut stream: UnixStream) -> io::Result<()> {
    let peer = getsockopt(&stream, PeerCredentials)?;
    if peer.uid() != geteuid().as_raw() {
        return refuse(&mut stream, "this launcher serves its own user only");
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut path = Vec::new();
    (&mut stream).take(REQUEST_MAX).read_to_end(&mut path)?;
    if path.is_empty() {
        // Whoever only looked for us.
        return Ok(());
    }
    let dir = AttemptDir::at(PathBuf::from(std::ffi::OsString::from_vec(path)));
    match launch(&dir, peer) {
        Ok(()) => Ok(()),
        Err(error) => refuse(&mut stream, error),
    }
}

fn refuse(stream: &mut UnixStream, why: impl fmt::Display) -> io::Result<()> {
    stream.write_all(why.to_string().as_bytes())
}

fn launch(dir: &AttemptDir, peer: UnixCredentials) -> io::Result<()> {
    let program = format!("/proc/{}/exe", peer.pid());
    let mut child = start_supervisor(dir, Path::new(&program))?.spawn()?;
    std::thread::Builder::new()
        .stack_size(WAITER_STACK)
        .spawn(move || match child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!(%status, "a supervisor failed"),
            Err(error) => tracing::warn!(%error, "a supervisor was not waited for"),
        })
        .map(drop)
}
