//! The process tree below a supervisor. Owns finding, signalling and killing
//! all of it; never waits (the supervisor's loop does).
//!
//! The supervisor is a sub-reaper: whatever the build starts stays below it,
//! however it forks, detaches or changes its name. So `wait` answering "no
//! children" proves the tree empty, and a process that a pass over the tree
//! missed has an ancestor that the pass killed, whose end brings the next pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::groups::Group;

/// Passes that stop processes before the killing one: enough for trees that
/// fork while they are looked at.
const STOP_PASSES: usize = 8;

#[derive(Debug)]
pub(super) struct Tree {
    own: Pid,
    group: Option<Group>,
    /// Whether the build stands in the group already.
    grouped: bool,
}

impl Tree {
    pub(super) fn new(group: Option<Group>) -> Self {
        Self {
            own: getpid(),
            group,
            grouped: false,
        }
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// The group that the build stands in; most short ones never enter theirs.
    pub(super) fn entered(&self) -> Option<&Group> {
        self.group().filter(|_| self.grouped)
    }

    /// What is started from now on is born in the group.
    pub(super) fn is_grouped(&mut self) {
        self.grouped = true;
    }

    pub(super) fn wants_grouping(&self) -> bool {
        self.group.is_some() && !self.grouped
    }

    /// Moves supervisor and build into the attempt's group. A host that
    /// refuses loses one way of killing, not the build.
    pub(super) fn enter_group(&mut self) {
        let Some(group) = self.group.clone() else {
            return;
        };
        let moved = group.enter().and_then(|()| {
            let mut seen = BTreeSet::new();
            // What a moved process forks is born in the group: it ends.
            loop {
                let new: Vec<Pid> = self
                    .below()
                    .into_iter()
                    .filter(|p| seen.insert(*p))
                    .collect();
                if new.is_empty() {
                    return Ok(());
                }
                new.into_iter().try_for_each(|pid| group.add(pid))?;
            }
        });
        match moved {
            Ok(()) => self.grouped = true,
            Err(error) => {
                super::note(&format!("no control group for this attempt: {error}"));
                self.group = None;
            }
        }
    }

    /// Signals every process; a stopped one is woken to hear it.
    pub(super) fn terminate(&self) {
        for pid in self.below() {
            signal(pid, Signal::SIGTERM);
            signal(pid, Signal::SIGCONT);
        }
    }

    /// One round of killing.
    pub(super) fn kill(&self) {
        if let Some(group) = self.entered()
            && let Err(error) = group.kill()
        {
            super::note(&format!("the control group cannot be killed: {error}"));
        }
        let mut stopped = BTreeSet::new();
        for _ in 0..STOP_PASSES {
            let new: Vec<Pid> = self
                .below()
                .into_iter()
                .filter(|p| stopped.insert(*p))
                .collect();
            if new.is_empty() {
                break;
            }
            new.into_iter().for_each(|pid| signal(pid, Signal::SIGSTOP));
        }
        for pid in stopped {
            signal(pid, Signal::SIGKILL);
        }
    }

    /// Every process below this one that can be seen now.
    fn below(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        match children_of(self.own) {
            Ok(children) => {
                let mut open = children;
                while let Some(pid) = open.pop() {
                    found.push(pid);
                    // One that has just ended has no children any more.
                    open.extend(children_of(pid).unwrap_or_default());
                }
            }
            Err(_) => found = below_by_parents(self.own),
        }
        found
    }
}

fn signal(pid: Pid, signal: Signal) {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => super::note(&format!("process {pid} takes no {signal}: {error}")),
    }
}

/// The kernel's own list, per thread; not every kernel has it.
fn children_of(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(task?.path().join("children"))?;
        found.extend(
            list.split_ascii_whitespace()
                .filter_map(|word| word.parse().ok())
                .map(Pid::from_raw),
        );
    }
    Ok(found)
}

/// The same from every process's parent.
fn below_by_parents(own: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![own.as_raw()];
    while let Some(pid) = open.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(Pid::from_raw(child));
            open.push(child);
        }
    }
    found
}

/// The second word behind the name, which may itself hold anything.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_ascii_whitespace().nth(1)?.parse().ok()
}
