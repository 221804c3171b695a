//! One daemon as a child process. Owns its readiness, its signals and its end;
//! its log goes to a file. A daemon is ready when it says so itself, as it
//! would to systemd.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;

#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: PathBuf,
    notify: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    exit: Arc<Exit>,
}

/// The end of a process, once it is known.
#[derive(Debug, Default)]
pub struct Exit {
    status: Mutex<Option<ExitStatus>>,
    known: Condvar,
}

impl Daemon {
    /// Not started yet; its log and notifications go to `directory`.
    ///
    /// # Panics
    /// If the directory cannot be made.
    #[must_use]
    pub fn new(name: &str, directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("a daemon's directory can be made");
        Self {
            name: name.to_owned(),
            log: directory.join(format!("{name}.log")),
            notify: directory.join(format!("{name}.notify")),
            running: None,
        }
    }

    /// Starts the process and waits until it says that it is ready.
    ///
    /// # Panics
    /// If it ends or keeps silent instead.
    pub fn start(&mut self, command: Command) {
        let ready = self.try_start(command);
        assert!(
            ready,
            "{} ended at its start:\n{}",
            self.name,
            self.log_tail()
        );
    }

    /// As [`start`](Self::start); false when the process ended instead.
    ///
    /// # Panics
    /// If it keeps silent.
    pub fn try_start(&mut self, command: Command) -> bool {
        let notices = self.start_only(command);
        match wait_until_ready(&notices, PATIENCE) {
            Readiness::Ready => true,
            Readiness::Ended => {
                self.wait(PATIENCE);
                false
            }
            Readiness::Silent => panic!("{} is not ready:\n{}", self.name, self.log_tail()),
        }
    }

    /// Starts the process and does not wait.
    ///
    /// # Panics
    /// If it is running already or cannot be started.
    pub fn start_only(&mut self, mut command: Command) -> UnixDatagram {
        assert!(self.running.is_none(), "{} is running already", self.name);
        remove_if_there(&self.notify);
        let notices = UnixDatagram::bind(&self.notify).expect("the notify socket can be bound");
        let log = File::options()
            .append(true)
            .create(true)
            .open(&self.log)
            .expect("the log of a daemon can be opened");
        command
            .env("NOTIFY_SOCKET", &self.notify)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        let child = command.spawn().expect("a daemon can be started");
        let exit = Arc::new(Exit::default());
        self.running = Some(Running {
            pid: pid_of(&child),
            exit: exit.clone(),
        });
        let notify = self.notify.clone();
        std::thread::spawn(move || reap(child, &exit, &notify));
        notices
    }

    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// Ends the process at once, as a power button would, and waits until it
    /// is gone. Nothing happens when it does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(PATIENCE);
    }

    /// Sends a signal; nothing happens when the process has ended.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            running.exit.unless_over(|| kill(running.pid, signal));
        }
    }

    /// Waits for the process to end by itself; the next start may follow.
    ///
    /// # Panics
    /// If it goes on for longer than `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let running = self.running.take()?;
        let status = running.exit.wait(patience);
        assert!(
            status.is_some(),
            "{} does not end:\n{}",
            self.name,
            self.log_tail()
        );
        status
    }

    /// Waits for the process to end by itself, or gives up: it goes on then.
    pub fn wait_at_most(&mut self, patience: Duration) -> Option<ExitStatus> {
        let status = self.running.as_ref()?.exit.wait(patience)?;
        self.running = None;
        Some(status)
    }

    /// All that the daemon wrote, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        match std::fs::read(&self.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(running) = self.running.take() {
            running.exit.wait(PATIENCE);
        }
    }
}

impl Exit {
    /// The status, or nothing after `patience`.
    pub fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let status = self.status.lock().expect("no holder panics");
        let (status, _) = self
            .known
            .wait_timeout_while(status, patience, |status| status.is_none())
            .expect("no holder panics");
        *status
    }

    /// Runs `act` while the process is surely not reaped, so that its number
    /// is still its own.
    fn unless_over(&self, act: impl FnOnce() -> nix::Result<()>) {
        let status = self.status.lock().expect("no holder panics");
        if status.is_none() {
            // The process may be a zombie already; then there is nobody to hear it.
            if let Err(error) = act() {
                assert_eq!(error, nix::errno::Errno::ESRCH, "a child can be signalled");
            }
        }
    }

    fn set(&self, status: ExitStatus) {
        *self.status.lock().expect("no holder panics") = Some(status);
        self.known.notify_all();
    }
}

enum Readiness {
    Ready,
    Ended,
    Silent,
}

const ENDED: &[u8] = b"X_ENDED=1";

fn wait_until_ready(notices: &UnixDatagram, patience: Duration) -> Readiness {
    let until = Instant::now() + patience;
    let mut notice = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Readiness::Silent;
        }
        notices
            .set_read_timeout(Some(left))
            .expect("a positive timeout is accepted");
        let length = match notices.recv(&mut notice) {
            Ok(length) => length,
            // A thread that was frozen and thawed hears of it here: a wait with
            // a timeout is not begun anew by the kernel.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Readiness::Silent,
        };
        if &notice[..length] == ENDED {
            return Readiness::Ended;
        }
        if notice[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            return Readiness::Ready;
        }
    }
}

fn reap(mut child: Child, exit: &Exit, notify: &Path) {
    let status = child.wait().expect("a child can be waited for");
    // Whoever still waits for readiness learns of the end; often nobody does.
    // Before the end is known: after that the next life may listen here.
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(ENDED, notify));
    drop(told);
    exit.set(status);
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process numbers fit"))
}

fn remove_if_there(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => panic!("{}: {error}", path.display()),
    }
}
