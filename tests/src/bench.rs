//! The figures: what is measured, beside what the machine could do at best.
//!
//! Each figure is a [`Row`]. Beside it stands its *floor*: a small reference
//! program that does the unavoidable work and nothing else, run in turn with
//! the measurement, so that a noisy machine slows both. A mark is a ratio to
//! the floor; absolute values are information. Nothing here decides anything
//! in a test: speed lives in `bench`, which prints a table.

mod brain;
pub mod chain;
mod cycles;
pub mod disk;
mod faults;
mod flood;
mod footprint;
mod idle_with_work;
mod latency;
pub mod machine;
mod million;
mod nginx;
mod poison;
mod process;
pub mod quic;
pub mod row;
pub mod sample;
mod stall;
mod throughput;
mod upload;
mod wire;

use std::cell::OnceCell;
use std::path::Path;

use million::Million;
use row::Row;

use crate::harness::{Binaries, BuilderPlan, TestFarm};

/// Measures one figure or some that belong together.
pub type Measure = fn(&Plan) -> anyhow::Result<Vec<Row>>;

/// The figures, by the name that the command line gives them. Some are
/// measured together.
pub const FIGURES: &[(&str, Measure)] = &[
    ("start", latency::start),
    ("turnaround", latency::turnaround),
    ("idle-with-work", idle_with_work::measure),
    ("jobs", throughput::measure),
    ("upload", upload::measure),
    ("start-under-upload", latency::start_under_upload),
    ("memory", footprint::memory),
    ("agent-size", footprint::size),
    ("idle-wire", wire::measure),
    ("faults", faults::measure),
    ("poison", poison::measure),
    ("flood", flood::measure),
    ("decisions", brain::measure),
    ("restore", million::restore),
    ("cycles", cycles::measure),
];

/// How much to measure.
#[derive(Debug)]
pub struct Plan {
    pub binaries: Binaries,
    /// A tenth of the runs: to see that it works, not to judge.
    pub short: bool,
    /// Filled by the first figure that needs it.
    million: OnceCell<Million>,
}

impl Plan {
    #[must_use]
    pub fn new(binaries: Binaries, short: bool) -> Self {
        Self {
            binaries,
            short,
            million: OnceCell::new(),
        }
    }

    /// The store of a million waiting jobs.
    fn million(&self) -> anyhow::Result<&Million> {
        if let Some(million) = self.million.get() {
            return Ok(million);
        }
        let filled = Million::fill(self)?;
        Ok(self.million.get_or_init(|| filled))
    }

    fn runs(&self, full: usize) -> usize {
        if self.short { full.div_ceil(10) } else { full }
    }

    fn floor_program(&self) -> String {
        self.binaries.floor().display().to_string()
    }

    /// A farm with one agent and this many builders that clean by themselves.
    fn farm(&self, builders: usize) -> TestFarm {
        let mut farm = TestFarm::start();
        let plans: Vec<_> = (0..builders)
            .map(|number| BuilderPlan::named(&format!("b{number}")))
            .collect();
        farm.add_agent("a", &plans);
        farm
    }

    /// The command that writes the moment of its first instruction to `path`.
    fn stamp(&self, path: &Path) -> Vec<String> {
        vec![
            self.floor_program(),
            "stamp".to_owned(),
            path.display().to_string(),
        ]
    }

    /// The command that writes its first and its last moment to `path`.
    fn span(&self, path: &Path) -> Vec<String> {
        let path = path.display().to_string();
        vec![self.floor_program(), "span".to_owned(), path]
    }
}

/// Debian's name of this machine's architecture, as agents offer it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
