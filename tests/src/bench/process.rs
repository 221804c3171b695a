//! What a process uses, as the kernel counts it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Resident and anonymous memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) anonymous: u64,
}

pub(super) fn memory_of(pid: Pid) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = |key: &str| -> anyhow::Result<u64> {
        let line = text.lines().find(|line| line.starts_with(key));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(number
            .with_context(|| format!("{path} has no {key}"))?
            .parse()?)
    };
    Ok(Memory {
        resident: kib("Rss:")? << 10,
        anonymous: kib("Anonymous:")? << 10,
    })
}

/// How often all threads that live now went to sleep so far: each wake-up ends
/// with one.
pub(super) fn sleeps_of(pid: Pid) -> anyhow::Result<u32> {
    let mut sleeps = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("status");
        // A thread may end while the list is read.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count: u32 = line.context("a thread counts its sleeps")?.trim().parse()?;
        sleeps += count;
    }
    Ok(sleeps)
}

/// User and system time so far, in milliseconds (to a clock tick).
pub(super) fn cpu_ms_of(pid: Pid) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The command's name may hold spaces; it ends with the last parenthesis.
    let rest = text
        .rsplit_once(')')
        .context("a stat line names its command")?
        .1;
    let field = |number: usize| -> anyhow::Result<u32> {
        let word = rest.split_whitespace().nth(number);
        Ok(word.context("a stat line has its fields")?.parse()?)
    };
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has a tick")?;
    let ticks = field(11)? + field(12)?;
    Ok(f64::from(ticks) * 1000.0 / f64::from(i32::try_from(per_second)?))
}

/// The processes that run this subcommand of ours for something below
/// `directory`.
pub(super) fn running(subcommand: &str, directory: &Path) -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since the directory was read.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let mut words = line.split(|byte| *byte == 0).skip(1).map(OsStr::from_bytes);
        let is_it = words.next().is_some_and(|word| word == subcommand)
            && words
                .next()
                .is_some_and(|word| Path::new(word).starts_with(directory));
        if is_it {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
