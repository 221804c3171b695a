//! Looks at the host itself: disk, key, clock; and at its equipment, which an
//! agent can work without: root, systemd, groups, namespaces, build tools.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Finding;
use crate::config::Config;
use crate::facts;
use crate::groups::Place;
use crate::join::identity_directory;
use crate::launcher::unit::Unit;

/// A small package builds in this; larger ones say what they need.
const DISK_MIN: u64 = 2 << 30;
/// Seconds since 1970 at the beginning of 2026: no later clock is this early.
const CLOCK_MIN: u64 = 1_767_225_600;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    vec![
        state(&config.state),
        disk(&config.state),
        key(&config.state),
        clock(),
        scripts(config),
    ]
}

/// What an agent is the better for, and works without.
pub(super) fn equipment(config: &Config, unit: Option<&Unit>, place: &Place) -> Vec<Finding> {
    let is_root = nix::unistd::geteuid().is_root();
    vec![
        root(is_root, unit),
        service_manager(),
        launcher(is_root, unit),
        control_groups(place),
        namespaces(),
        isolation(),
        durability(&config.state),
        build_tools(),
        chroots(config.chroots.as_deref()),
    ]
}

fn state(state: &Path) -> Finding {
    let path = state.display();
    let fix = format!("install -d -m 0755 -o $(id -un) {path}");
    if !state.is_dir() {
        return Finding::failed("state directory", format!("{path} is not there"), fix);
    }
    match nix::unistd::access(state, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Finding::ok("state directory", format!("{path} can be written")),
        Err(errno) => Finding::failed("state directory", format!("{path}: {errno}"), fix),
    }
}

/// The nearest directory that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|one| one.exists())
        .unwrap_or_else(|| Path::new("/"))
}

fn disk(state: &Path) -> Finding {
    let free = facts::free_bytes(existing(state));
    let found = format!("{} MiB are free", free >> 20);
    if free < DISK_MIN {
        let fix = format!(
            "free some space: du -xh --max-depth=2 {} | sort -h",
            state.display()
        );
        return Finding::degraded("disk", found, fix);
    }
    Finding::ok("disk", found)
}

fn durability(state: &Path) -> Finding {
    let place = existing(state);
    if facts::durability(place) == "tmpfs" {
        return Finding::degraded(
            "durability",
            "the state lies in memory: a restart of the host loses finished builds not yet delivered",
            "set state = \"/var/lib/farmbell/agent\" in agent.toml, or accept it for a throw-away host",
        );
    }
    Finding::ok("durability", "the state lies on a disk")
}

fn key(state: &Path) -> Finding {
    let file = identity_directory(state).join("key.pem");
    let path = file.display();
    match fs::metadata(&file) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Finding::failed(
            "key",
            format!("{path} can be read by others"),
            format!("chmod 600 {path}; then revoke this agent and join again"),
        ),
        Ok(_) => Finding::ok("key", format!("{path}, for its owner only")),
        Err(_) => Finding::failed(
            "key",
            "this host has no identity yet",
            "type on the coordinator: farmbell token create; and here the line it prints",
        ),
    }
}

fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    if seconds < CLOCK_MIN {
        return Finding::degraded(
            "clock",
            "the clock lies years back; the farm does not mind, builds and archives may",
            "apt-get install systemd-timesyncd",
        );
    }
    Finding::ok("clock", "plausible")
}

fn root(is_root: bool, unit: Option<&Unit>) -> Finding {
    if is_root {
        return Finding::ok("root", "the agent is root");
    }
    if unit.is_some() {
        return Finding::ok("root", "not needed: the launcher stands in for it");
    }
    let user = nix::unistd::geteuid();
    Finding::degraded(
        "root",
        format!(
            "an ordinary user (uid {user}): reset scripts may do what that user may, and no more; \
             control groups can come from a launcher only"
        ),
        "sudo systemctl enable --now farmbell-agent, whose launcher stands in for root",
    )
}

fn service_manager() -> Finding {
    if Path::new("/run/systemd/system").is_dir() {
        return Finding::ok("systemd", "it runs this host");
    }
    Finding::degraded(
        "systemd",
        "it does not run here: nobody starts the agent again when it ends or the host restarts",
        "with sysvinit: echo 'fb:2345:respawn:farmbell-agent run' >> /etc/inittab; telinit q",
    )
}

