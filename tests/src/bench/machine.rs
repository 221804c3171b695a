//! What the figures were measured on, and whether it was quiet: a busy machine
//! makes every wake-up wait for the scheduler's tick, and no absolute value
//! means anything then.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::disk;
use super::sample::ms;

/// Below this median of one fsync a machine counts as quiet.
const QUIET_FSYNC: Duration = Duration::from_micros(500);

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub memory_gib: u64,
    pub fsync_p50_ms: f64,
    pub quiet: bool,
}

impl Machine {
    /// Looks at this machine; writes and syncs a little below `dir`.
    ///
    /// # Errors
    /// If `dir` cannot be written.
    pub fn look(dir: &Path) -> anyhow::Result<Self> {
        let fsync = disk::fsyncs(dir, 101)?.median();
        Ok(Self {
            cpu: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            memory_gib: memory_kib() >> 20,
            fsync_p50_ms: ms(fsync),
            quiet: fsync < QUIET_FSYNC,
        })
    }
}

fn line_of(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with(key))
        .find_map(|line| {
            line.split_once(':')
                .map(|(_, value)| value.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn memory_kib() -> u64 {
    let line = line_of("/proc/meminfo", "MemTotal");
    line.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.quiet {
            "quiet"
        } else {
            "busy: absolute values mean little"
        };
        write!(
            f,
            "{} × {}, {} GiB, Linux {}, fsync p50 {:.2} ms ({state})",
            self.cores, self.cpu, self.memory_gib, self.kernel, self.fsync_p50_ms
        )
    }
}
