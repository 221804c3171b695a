//! The supervisor: one small process per attempt, in a session of its own and
//! without an async runtime, that starts the recipe, owns its process tree,
//! stores its log and writes its exit record. It outlives the agent.
//!
//! ```text
//!  started ──recipe ends──────────────▶ killing ──no children──▶ ended
//!     └─order, limit, SIGTERM─▶ ending ──grace──▲
//! ```
//!
//! It is started with the lock as standard input, its listening socket as
//! standard output and its own log as standard error, so none of the three
//! has a moment in which it does not exist. Invariants: the lock is held for
//! all its life; "ended" is told only after the tree is proved empty and the
//! exit record is durable.

mod clients;
mod ending;
mod log;
mod pace;
mod rlimits;
mod start;
pub mod talk;
mod tree;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::outcome::ExitStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::attempt::{AttemptDir, Request, directory_name};
use crate::mask::Masker;
use clients::Clients;
use ending::{Cause, Ending};
use log::Log;
use pace::Pace;
use talk::Order;
use tree::Tree;

/// The hidden subcommand that this is.
pub const SUBCOMMAND: &str = "supervise";
/// Niceness of a build and its supervisor, as of Debian's own build daemons:
/// what starts the next build and hears of this one does not wait for it.
const BUILD_NICE: i32 = 10;
/// Bytes of log taken at once: on the stack, which counts once per attempt.
const READ_BYTES: usize = 16 << 10;
/// Reads in a row, some milliseconds at the slowest: orders wait no longer.
const READS_MAX: usize = 64;
/// A build that runs longer than this is moved into its control group. A
/// short one ends before the move would pay.
const GROUP_AFTER: Duration = Duration::from_millis(100);

/// Supervises the attempt in `dir` to its end.
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    match supervise(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line into the supervisor's own log, which is its standard error.
#[expect(
    clippy::print_stderr,
    reason = "standard error is the supervisor's log"
)]
fn note(line: &str) {
    eprintln!("{line}");
}

fn supervise(dir: &Path) -> anyhow::Result<()> {
    std::env::set_current_dir(dir).context("the attempt's directory is gone")?;
    nix::unistd::setsid().context("no session of its own")?;
    nix::sys::prctl::set_child_subreaper(true).context("not a sub-reaper")?;
    if let Err(error) = rustix::process::nice(BUILD_NICE) {
        note(&format!("it is no nicer than the agent: {error}"));
    }
    let signals = handled_signals();
    signals
        .thread_block()
        .context("signals cannot be blocked")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&signals, flags).context("no signal descriptor")?;
    let listener = io::stdout().as_fd().try_clone_to_owned()?;
    let clients = Clients::new(UnixListener::from(listener)).context("no socket to listen on")?;
    let dir = AttemptDir::at(dir.to_owned());
    let request = dir.read_request().context("the request cannot be read")?;
    Supervisor::new(dir, request, signals, clients)?.run()
}

fn handled_signals() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect()
}

struct Supervisor {
    dir: AttemptDir,
    request: Request,
    signals: SignalFd,
    clients: Clients,
    log: Log,
    tree: Tree,
    output: Option<OwnedFd>,
    pace: Pace,
    recipe: Option<Pid>,
    exit: Option<ExitStatus>,
    ending: Ending,
    began: Instant,
    wrote_at: Instant,
}

