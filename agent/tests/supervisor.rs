//! Supervisors with real processes: started as the agent starts them, asked as
//! the agent asks them, and looked at only through what they leave.
#![expect(
    clippy::unwrap_used,
    reason = "what these stories are told with is test code too"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farmbell_agent::attempt::{AttemptDir, Bounds, ExitRecord, Found, Request};
use farmbell_agent::groups::Place;
use farmbell_agent::supervisor::talk::{self, Notice, Order};
use farmbell_protocol::id::{AttemptId, JobId};
use farmbell_protocol::outcome::{ExitStatus, FailureKind, Outcome};

struct Attempt {
    dir: AttemptDir,
    request: Request,
    _place: tempfile::TempDir,
}

struct Running {
    dir: AttemptDir,
    child: Child,
    line: UnixStream,
    inbox: Vec<u8>,
}

impl Attempt {
    fn of(script: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let dir = AttemptDir::at(place.path().join("attempt"));
        fs::create_dir(dir.root()).unwrap();
        fs::create_dir(dir.workspace()).unwrap();
        let attempt = AttemptId {
            job: JobId(1),
            generation: 1,
            number: 1,
            nonce: 5,
        };
        let path = ("PATH".to_owned(), std::env::var("PATH").unwrap());
        let reason = dir.reason().to_str().unwrap().to_owned();
        let request = Request {
            attempt,
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            environment: vec![path, ("FARMBELL_REASON".to_owned(), reason)],
            argv_is_the_jobs: true,
            bounds: Bounds {
                grace_ms: 60_000,
                ..Bounds::default()
            },
            secrets: Vec::new(),
            group: None,
        };
        Self {
            dir,
            request,
            _place: place,
        }
    }

    fn start(&self) -> Running {
        self.start_after(&[])
    }

    fn start_with_order(&self, order: Order) -> Running {
        let mut bytes = Vec::new();
        talk::write(&order, &mut bytes);
        self.start_after(&bytes)
    }

    /// Starts with these bytes waiting for the supervisor already.
    fn start_after(&self, said: &[u8]) -> Running {
        self.dir.keep_request(&self.request).unwrap();
        let lock = self.dir.open().unwrap();
        lock.try_lock().unwrap();
        let socket = self.dir.root().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut line = UnixStream::connect(&socket).unwrap();
        line.write_all(said).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_farmbell-agent"))
            .arg("supervise")
            .arg(self.dir.root())
            .stdin(Stdio::from(lock))
            .stdout(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        line.set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Running {
            dir: self.dir.clone(),
            child,
            line,
            inbox: Vec::new(),
        }
    }

    fn run(&self) -> ExitRecord {
        self.start().end()
    }

    fn log(&self) -> String {
        String::from_utf8(fs::read(self.dir.log()).unwrap()).unwrap()
    }
}

impl Running {
    fn hear(&mut self) -> Notice {
        loop {
            if let Some(notice) = talk::take(&mut self.inbox).unwrap() {
                return notice;
            }
            let mut bytes = [0; 4096];
            let count = self.line.read(&mut bytes).unwrap();
            assert!(count > 0, "the supervisor hung up");
            self.inbox.extend_from_slice(&bytes[..count]);
        }
    }

    /// Waits until the log has this in it.
    fn wait_for_log(&mut self, wanted: &str) {
        loop {
            if fs::read_to_string(self.dir.log())
                .unwrap_or_default()
                .contains(wanted)
            {
                return;
            }
            self.hear();
        }
    }

    fn order(&mut self, order: Order) {
        let mut bytes = Vec::new();
        talk::write(&order, &mut bytes);
        self.line.write_all(&bytes).unwrap();
    }

