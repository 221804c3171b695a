//! Kills and cuts real daemons under load; ends with 0 only if all held. Owns
//! the command line, none of the faults.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use farmbell_tests::chaos::net::{self, Pace};
use farmbell_tests::chaos::{Report, kill, power, signals};

/// Break a real farm in every way and see that nothing is lost
#[derive(Debug, Parser)]
struct Arguments {
    /// Which kinds of chaos; all without a name
    what: Vec<What>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs with this many seeds, from `--seed` on
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// For `kill`: kills of agents, and as many of coordinators
    #[arg(long, default_value_t = 300)]
    kills: usize,
    /// For `power`: states of each host that are looked at
    #[arg(long, default_value_t = 2000)]
    images: usize,
    /// For `power`: moments at which both hosts come up again on what is left
    #[arg(long, default_value_t = 10)]
    restarts: usize,
    #[arg(long, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Kill,
    Net,
    Power,
    Signals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[expect(
    clippy::print_stdout,
    reason = "the report is what this program is for"
)]
fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let kinds = match arguments.what.as_slice() {
        [] => What::value_variants(),
        some => some,
    };
    let mut reports = Vec::new();
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        for kind in kinds {
            reports.push(match kind {
                What::Kill => kill::kill(seed, arguments.kills)?,
                What::Net => net::net(seed, Pace::Long)?,
                What::Power => power::power(seed, arguments.images, arguments.restarts)?,
                What::Signals => signals::signals(seed, &signals::Size::whole())?,
            });
        }
    }
    match arguments.output {
        Format::Table => reports.iter().for_each(print),
        Format::Json => println!("{}", serde_json::to_string_pretty(&reports)?),
    }
    let held = reports.iter().all(|report| report.broken.is_empty());
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(
    clippy::print_stdout,
    reason = "the report is what this program is for"
)]
fn print(report: &Report) {
    println!(
        "{} (seed {}): {} jobs",
        report.what, report.seed, report.jobs
    );
    for (fault, times) in &report.faults {
        println!("  {times:>5} × {fault}");
    }
    for side in &report.coverage {
        let (hit, points) = (side.hit, side.points);
        println!("  {hit} of {points} failpoints of the {}", side.side);
    }
    for broken in &report.broken {
        println!("  BROKEN {broken}");
    }
}
