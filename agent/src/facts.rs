//! What this host is: its name, architecture, kernel, size, and which run of
//! the kernel this is. Read from the host, never decided on here.

use std::fs;
use std::path::Path;

use farmbell_protocol::agent_to_coordinator::{Fact, fact};
use farmbell_protocol::bounded::{Blob, List};
use farmbell_protocol::id::BootId;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};

/// The host's name, reduced to what a name may have.
#[must_use]
pub fn hostname() -> String {
    let raw = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "agent".to_owned());
    let plain: String = raw
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || "._-".contains(*letter))
        .take(64)
        .collect();
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() { "agent" } else { plain }.to_owned()
}

/// Debian's name of the architecture that this program was built for.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Which run of the kernel this is.
///
/// # Errors
/// If the kernel does not say.
pub fn boot_id() -> std::io::Result<BootId> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).map_err(std::io::Error::other)?;
    Ok(BootId(number.to_be_bytes()))
}

/// All memory of the host; 0 where it cannot be read.
#[must_use]
pub fn memory_bytes() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib << 10)
}

/// Bytes that may still be written below `path`; 0 where it cannot be told.
#[must_use]
pub fn free_bytes(path: &Path) -> u64 {
    match statfs(path) {
        Ok(found) => found
            .blocks_available()
            .saturating_mul(u64::try_from(found.block_size()).unwrap_or(0)),
        Err(errno) => {
            tracing::warn!(path = %path.display(), %errno, "free space cannot be told");
            0
        }
    }
}

/// Whether nothing can be written below `path`, as after a disk's error.
#[must_use]
pub fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

/// What the spool's durability rests on.
#[must_use]
pub fn durability(path: &Path) -> &'static str {
    let is = |kind: FsType| statfs(path).is_ok_and(|found| found.filesystem_type() == kind);
    if is(TMPFS_MAGIC) { "tmpfs" } else { "disk" }
}

/// What is told in each Hello.
#[must_use]
pub fn told(state: &Path, degraded: &[String]) -> List<Fact, 64> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut facts = vec![
        of(fact::HOSTNAME, &hostname()),
        of(fact::KERNEL, kernel.trim()),
        of(fact::OS, &os_name()),
        of(fact::CPUS, &cpus.to_string()),
        of(fact::MEMORY_BYTES, &memory_bytes().to_string()),
        of(fact::SPOOL_DURABILITY, durability(state)),
    ];
    // As many of them as there is room for in a Hello.
    facts.extend(
        degraded
            .iter()
            .take(32)
            .map(|line| of(fact::DEGRADED, line)),
    );
    List::new(facts).unwrap_or_default()
}

fn of(kind: u16, text: &str) -> Fact {
    let mut bytes = text.as_bytes().to_vec();
    bytes.truncate(1024);
    let value = Blob::new(bytes).unwrap_or_default();
    Fact { kind, value }
}

fn os_name() -> String {
    fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
            Some(line.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| "Linux".to_owned())
}