    fn end(mut self) -> ExitRecord {
        while self.hear() != Notice::Ended {}
        assert!(self.child.wait().unwrap().success());
        let found = self.dir.look().unwrap();
        let Found::Ended(record) = found else {
            panic!("not ended: {found:?}")
        };
        *record
    }
}

fn failed(kind: FailureKind, why: &str) -> Outcome {
    let why = farmbell_protocol::bounded::Reason::new(why).unwrap();
    Outcome::Failed { kind, why }
}

#[test]
fn a_run_is_told_from_start_to_end() {
    let attempt = Attempt::of("echo out; echo err >&2");
    let mut running = attempt.start();
    assert_eq!(running.hear(), Notice::Started);
    let record = running.end();
    assert_eq!(record.report.outcome, Outcome::Succeeded);
    assert_eq!(record.report.exit, Some(ExitStatus::Code(0)));
    assert_eq!(attempt.log(), "out\nerr\n");
    assert_eq!(record.log.length, 8);
}

#[test]
fn the_exit_code_and_the_reason_make_the_outcome() {
    let record = Attempt::of("echo libfoo-dev > $FARMBELL_REASON; exit 65").run();
    assert_eq!(
        record.report.outcome,
        failed(FailureKind::DependencyWait, "libfoo-dev")
    );
    let record = Attempt::of("kill -9 $$").run();
    assert_eq!(record.report.exit, Some(ExitStatus::Signal(9)));
}

#[test]
fn a_program_that_is_not_there_is_the_jobs_fault() {
    let mut attempt = Attempt::of("");
    attempt.request.argv = vec!["no-such-program".to_owned()];
    let record = attempt.run();
    assert!(matches!(record.report.outcome, Outcome::Failed { .. }));
    assert!(attempt.log().contains("no-such-program"));
}

#[test]
fn a_build_that_will_not_end_is_killed_after_its_grace() {
    let attempt =
        Attempt::of("trap 'echo heard' TERM; echo ready; while :; do sleep 1000 & wait $!; done");
    let mut running = attempt.start();
    running.wait_for_log("ready");
    assert_eq!(attempt.dir.look().unwrap(), Found::Running);
    running.order(Order::Stop { grace_ms: 60_000 });
    running.wait_for_log("heard");
    running.order(Order::Stop { grace_ms: 0 });
    assert_eq!(running.end().report.outcome, Outcome::Aborted);
}

#[test]
fn limits_of_time_and_silence_end_a_build() {
    let mut attempt = Attempt::of("while :; do echo x; sleep 0.01; done");
    attempt.request.bounds.total_ms = 100;
    attempt.request.bounds.grace_ms = 1;
    let record = attempt.run();
    let Outcome::Failed { kind, why } = record.report.outcome else {
        panic!("it failed")
    };
    assert_eq!(kind, FailureKind::Limit);
    assert!(why.contains("longer"), "{why}");
    let mut attempt = Attempt::of("exec sleep 1000");
    attempt.request.bounds.silence_ms = 50;
    let record = attempt.run();
    assert!(matches!(
        record.report.outcome,
        Outcome::Failed { kind: FailureKind::Limit, why } if why.contains("wrote nothing")
    ));
}

#[test]
fn secrets_never_reach_the_log() {
    let mut attempt = Attempt::of("printf 'a s3cr'; printf 'et! https://me:pw@host/\n'");
    let secret = attempt.dir.root().join("secret");
    fs::write(&secret, "s3cret\n").unwrap();
    attempt.request.secrets = vec![secret];
    attempt.run();
    assert_eq!(attempt.log(), "a ***! https://***@host/\n");
}

#[test]
fn who_is_told_to_end_before_it_began_is_not_started() {
    let attempt = Attempt::of("echo ran");
    let running = attempt.start_with_order(Order::Stop { grace_ms: 0 });
    let record = running.end();
    assert_eq!(record.report.outcome, Outcome::Aborted);
    assert_eq!(record.report.exit, None);
    assert_eq!(attempt.log(), "");
}

/// Ways for a process to outlive its build. Each prints nothing more.
const ESCAPES: &[(&str, &str)] = &[
    ("background", "sleep 1000 &"),
    ("nohup", "nohup sleep 1000 >/dev/null 2>&1 &"),
    ("setsid", "setsid sleep 1000 &"),
    ("double fork", "( ( sleep 1000 & ) & )"),
    (
        "double fork and setsid",
        "( setsid sh -c '( sleep 1000 & ) &' & )",
    ),
    (
        "ignores TERM",
        "sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' &",
    ),
    (
        "ignores everything",
        "sh -c 'trap \"\" TERM INT HUP QUIT USR1 USR2 PIPE; sleep 1000; sleep 1000' &",
    ),
    ("stopped", "sleep 1000 & kill -STOP $!"),
    ("stopped shell", "sh -c 'kill -STOP $$; sleep 1000' &"),
    ("closed outputs", "sleep 1000 >&- 2>&- <&- &"),
    ("held log", "setsid sh -c 'sleep 1000; echo late' &"),
    (
        "deleted directory",
        "mkdir d; (cd d; sleep 1000 &); rmdir d",
    ),
    ("root directory", "(cd /; setsid sleep 1000 &)"),
    ("respawner", "sh -c 'while :; do sleep 0.01; done' &"),
    (
        "pair that restarts each other",
        "sh -c 'while :; do sh -c \"sleep 0.02\" & wait; done' & sh -c 'while :; do sleep 0.03 & wait; done' &",
    ),
    (
        "bounded fork bomb",
        "b() { [ $1 -gt 0 ] && { b $(($1-1)) & b $(($1-1)) & }; sleep 1000; }; b 6 &",
    ),
    (
        "wide tree",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1000 & done",
    ),
    (
        "deep tree",
        "d() { [ $1 -gt 0 ] && sh -c \"$(declare -f d 2>/dev/null); sleep 1000\" & sleep 1000; }; d 3 &",
    ),
    (
        "own namespaces",
        "unshare -Urpf sleep 1000 2>/dev/null & sleep 1000 &",
    ),
    ("changed environment", "env -i sleep 1000 &"),
    ("process group of its own", "set -m; sleep 1000 & set +m"),
    ("traced", "strace -f -o /dev/null sleep 1000 &"),
    (
        "session with a terminal",
        "setsid script -qc 'sleep 1000' /dev/null >/dev/null 2>&1 </dev/null &",
    ),
    (
        "child of a vfork",
        "python3 -c 'import os; os.posix_spawn(\"/bin/sleep\", [\"sleep\", \"1000\"], os.environ)'",
    ),
    (
        "sub-reaper of its own",
        "python3 -c 'import ctypes, os, time
ctypes.CDLL(None).prctl(36, 1)
if os.fork() == 0:
    if os.fork() == 0: time.sleep(1000)
    os._exit(0)
open(\"up\", \"w\"); time.sleep(1000)' & until [ -e up ]; do sleep 0.02; done",
    ),
    (
        "threads that start programs",
        "python3 -c 'import subprocess, threading, time
for _ in range(8): threading.Thread(target=subprocess.run, args=([\"sleep\", \"1000\"],)).start()
open(\"up\", \"w\")' & until [ -e up ]; do sleep 0.02; done",
    ),
    (
        "zombies that nobody waits for",
        "python3 -c 'import os, time
for _ in range(20):
    if os.fork() == 0: os._exit(0)
open(\"up\", \"w\"); time.sleep(1000)' & until [ -e up ]; do sleep 0.02; done",
    ),
    (
        "mapped file",
        "python3 -c 'import mmap, time
f = open(\"mapped\", \"wb+\"); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096)
open(\"up\", \"w\"); time.sleep(1000)' & until [ -e up ]; do sleep 0.02; done",
    ),
    (
        "signals for the supervisor",
        "sh -c \"while :; do kill -CHLD $PPID; kill -WINCH $PPID; done\" &",
    ),
    (
        "nice daemon",
        "nice -n 19 setsid nohup sh -c 'umask 0; cd /; exec sleep 1000' >/dev/null 2>&1 &",
    ),
];

fn nothing_escapes(place: Option<&Place>, zoo: u16) {
    for (name, escape) in ESCAPES {
        let mut attempt = Attempt::of(&format!("{escape}\necho done; exec sleep 1000"));
        attempt
            .request
            .environment
            .push(("ZOO".to_owned(), attempt.dir.root().display().to_string()));
        attempt.request.attempt.nonce = u64::from(std::process::id()) << 16 | u64::from(zoo);
        attempt.request.group = place.cloned();
        if place.is_some() {
            attempt.request.bounds.processes = 5000;
        }
        let mut running = attempt.start();
        running.wait_for_log("done");
        let supervisor = running.child.id();
        let asked = Instant::now();
        running.order(Order::Stop { grace_ms: 0 });
        let record = running.end();
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{name}: {:?}",
            asked.elapsed()
        );
        assert_eq!(record.report.outcome, Outcome::Aborted, "{name}");
        let left = carriers(attempt.dir.root().to_str().unwrap());
        assert!(
            left.is_empty(),
            "{name} left {left:?} behind supervisor {supervisor}"
        );
        if let Some(place) = place {
            place
                .group(&farmbell_agent::attempt::directory_name(
                    attempt.request.attempt,
                ))
                .remove();
        }
    }
}

/// Processes that carry the attempt in their environment or directory.
fn carriers(root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let needle = format!("ZOO={root}");
        if environment
            .split(|byte| *byte == 0)
            .any(|one| one == needle.as_bytes())
        {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn nothing_escapes_a_sub_reaper_alone() {
    nothing_escapes(None, 0);
}

#[test]
fn nothing_escapes_control_groups() {
    let place = Place::detect(None);
    if !place.is_none() {
        nothing_escapes(Some(&place), 1);
    }
}

#[test]
fn nothing_escapes_the_freezer() {
    let mut place = Place::detect(None);
    place.v2 = None;
    if !place.is_none() {
        nothing_escapes(Some(&place), 2);
    }
}

/// The trees, with a directory of this test's own in the place of the agents'.
fn place_apart(name: &str) -> Place {
    let mut place = Place::detect(None);
    let apart = |ours: &mut std::path::PathBuf| {
        ours.push(format!("{name}-{}", std::process::id()));
        fs::create_dir(ours).unwrap();
    };
    place.v2.iter_mut().for_each(apart);
    place.v1.iter_mut().for_each(|(_, ours)| apart(ours));
    place
}

#[test]
fn groups_that_nobody_is_in_are_swept_and_others_stay() {
    let place = place_apart("sweep");
    let trees = place.v2.iter().chain(place.v1.iter().map(|(_, ours)| ours));
    let trees: Vec<_> = trees.cloned().collect();
    let left = |name: &str| trees.iter().filter(|ours| ours.join(name).exists()).count();
    let mut attempt = Attempt::of("echo up; exec sleep 1000");
    attempt.request.group = Some(place.clone());
    attempt.request.bounds.processes = 5000;
    let mut running = attempt.start();
    running.wait_for_log("up");
    let lives = farmbell_agent::attempt::directory_name(attempt.request.attempt);
    let mut dead = attempt.request.attempt;
    dead.nonce += 1;
    let dead = farmbell_agent::attempt::directory_name(dead);
    for ours in &trees {
        for leaf in ["supervisor", "build"] {
            fs::create_dir_all(ours.join(&dead).join(leaf)).unwrap();
        }
    }
    place.sweep(Duration::from_secs(3600));
    assert_eq!(left(&dead), trees.len(), "too young to be known as left");
    place.sweep(Duration::ZERO);
    assert_eq!((left(&dead), left(&lives)), (0, trees.len()));
    running.order(Order::Stop { grace_ms: 0 });
    running.end();
    place.group(&lives).remove();
    trees.iter().for_each(|ours| fs::remove_dir(ours).unwrap());
}

#[test]
fn what_a_build_left_behind_ends_with_it() {
    let attempt = Attempt::of("setsid sleep 1000 & trap '' TERM; exit 3");
    let record = attempt.run();
    assert_eq!(record.report.exit, Some(ExitStatus::Code(3)));
}

#[test]
fn a_second_listener_is_told_all_that_is_true() {
    let attempt = Attempt::of("echo hello; exec sleep 1000");
    let mut running = attempt.start();
    running.wait_for_log("hello");
    let mut second = Running {
        dir: attempt.dir.clone(),
        child: running.child,
        line: UnixStream::connect(attempt.dir.root().join("socket")).unwrap(),
        inbox: Vec::new(),
    };
    // The first one goes away, as a killed agent does.
    drop(running.line);
    assert_eq!(second.hear(), Notice::Started);
    assert_eq!(second.hear(), Notice::Log { length: 6 });
    second.order(Order::Leave { grace_ms: 0 });
    assert!(matches!(
        second.end().report.outcome,
        Outcome::GivenBack { .. }
    ));
}

#[test]
fn a_supervisor_that_is_killed_leaves_a_free_lock_and_no_record() {
    let attempt = Attempt::of("exec sleep 1000");
    let mut running = attempt.start();
    assert_eq!(running.hear(), Notice::Started);
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert_eq!(attempt.dir.look().unwrap(), Found::Died);
    let recipe = carriers_of_sleep(attempt.dir.workspace().to_str().unwrap());
    for pid in recipe {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }
}

fn carriers_of_sleep(workspace: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| {
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.to_str() == Some(workspace))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
