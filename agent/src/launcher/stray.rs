//! Processes of an attempt whose supervisor is dead, found by the attempt's
//! name in their environment. Owns the last resort: it finds what has not
//! changed its environment, and proves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Passes over all processes: each finds what the last one's victims made.
const PASSES: usize = 8;

/// Kills every process that carries the attempt's name; whether there was one.
pub(super) fn kill_all(name: &str) -> io::Result<bool> {
    let cookie = format!("FARMBELL_ATTEMPT={name}");
    let mut seen = BTreeSet::new();
    for _ in 0..PASSES {
        let new: Vec<Pid> = carriers(cookie.as_bytes())?
            .into_iter()
            .filter(|pid| seen.insert(*pid))
            .collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            match kill(pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => tracing::warn!(%pid, %error, "a stray process cannot be killed"),
            }
        }
    }
    Ok(!seen.is_empty())
}

fn carriers(cookie: &[u8]) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Processes end while we look, and those of others are closed to us.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|one| one == cookie)
        {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
