//! Reset scripts and probes: root's own programs, run between attempts. Owns
//! how one runs: a path that only its owner may change, empty environment,
//! fixed arguments, a process group of its own, a time limit, and the end of
//! what it writes. No job data ever reaches it.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::ScriptFailure;
use farmbell_protocol::bounded::{Blob, Reason};
use farmbell_protocol::outcome::ExitStatus;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use crate::config::Script;

/// Of a script's output the end tells most.
const KEPT_BYTES: usize = 4096;

/// What came of a script.
#[derive(Debug)]
pub(crate) struct ScriptReport {
    pub(crate) result: Result<(), ScriptFailure>,
    pub(crate) took: Duration,
    pub(crate) stdout: Blob<KEPT_BYTES>,
    pub(crate) stderr: Blob<KEPT_BYTES>,
}

/// Runs a script to its end or its time limit; nothing of its process group
/// is left afterwards.
pub(crate) async fn run(script: &Script) -> ScriptReport {
    let began = Instant::now();
    let mut output = Output::default();
    let result = match start(script) {
        Ok(child) => follow(child, began + script.timeout, script.timeout, &mut output).await,
        Err(error) => Err(not_run(&error)),
    };
    ScriptReport {
        result,
        took: began.elapsed(),
        stdout: Blob::tail(&output.stdout),
        stderr: Blob::tail(&output.stderr),
    }
}

#[derive(Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn start(script: &Script) -> io::Result<Child> {
    let Some((program, arguments)) = script.argv.split_first() else {
        return Err(io::Error::other("it has no path"));
    };
    may_run(script)?;
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))
}

/// Only a script that nobody else may change is run.
pub(crate) fn may_run(script: &Script) -> io::Result<()> {
    let program = script.argv.first().map_or("", String::as_str);
    let meta = std::fs::metadata(program)
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    let trusted = meta.uid() == 0 || meta.uid() == geteuid().as_raw();
    if !trusted || meta.permissions().mode() & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "{program} may be changed by others; make it root's: chown root {program}; chmod go-w {program}"
        )));
    }
    Ok(())
}

fn not_run(error: &io::Error) -> ScriptFailure {
    let why = Reason::cut(error.to_string());
    ScriptFailure::NotRun { why }
}

async fn follow(
    mut child: Child,
    until: Instant,
    timeout: Duration,
    output: &mut Output,
) -> Result<(), ScriptFailure> {
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let group = group.map(|leader| Group(Pid::from_raw(leader)));
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut one, mut two) = ([0; KEPT_BYTES], [0; KEPT_BYTES]);
    let status = loop {
        // Biased: whatever it wrote is read before its end is looked at.
        tokio::select! {
            biased;
            read = read(&mut stdout, &mut one), if stdout.is_some() => {
                keep(read, &one, &mut output.stdout, &mut stdout);
            }
            read = read(&mut stderr, &mut two), if stderr.is_some() => {
                keep(read, &two, &mut output.stderr, &mut stderr);
            }
            status = child.wait() => break Some(status),
            () = sleep_until(until) => break None,
        }
    };
    // Its own children end with it.
    drop(group);
    match status {
        Some(Ok(status)) => by_status(status),
        Some(Err(error)) => Err(not_run(&error)),
        None => {
            if let Err(error) = child.wait().await {
                tracing::warn!(%error, "a script was not waited for");
            }
            let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            Err(ScriptFailure::TimedOut { after_ms })
        }
    }
}

/// The processes of a script. They end with this value: a script whose builder
/// starts again must not run beside the next one.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        match killpg(self.0, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%error, "a script's processes cannot be killed"),
        }
    }
}

async fn read<R: tokio::io::AsyncRead + Unpin>(
    from: &mut Option<R>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => Ok(0),
    }
}

fn keep<R>(read: io::Result<usize>, buffer: &[u8], kept: &mut Vec<u8>, from: &mut Option<R>) {
    match read {
        Ok(0) | Err(_) => *from = None,
        Ok(count) => {
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..surplus);
        }
    }
}

fn by_status(status: std::process::ExitStatus) -> Result<(), ScriptFailure> {
    if status.success() {
        return Ok(());
    }
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    Err(ScriptFailure::Exit(
        match (status.code(), status.signal()) {
            (Some(code), _) => ExitStatus::Code(byte(code)),
            (None, signal) => ExitStatus::Signal(signal.map_or(0, byte)),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str, timeout: Duration) -> Script {
        Script {
            argv: vec!["/bin/sh".into(), "-c".into(), text.into()],
            timeout,
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn its_end_and_its_words_are_reported() {
        let report = run(&script("echo out; echo err >&2; exit 3", LONG)).await;
        let failure = ScriptFailure::Exit(ExitStatus::Code(3));
        assert_eq!(report.result, Err(failure));
        assert_eq!(
            (&*report.stdout, &*report.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }

    #[tokio::test]
    async fn a_script_that_hangs_ends_at_its_time_limit() {
        let limit = Duration::from_millis(100);
        let report = run(&script("sleep 1000 & sleep 1000", limit)).await;
        let failure = ScriptFailure::TimedOut { after_ms: 100 };
        assert_eq!(report.result, Err(failure));
    }

    #[tokio::test]
    async fn a_daemon_that_holds_its_output_holds_up_nothing() {
        let report = run(&script("setsid sleep 3 & exit 0", LONG)).await;
        assert_eq!(report.result, Ok(()));
        assert!(report.took < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_script_that_others_may_change_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reset");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let script = Script {
            argv: vec![path.to_str().unwrap().to_owned()],
            timeout: LONG,
        };
        let report = run(&script).await;
        assert!(matches!(report.result, Err(ScriptFailure::NotRun { .. })));
    }
}