impl Supervisor {
    fn new(
        dir: AttemptDir,
        request: Request,
        signals: SignalFd,
        clients: Clients,
    ) -> anyhow::Result<Self> {
        let masker = Masker::new(secret_values(&request)?);
        let log = Log::create(&dir.log(), request.bounds.log_bytes, masker)
            .context("the log cannot be created")?;
        let name = directory_name(request.attempt);
        let tree = Tree::new(request.group.as_ref().map(|place| place.group(&name)));
        let now = Instant::now();
        Ok(Self {
            dir,
            signals,
            clients,
            log,
            tree,
            output: None,
            pace: Pace::new(now),
            recipe: None,
            exit: None,
            ending: Ending::default(),
            began: now,
            wrote_at: now,
            request,
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        // Whoever was told to end before anything ran is not started at all.
        self.take_orders(Instant::now())?;
        if self.ending.is_not_begun() {
            self.start();
        }
        let named = self.dir.keep_names();
        while !self.is_over()? {
            self.wait()?;
            let now = Instant::now();
            self.take_orders(now)?;
            self.read_output(now)?;
            self.read_signals(now)?;
            self.keep_deadlines(now)?;
            self.clients.flush();
        }
        named.context("the attempt's files cannot be made durable")?;
        self.finish()
    }

    fn start(&mut self) {
        // The recipe inherits the mask, and is to hear what it is told. What
        // ends meanwhile is seen by the first look at the children.
        let heard = handled_signals().thread_unblock();
        let started = start::start(&self.dir, &self.request, &mut self.tree);
        if let Err(errno) = heard.and_then(|()| handled_signals().thread_block()) {
            note(&format!("signals cannot be blocked: {errno}"));
        }
        match started {
            Ok(started) => {
                self.recipe = Some(started.pid);
                self.output = Some(started.output);
                self.clients.started();
            }
            Err(error) => self.ending.not_started(&self.request, &error),
        }
    }

    /// The tree is empty once `wait` has no children to wait for.
    fn is_over(&mut self) -> anyhow::Result<bool> {
        let mut some_ended = false;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {
                    // What is left of a tree that is being killed shows now.
                    if some_ended && self.ending.is_killing() {
                        self.tree.kill();
                    }
                    return Ok(false);
                }
                Ok(WaitStatus::Exited(pid, code)) => {
                    let code = u8::try_from(code).unwrap_or(u8::MAX);
                    self.reaped(pid, ExitStatus::Code(code));
                    some_ended = true;
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    let number = u8::try_from(signal as i32).unwrap_or(u8::MAX);
                    self.reaped(pid, ExitStatus::Signal(number));
                    some_ended = true;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(true),
                Err(errno) => return Err(errno).context("children cannot be waited for"),
            }
        }
    }

    /// Once the recipe itself is over, what it left behind has no claim.
    fn reaped(&mut self, pid: Pid, status: ExitStatus) {
        if self.recipe == Some(pid) {
            self.exit = Some(status);
            self.ending.kill_now(Instant::now());
        }
    }

    /// Sleeps until something happens or a deadline passes.
    fn wait(&self) -> anyhow::Result<()> {
        let now = Instant::now();
        let held = self.pace.waits_until(now);
        let timeout = match self.next_deadline().into_iter().chain(held).min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(now);
                // Rounded up, so that a deadline is never met early and again.
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = vec![
            readable(self.signals.as_fd()),
            readable(self.clients.listener()),
        ];
        if held.is_none() {
            fds.extend(self.output.iter().map(|output| readable(output.as_fd())));
        }
        for (socket, writes) in self.clients.sockets() {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, writes);
            fds.push(PollFd::new(socket, events));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("poll fails"),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let limits = self.ending.is_not_begun().then(|| {
            let total = after(self.began, self.request.bounds.total_ms);
            let silence = after(self.wrote_at, self.request.bounds.silence_ms);
            let group = self.tree.wants_grouping().then(|| self.began + GROUP_AFTER);
            [total, silence, group].into_iter().flatten().min()
        });
        [
            limits.flatten(),
            self.ending.deadline(),
            self.log.flush_at(),
            self.clients.log_notice_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn keep_deadlines(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.ending.is_not_begun() {
            self.keep_limits(now);
        }
        if self.ending.kill_is_due(now) {
            self.ending.kill_now(now);
            self.tree.kill();
        }
        if let Some(why) = self.ending.give_up(now) {
            note(why.as_str());
            self.clients.unkillable(why);
        }
        if self.log.flush_at().is_some_and(|at| now >= at) {
            self.log.flush().context("the log cannot be flushed")?;
        }
        self.clients.tell_log_if_due(now);
        Ok(())
    }

    fn keep_limits(&mut self, now: Instant) {
        let bounds = self.request.bounds;
        if after(self.began, bounds.total_ms).is_some_and(|at| now >= at) {
            let why = format!("it ran longer than its limit of {} ms", bounds.total_ms);
            self.end(Cause::Limit(Reason::cut(why)), now);
        } else if after(self.wrote_at, bounds.silence_ms).is_some_and(|at| now >= at) {
            let why = format!("it wrote nothing for its limit of {} ms", bounds.silence_ms);
            self.end(Cause::Limit(Reason::cut(why)), now);
        } else if self.tree.wants_grouping() && now >= self.began + GROUP_AFTER {
            self.tree.enter_group();
        }
    }

    fn take_orders(&mut self, now: Instant) -> anyhow::Result<()> {
        self.clients.accept().context("the socket fails")?;
        for order in self.clients.orders() {
            self.order(order, now);
        }
        Ok(())
    }

    fn order(&mut self, order: Order, now: Instant) {
        let (cause, grace_ms) = match order {
            Order::Stop { grace_ms } => (Cause::Asked, grace_ms),
            Order::Leave { grace_ms } => (Cause::GoingDown, grace_ms),
        };
        let kill_at = now + Duration::from_millis(grace_ms);
        if self.ending.begin(cause, kill_at) {
            self.tree.terminate();
        }
        self.ending.shorten(kill_at);
        if self.ending.kill_is_due(now) {
            self.ending.kill_now(now);
            self.tree.kill();
        }
    }

    /// Asks the tree to end; the first cause stands.
    fn end(&mut self, cause: Cause, now: Instant) {
        let grace = Duration::from_millis(self.request.bounds.grace_ms);
        if self.ending.begin(cause, now + grace) {
            self.tree.terminate();
        }
    }

    fn read_signals(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(signal) = self.signals.read_signal().context("signals fail")? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if number == Signal::SIGTERM as i32 {
                self.end(Cause::GoingDown, now);
            }
        }
        Ok(())
    }

    fn read_output(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.pace.waits_until(now).is_none()
            && let Some(output) = self.output.take()
            && self.take_what_waits(&output, now)?
        {
            self.output = Some(output);
        }
        Ok(())
    }

    /// What waits in a full pipe is taken in one go: a look at everything else
    /// for each piece would cost a flood most of its speed. `false` at its end.
    fn take_what_waits(&mut self, output: &OwnedFd, now: Instant) -> anyhow::Result<bool> {
        let mut bytes = [0; READ_BYTES];
        for _ in 0..READS_MAX {
            match nix::unistd::read(output, &mut bytes) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.wrote_at = now;
                    self.store(&bytes[..count], now)?;
                    self.pace.took(count, now);
                    if count < READ_BYTES {
                        break;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(errno) => return Err(errno).context("the output cannot be read"),
            }
        }
        Ok(true)
    }

    fn store(&mut self, bytes: &[u8], now: Instant) -> anyhow::Result<()> {
        self.log
            .feed(bytes, now)
            .context("the log cannot be written")?;
        self.clients.log_grew(self.log.length(), now);
        Ok(())
    }

    /// The tree is empty: what is left in the pipe, the record, the news.
    fn finish(mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.drain_output(now)?;
        let record = self.exit_record(now)?;
        self.dir
            .keep_exit(&record)
            .context("the exit record cannot be written")?;
        self.clients.accept().context("the socket fails")?;
        self.clients.log_ended(record.log.length);
        self.clients.ended();
        Ok(())
    }

    /// Somebody outside the tree may hold the pipe open: what is in it now is
    /// all there will be.
    fn drain_output(&mut self, now: Instant) -> anyhow::Result<()> {
        let Some(output) = self.output.take() else {
            return Ok(());
        };
        let mut bytes = [0; READ_BYTES];
        // No more than the pipe can hold: a stranger may write on.
        for _ in 0..=(1 << 20) / READ_BYTES {
            match nix::unistd::read(&output, &mut bytes) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(count) => self.store(&bytes[..count], now)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("the output cannot be read"),
            }
        }
        Ok(())
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// A limit of 0 means none.
fn after(start: Instant, milliseconds: u64) -> Option<Instant> {
    (milliseconds > 0).then(|| start + Duration::from_millis(milliseconds))
}

fn secret_values(request: &Request) -> anyhow::Result<Vec<Vec<u8>>> {
    request
        .secrets
        .iter()
        .map(|path| {
            let mut value = Vec::new();
            File::open(path)
                .and_then(|mut file| file.read_to_end(&mut value))
                .with_context(|| format!("the secret {} cannot be read", path.display()))?;
            let end = value.trim_ascii_end().len();
            value.truncate(end);
            Ok(value)
        })
        .collect()
}
