//! The figures, as a table or as JSON; ends with 0 only if each was measured and
//! every judged one is at its mark. Owns the command line and the order, nothing
//! that is measured.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use farmbell_tests::bench::machine::Machine;
use farmbell_tests::bench::row::Table;
use farmbell_tests::bench::{FIGURES, Plan};
use farmbell_tests::harness::Binaries;

/// Measure the farm on this machine, each figure beside its floor
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
        bench                          every figure, a quarter of an hour\n  \
        bench start turnaround         some of them\n  \
        bench faults --short           a tenth of the runs: to see that it works\n  \
        bench memory --output json     for programs\n\n\
        Ends with 0 only if each was measured and every judged one is at its mark. Daemons are\n\
        built as the packages hold them; FARMBELL_TEST_BINARIES=DIR takes those in DIR instead.")]
struct Arguments {
    /// Which figures; all without a name
    what: Vec<String>,
    /// Accepted for all long runs; nothing here is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Whole rounds; the last one is shown
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    #[arg(long, default_value = "table")]
    output: Format,
    /// A tenth of the runs: to see that it works, not to judge
    #[arg(long)]
    short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    for name in &arguments.what {
        let known = FIGURES.iter().any(|(figure, _)| figure == name);
        let names: Vec<_> = FIGURES.iter().map(|(figure, _)| *figure).collect();
        anyhow::ensure!(
            known,
            "no figure is called {name}; there are: {}",
            names.join(" ")
        );
    }
    let plan = Plan::new(Binaries::built(), arguments.short);
    let place = place_of_farms()?;
    let mut held = true;
    for _ in 0..arguments.seeds {
        held &= round(&plan, &arguments)?;
    }
    // What a farm left behind stays; then this is refused, and rightly.
    drop(std::fs::remove_dir(place));
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A directory for all farms of this run. Where many files were just deleted
/// ext4 searches long for the place of a new one, for minutes after, and one
/// figure would pay for the one before; below a directory with this flag each
/// farm lies in another part of the disk.
fn place_of_farms() -> anyhow::Result<PathBuf> {
    let place = tempfile::Builder::new()
        .prefix("farmbell-bench-")
        .tempdir()?
        .keep();
    // Other file systems have no such flag, and no such search.
    drop(Command::new("chattr").arg("+T").arg(&place).output());
    if let Err(other) = tempfile::env::override_temp_dir(&place) {
        anyhow::bail!("temporary files lie in {} already", other.display());
    }
    Ok(place)
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is what this program is for"
)]
fn round(plan: &Plan, arguments: &Arguments) -> anyhow::Result<bool> {
    let mut rows = Vec::new();
    let mut unmeasured = Vec::new();
    let wanted =
        |name: &&str| arguments.what.is_empty() || arguments.what.iter().any(|what| what == *name);
    for (name, measure) in FIGURES.iter().filter(|(name, _)| wanted(name)) {
        eprintln!("measuring {name}");
        match measure(plan) {
            // A run that is cut off keeps what it had measured.
            Ok(measured) => {
                for row in measured {
                    eprintln!("  {}", row.to_line());
                    rows.push(row);
                }
            }
            // So does one that lacks a program for one of its figures.
            Err(error) => {
                eprintln!("  {error:#}");
                unmeasured.push(*name);
            }
        }
    }
    let table = Table {
        machine: Machine::look(&std::env::temp_dir())?,
        rows,
    };
    match arguments.output {
        Format::Table => print!("{}", table.to_text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&table)?),
    }
    if !unmeasured.is_empty() {
        eprintln!(
            "not measured, for the reasons above: {}",
            unmeasured.join(" ")
        );
    }
    Ok(unmeasured.is_empty() && table.all_held())
}
