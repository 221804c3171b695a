//! Control groups of attempts: one group per attempt, with the supervisor in
//! one leaf and the build in the other, outside the agent's own unit. Owns
//! finding a writable tree (v2, v1 or both), limits, and killing at once.
//! Never the last word on emptiness while a supervisor lives (its `wait` is).
//!
//! ```text
//! <home>/<attempt>/supervisor     the supervisor
//! <home>/<attempt>/build          everything the recipe starts
//! ```
//!
//! The home is `<tree>/farmbell` where the agent may make that, and the
//! launcher unit's own group in a version 2 tree where there is such a unit:
//! nobody without privilege moves a process out of the unit it began in.

mod sweep;

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::attempt::Bounds;
use crate::launcher::unit::Unit;

/// The name of our directory in each tree.
const OURS: &str = "farmbell";
const SUPERVISOR: &str = "supervisor";
const BUILD: &str = "build";

/// Where groups can be made on this host: our directory in each tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub v2: Option<PathBuf>,
    /// Controllers that can be used in the v2 tree.
    pub v2_controllers: Vec<String>,
    /// Version 1 trees: controller and our directory in it.
    pub v1: Vec<(String, PathBuf)>,
}

/// The groups of one attempt.
#[derive(Clone, Debug)]
pub struct Group {
    v2: Option<PathBuf>,
    v2_controllers: Vec<String>,
    v1: Vec<(String, PathBuf)>,
}

/// The launcher's own leaf: where groups are, no process may stand beside them.
const LAUNCHER: &str = "launcher";

/// Controllers that limits and killing are made of.
const WANTED_V1: [&str; 5] = ["freezer", "memory", "pids", "cpu", "cpuacct"];

impl Place {
    /// Of an agent with this launcher, or with none.
    pub(crate) fn of(unit: Option<&Unit>) -> Self {
        Self::detect(unit.and_then(|unit| unit.group.as_deref()))
    }

    /// Finds writable trees; `home` is the launcher unit's group, from the root
    /// of the version 2 tree. Nothing found is a degraded host, not an error.
    #[must_use]
    pub fn detect(home: Option<&Path>) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_else(|error| {
            tracing::warn!(%error, "mounts cannot be read: no control groups");
            String::new()
        });
        let mut place = Self::default();
        for line in mounts.lines() {
            place.consider(line, home);
        }
        place
    }

    /// Takes one line of mountinfo into account.
    fn consider(&mut self, line: &str, home: Option<&Path>) {
        let Some((front, back)) = line.split_once(" - ") else {
            return;
        };
        let Some(mountpoint) = front.split(' ').nth(4) else {
            return;
        };
        let mut back = back.split(' ');
        let (kind, options) = (back.next(), back.nth(1).unwrap_or(""));
        let ours = Path::new(mountpoint).join(OURS);
        match kind {
            Some("cgroup2") if self.v2.is_none() => {
                let ours = home.map_or(ours, |home| below(mountpoint, home));
                if can_make(&ours) {
                    self.v2_controllers = enable_controllers(&ours);
                    self.v2 = Some(ours);
                }
            }
            Some("cgroup") => {
                let name = WANTED_V1
                    .iter()
                    .find(|name| options.split(',').any(|option| option == **name));
                if let Some(name) = name
                    && !self.v1.iter().any(|(have, _)| have == name)
                    && can_make(&ours)
                {
                    self.v1.push(((*name).to_owned(), ours));
                }
            }
            Some(_) | None => {}
        }
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        self.v2.is_none() && self.v1.is_empty()
    }

    /// Whether this host enforces a limit of this controller.
    #[must_use]
    pub fn limits(&self, controller: &str) -> bool {
        self.v2_controllers.iter().any(|have| have == controller)
            || self.v1.iter().any(|(have, _)| have == controller)
    }

    /// The groups of an attempt; they may not exist (yet).
    #[must_use]
    pub fn group(&self, name: &str) -> Group {
        Group {
            v2: self.v2.as_ref().map(|ours| ours.join(name)),
            v2_controllers: self.v2_controllers.clone(),
            v1: self
                .v1
                .iter()
                .map(|(controller, ours)| (controller.clone(), ours.join(name)))
                .collect(),
        }
    }
}

fn can_make(ours: &Path) -> bool {
    match fs::create_dir(ours) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            nix::unistd::access(ours, nix::unistd::AccessFlags::W_OK).is_ok()
        }
        Err(error) => {
            tracing::debug!(path = %ours.display(), %error, "no control groups here");
            false
        }
    }
}

fn below(mountpoint: &str, path: &Path) -> PathBuf {
    Path::new(mountpoint).join(path.strip_prefix("/").unwrap_or(path))
}

