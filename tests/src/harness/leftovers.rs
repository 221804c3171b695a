//! Clears away what a killed agent leaves running on purpose: supervisors and
//! the builds below them. Ends only processes whose command line, environment
//! or working directory names the farm's own directory.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends them, round by round, until a round finds none.
pub(super) fn end(directory: &Path) {
    // A process may fork between being seen and being killed; each round
    // catches what the last one's victims made.
    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        let found = processes_of(directory);
        if found.is_empty() {
            return;
        }
        for pid in found {
            match kill(pid, Signal::SIGKILL) {
                // Gone by itself meanwhile is as good.
                Ok(()) | Err(Errno::ESRCH) => {}
                // Not ours after all.
                Err(_) => return,
            }
        }
    }
}

fn processes_of(directory: &Path) -> Vec<Pid> {
    let own = Pid::this();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|pid| *pid != own && names(*pid, directory))
        .collect()
}

fn names(pid: Pid, directory: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let needle = directory.as_os_str().as_encoded_bytes();
    let mentions = |file: &str| {
        std::fs::read(process.join(file))
            .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    let works_there =
        std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    works_there || mentions("cmdline") || mentions("environ")
}