fn launcher(is_root: bool, unit: Option<&Unit>) -> Finding {
    if unit.is_some() {
        return Finding::ok("launcher", "it answers; builds belong to it");
    }
    if is_root {
        return Finding::ok("launcher", "not needed: root launches by itself");
    }
    Finding::degraded(
        "launcher",
        "none: builds belong to whatever started the agent, and end with it where that ends all \
         it started",
        "sudo systemctl start farmbell-launcher; without systemd: farmbell-agent launcher --socket \
         SOCKET & farmbell-agent run --launcher SOCKET",
    )
}

fn control_groups(place: &Place) -> Finding {
    if place.is_none() {
        return Finding::degraded(
            "control groups",
            "none can be made: a limit on memory holds per process, those on processes and processor \
             time not at all; a build whose supervisor dies puts its builder out of service",
            "sudo systemctl start farmbell-launcher, which has one handed to it; or run the agent as \
             root",
        );
    }
    let missing: Vec<&str> = ["memory", "pids", "cpu"]
        .into_iter()
        .filter(|controller| !place.limits(controller))
        .collect();
    let version = match (&place.v2, place.v1.is_empty()) {
        (Some(_), true) => "version 2",
        (Some(_), false) => "versions 1 and 2",
        (None, _) => "version 1",
    };
    if missing.is_empty() {
        return Finding::ok("control groups", format!("{version}, with all controllers"));
    }
    Finding::degraded(
        "control groups",
        format!(
            "{version}, without {}: those limits are not enforced",
            missing.join(", ")
        ),
        "boot with systemd.unified_cgroup_hierarchy=1",
    )
}

fn namespaces() -> Finding {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match tried {
        Ok(status) if status.success() => Finding::ok("namespaces", "user namespaces can be made"),
        Ok(_) => Finding::degraded(
            "namespaces",
            "user namespaces are refused: no sandbox, and no sbuild in unshare mode",
            "sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000",
        ),
        Err(_) => Finding::degraded(
            "namespaces",
            "there is no 'unshare' to try them with",
            "apt-get install util-linux",
        ),
    }
}

fn isolation() -> Finding {
    Finding::degraded(
        "isolation",
        "rung 'process': a build runs as the agent's own user and could read its key; for trusted \
         submitters only",
        "for others, hosts that are thrown away after each build: farmbell-agent run --once",
    )
}

fn found_in_path(program: &str) -> bool {
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .any(|directory| Path::new(directory).join(program).is_file())
}

fn build_tools() -> Finding {
    let missing: Vec<&str> = ["dpkg-source", "dpkg-buildpackage", "dpkg-checkbuilddeps"]
        .into_iter()
        .filter(|program| !found_in_path(program))
        .collect();
    if missing.is_empty() {
        return Finding::ok("Debian packages", "dpkg-dev is there");
    }
    Finding::degraded(
        "Debian packages",
        format!(
            "no {}: the recipe debian-binary cannot run",
            missing.join(", ")
        ),
        "apt-get install dpkg-dev build-essential fakeroot",
    )
}

fn chroots(directory: Option<&Path>) -> Finding {
    let Some(directory) = directory else {
        return Finding::degraded(
            "chroots",
            "none: packages are built right on this host, with what is installed",
            "set chroots = \"/srv/chroots\" in agent.toml, then look again",
        );
    };
    let path = directory.display();
    if !found_in_path("sbuild") {
        return Finding::failed(
            "chroots",
            format!("{path} is configured, and there is no sbuild to use it"),
            "apt-get install sbuild mmdebstrap uidmap",
        );
    }
    let count = fs::read_dir(directory).map_or(0, |entries| entries.filter_map(Result::ok).count());
    if count == 0 {
        let name = format!("unstable-{}", facts::architecture());
        return Finding::failed(
            "chroots",
            format!("no chroot in {path}"),
            format!("mkdir -p {path}; mmdebstrap --variant=buildd unstable {path}/{name}.tar.zst"),
        );
    }
    Finding::ok("chroots", format!("sbuild, {count} files in {path}"))
}

fn scripts(config: &Config) -> Finding {
    let scripts = config
        .builders
        .iter()
        .flat_map(|builder| builder.reset.iter().chain(&builder.probe));
    for script in scripts {
        if let Err(error) = crate::script::may_run(script) {
            let path = script.argv.first().map_or("", String::as_str);
            let fix = format!("chown root {path}; chmod 755 {path}");
            return Finding::failed("reset scripts", error.to_string(), fix);
        }
    }
    Finding::ok(
        "reset scripts",
        "each belongs to root or to the agent alone",
    )
}
