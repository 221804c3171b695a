//! The barrage: a thread that sends signals, round by round, to every daemon
//! of a farm. Owns which signals, and the look into what supervisors note,
//! since their logs go with their attempts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{is_cut_short, processes};

/// None of them is an order to a daemon. The last two together cut calls short
/// even where nothing handles a signal.
const SIGNALS: [Signal; 5] = [
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGSTOP,
    Signal::SIGCONT,
];
/// Between two rounds, so that the daemons get to work at all.
const PAUSE: Duration = Duration::from_millis(2);

/// A barrage that goes on until it is told to end.
pub(super) struct Barrage {
    end: mpsc::Sender<()>,
    thread: JoinHandle<Fired>,
}

/// What it did and saw.
#[derive(Default)]
pub(super) struct Fired {
    pub(super) signals: BTreeMap<String, u32>,
    pub(super) cut_short: Vec<String>,
}

impl Barrage {
    pub(super) fn begin(directory: &Path) -> Self {
        let (end, ended) = mpsc::channel();
        let directory: PathBuf = directory.to_owned();
        let thread = std::thread::spawn(move || {
            let mut fired = Fired::default();
            while ended.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Timeout) {
                for daemon in processes::daemons(&directory) {
                    fired.fire_at(daemon);
                }
            }
            fired
        });
        Self { end, thread }
    }

    pub(super) fn end(self) -> Fired {
        drop(self.end);
        self.thread.join().expect("the barrage does not panic")
    }
}

impl Fired {
    fn fire_at(&mut self, pid: Pid) {
        for signal in SIGNALS {
            match kill(pid, signal) {
                Ok(()) => *self.signals.entry(signal.to_string()).or_default() += 1,
                // It ended by itself.
                Err(Errno::ESRCH) => return,
                Err(errno) => panic!("{pid} takes no {signal}: {errno}"),
            }
        }
        // Where its standard error goes: its log. It may be gone by now.
        let log = fs::read(format!("/proc/{pid}/fd/2")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter(|line| is_cut_short(line));
        for line in lines {
            let line = format!("a daemon's log: {line}");
            if !self.cut_short.contains(&line) {
                self.cut_short.push(line);
            }
        }
    }
}
