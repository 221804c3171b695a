//! Starting the recipe. Owns the moment between the lock and the exec: the
//! limits are set, the marker `began` is there, the output goes to one pipe.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{AccessFlags, Pid, access, pipe2};

use super::tree::Tree;
use crate::attempt::{AttemptDir, Bounds, Request};

/// A pipe that a flood of log fills in fewer, larger reads. Unprivileged
/// processes may ask for this much.
const PIPE_BYTES: i32 = 1 << 20;

/// A recipe that runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Both its outputs; does not block.
    pub(super) output: OwnedFd,
}

/// Starts the recipe of `request` below this process.
///
/// # Errors
/// If it cannot be executed, or a limit cannot be set.
pub(super) fn start(dir: &AttemptDir, request: &Request, tree: &mut Tree) -> io::Result<Started> {
    let (output, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    if let Err(errno) = fcntl(&output, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
        super::note(&format!("the pipe for the log stays small: {errno}"));
    }
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let Some((program, arguments)) = request.argv.split_first() else {
        let why = "there is no argv: give the command to run";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    };
    let mut command = Command::new(resolved(program, &request.environment));
    command
        .args(arguments)
        .env_clear()
        .envs(request.environment.iter().map(|(k, v)| (k, v)))
        .current_dir(dir.workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::from(write_end.as_fd().try_clone_to_owned()?))
        .stderr(Stdio::from(write_end));
    dir.begin()?;
    let child = if needs_group(&request.bounds) {
        start_limited(&mut command, request, tree)?
    } else {
        command.spawn()?
    };
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Started {
        pid: Pid::from_raw(pid),
        output,
    })
}

/// Limits hold from the first instruction only where the recipe is born in
/// its group; without any it may move there later.
fn needs_group(bounds: &Bounds) -> bool {
    bounds.memory_bytes > 0 || bounds.processes > 0 || bounds.cpu_millis > 0
}

fn start_limited(command: &mut Command, request: &Request, tree: &mut Tree) -> io::Result<Child> {
    let grouped = request.group.as_ref().filter(|_| tree.group().is_some());
    let mut per_process = request.bounds;
    if grouped.is_some_and(|place| place.limits("memory")) {
        per_process.memory_bytes = 0;
    }
    let Some(group) = tree.group().cloned() else {
        return super::rlimits::spawn(command, &per_process);
    };
    group.enter()?;
    group.limit(&request.bounds)?;
    let child = group.inside(|| super::rlimits::spawn(command, &per_process))?;
    tree.is_grouped();
    Ok(child)
}

/// The program's path by the recipe's own `PATH`. A program that is a path
/// already, or is nowhere, is left to the kernel to judge.
fn resolved(program: &str, environment: &[(String, String)]) -> PathBuf {
    let path = environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value.as_str());
    if program.contains('/') {
        return PathBuf::from(program);
    }
    path.split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|file| access(file, AccessFlags::X_OK).is_ok() && file.is_file())
        .unwrap_or_else(|| PathBuf::from(program))
}
