//! What runs below a process, read from the kernel.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;

use crate::harness::TestFarm;

/// Every process below these, with themselves.
pub(super) fn with_all_below(pids: impl IntoIterator<Item = Pid>) -> Vec<Pid> {
    let mut open: Vec<Pid> = pids.into_iter().collect();
    let mut found = Vec::new();
    while let Some(pid) = open.pop() {
        found.push(pid);
        open.extend(children_of(pid));
    }
    found
}

/// Of a process that has ended since: none.
fn children_of(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    tasks
        .filter_map(Result::ok)
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|word| word.parse().ok().map(Pid::from_raw))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The farm's daemons that run for `directory`: agents, their supervisors and
/// the coordinator; not what jobs start.
pub(super) fn daemons(directory: &Path) -> Vec<Pid> {
    let needle = directory.as_os_str().as_encoded_bytes();
    with_all_below([Pid::this()])
        .into_iter()
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            let program = words.next().unwrap_or_default();
            let subcommand = words.next().unwrap_or_default();
            let is_daemon = [&b"run"[..], b"serve", b"supervise"].contains(&subcommand)
                && (program.ends_with(b"farmbell-agent")
                    || program.ends_with(b"farmbell-coordinator")
                    || program.ends_with(b"/exe"));
            is_daemon && line.windows(needle.len()).any(|window| window == needle)
        })
        .collect()
}

pub(super) fn zombies_below(farm: &TestFarm) -> Vec<Pid> {
    let agents = farm.agents.iter().map(|agent| &agent.daemon);
    let daemons = agents.chain([&farm.coordinator.daemon]);
    with_all_below(daemons.filter_map(|daemon| daemon.pid()))
        .into_iter()
        .filter(|pid| is_zombie(*pid))
        .collect()
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|rest| rest.starts_with('Z'))
}