/// Hands the controllers of the tree down to our groups; gives those in force.
fn enable_controllers(ours: &Path) -> Vec<String> {
    let parent = ours.parent().unwrap_or(ours);
    let hand_down = |dir: &Path, word: &str| fs::write(dir.join("cgroup.subtree_control"), word);
    let mut enabled = Vec::new();
    for controller in ["memory", "pids", "cpu"] {
        let word = format!("+{controller}");
        // A unit's group has what was delegated to it already.
        if let Err(error) = hand_down(parent, &word) {
            tracing::debug!(controller, %error, "the tree hands nothing down to us");
        }
        match hand_down(ours, &word) {
            Ok(()) => enabled.push(controller.to_owned()),
            Err(error) => tracing::debug!(controller, %error, "no such controller here"),
        }
    }
    enabled
}

impl Group {
    /// Makes the groups and moves the caller into the supervisor's leaf.
    ///
    /// # Errors
    /// If a group cannot be made.
    pub fn enter(&self) -> io::Result<()> {
        for root in self.roots() {
            make(root)?;
            make(&root.join(SUPERVISOR))?;
            make(&root.join(BUILD))?;
            fs::write(root.join(SUPERVISOR).join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// Runs `start` while the caller stands in the build's leaf, so that what
    /// it starts is born there.
    ///
    /// # Errors
    /// If the caller cannot be moved, or as `start`.
    pub fn inside<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        for root in self.roots() {
            fs::write(root.join(BUILD).join("cgroup.procs"), "0")?;
        }
        let started = start();
        for root in self.roots() {
            fs::write(root.join(SUPERVISOR).join("cgroup.procs"), "0")?;
        }
        started
    }

    /// Moves a process into the build's leaf. One that is gone is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add(&self, pid: Pid) -> io::Result<()> {
        for root in self.roots() {
            match fs::write(root.join(BUILD).join("cgroup.procs"), pid.to_string()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the limits that this host's controllers can enforce.
    ///
    /// # Errors
    /// If the kernel refuses a value.
    pub fn limit(&self, bounds: &Bounds) -> io::Result<()> {
        self.limit_v2(bounds)?;
        self.limit_v1(bounds)
    }

    fn limit_v2(&self, bounds: &Bounds) -> io::Result<()> {
        let Some(root) = self.v2.as_ref().filter(|_| !self.v2_controllers.is_empty()) else {
            return Ok(());
        };
        for controller in &self.v2_controllers {
            fs::write(
                root.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )?;
        }
        let build = root.join(BUILD);
        let has = |name: &str| self.v2_controllers.iter().any(|have| have == name);
        if bounds.memory_bytes > 0 && has("memory") {
            fs::write(build.join("memory.max"), bounds.memory_bytes.to_string())?;
            write_if_there(&build.join("memory.swap.max"), "0")?;
            write_if_there(&build.join("memory.oom.group"), "1")?;
        }
        if bounds.processes > 0 && has("pids") {
            fs::write(build.join("pids.max"), bounds.processes.to_string())?;
        }
        if bounds.cpu_millis > 0 && has("cpu") {
            let quota = u64::from(bounds.cpu_millis) * CPU_PERIOD_US / 1000;
            fs::write(build.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?;
        }
        Ok(())
    }

    fn limit_v1(&self, bounds: &Bounds) -> io::Result<()> {
        if let Some(root) = self.v1("memory").filter(|_| bounds.memory_bytes > 0) {
            let build = root.join(BUILD);
            fs::write(
                build.join("memory.limit_in_bytes"),
                bounds.memory_bytes.to_string(),
            )?;
        }
        if let Some(root) = self.v1("pids").filter(|_| bounds.processes > 0) {
            fs::write(
                root.join(BUILD).join("pids.max"),
                bounds.processes.to_string(),
            )?;
        }
        if let Some(root) = self.v1("cpu").filter(|_| bounds.cpu_millis > 0) {
            let quota = u64::from(bounds.cpu_millis) * CPU_PERIOD_US / 1000;
            let build = root.join(BUILD);
            fs::write(build.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            fs::write(build.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        Ok(())
    }

    /// Kills all of the build at once, where a tree can do that; `false` where
    /// the caller has to find the processes itself.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill(&self) -> io::Result<bool> {
        if let Some(root) = &self.v2 {
            let file = root.join(BUILD).join("cgroup.kill");
            match fs::write(&file, "1") {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.kill_frozen()
    }

    /// Version 1: nothing forks while it is frozen, so one pass reaches all.
    fn kill_frozen(&self) -> io::Result<bool> {
        let Some(build) = self.v1("freezer").map(|root| root.join(BUILD)) else {
            return Ok(false);
        };
        if !build.exists() {
            return Ok(false);
        }
        fs::write(build.join("freezer.state"), "FROZEN")?;
        let killed = pids_in(&build).map(|pids| pids.into_iter().for_each(kill_one));
        fs::write(build.join("freezer.state"), "THAWED")?;
        killed.map(|()| true)
    }

    /// Kills what a dead supervisor left and waits until it is gone: the only
    /// proof there is when nobody can `wait` for it. `Ok(false)` where there is
    /// no proof.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill_and_prove(&self, patience: Duration) -> io::Result<bool> {
        if self.roots().all(|root| !root.join(BUILD).exists()) {
            return Ok(false);
        }
        self.kill()?;
        let Some(root) = &self.v2 else {
            return self.v1_is_empty();
        };
        let events = fs::File::open(root.join(BUILD).join("cgroup.events"));
        match events {
            Ok(events) => wait_until_empty(events, patience),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn v1_is_empty(&self) -> io::Result<bool> {
        match self.v1("freezer") {
            Some(root) => Ok(pids_in(&root.join(BUILD))?.is_empty()),
            None => Ok(false),
        }
    }

    /// The most memory the build used at one time, where it was counted.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        let v2 = self
            .v2
            .as_ref()
            .map(|root| root.join(BUILD).join("memory.peak"));
        let v1 = self
            .v1("memory")
            .map(|root| root.join(BUILD).join("memory.max_usage_in_bytes"));
        [v2, v1]
            .into_iter()
            .flatten()
            .find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
    }

    /// Whether the kernel ended processes of the build for their memory.
    #[must_use]
    pub fn memory_was_exceeded(&self) -> bool {
        let v2 = self
            .v2
            .as_ref()
            .map(|root| root.join(BUILD).join("memory.events"));
        let v1 = self
            .v1("memory")
            .map(|root| root.join(BUILD).join("memory.oom_control"));
        [v2, v1].into_iter().flatten().any(|file| {
            fs::read_to_string(file).is_ok_and(|text| {
                text.lines()
                    .filter_map(|line| line.strip_prefix("oom_kill "))
                    .any(|count| count.trim() != "0")
            })
        })
    }

    /// Removes the groups; the caller leaves them by its own end, so the
    /// supervisor's leaf may stay until the agent removes it.
    pub fn remove(&self) {
        self.roots().for_each(|root| remove_empty(root));
    }

    fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.v2
            .iter()
            .chain(self.v1.iter().map(|(_, directory)| directory))
    }

    fn v1(&self, controller: &str) -> Option<&PathBuf> {
        self.v1
            .iter()
            .find(|(name, _)| name == controller)
            .map(|(_, directory)| directory)
    }
}

/// Moves this process into a leaf of its unit's version 2 group, so that
/// groups of attempts can be made beside it. Without such a tree, nothing.
///
/// # Errors
/// If the group was not handed to us.
pub(crate) fn settle() -> io::Result<()> {
    let Some(home) = v2_group_of("self")? else {
        return Ok(());
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let is_v2 = back.starts_with("cgroup2 ");
        front.split(' ').nth(4).filter(|_| is_v2)
    });
    let Some(mount) = mount else { return Ok(()) };
    let leaf = below(mount, &home).join(LAUNCHER);
    make(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), "0")
}

/// The group that holds the leaf of the launcher `pid`, from the tree's root.
pub(crate) fn home_of(pid: i32) -> Option<PathBuf> {
    let group = v2_group_of(&pid.to_string()).ok().flatten()?;
    group
        .ends_with(LAUNCHER)
        .then(|| group.parent().map(Path::to_owned))
        .flatten()
}

fn v2_group_of(process: &str) -> io::Result<Option<PathBuf>> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(path.map(PathBuf::from))
}

fn remove_empty(root: &Path) {
    for dir in [root.join(BUILD), root.join(SUPERVISOR), root.to_owned()] {
        match fs::remove_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(path = %dir.display(), %error, "group stays"),
        }
    }
}

/// The span over which a share of processor time is handed out.
const CPU_PERIOD_US: u64 = 100_000;

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write_if_there(file: &Path, text: &str) -> io::Result<()> {
    match fs::write(file, text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn pids_in(group: &Path) -> io::Result<Vec<Pid>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        .map(Pid::from_raw)
        .collect())
}

fn kill_one(pid: Pid) {
    match kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%pid, %error, "a process of a build cannot be killed"),
    }
}

/// The kernel raises an event on the file whenever `populated` changes.
fn wait_until_empty(mut events: fs::File, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(true);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
