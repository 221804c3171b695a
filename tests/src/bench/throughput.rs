//! No-op jobs per second over fifty builders with real processes, every fact
//! durable; and what the coordinator computes for each.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::chain::Chain;
use super::process::cpu_ms_of;
use super::row::{Floor, Mark, Row};
use super::{Plan, architecture};

const BUILDERS: usize = 50;
/// Chains at once: enough that both cores and the disk always have one to do.
const CHAINS: usize = 8;
/// The most that one submit may hold.
const SUBMISSION: usize = 256;

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let farm = plan.farm(BUILDERS);
    let coordinator = farm.coordinator.daemon.pid().context("it runs")?;
    let mut api = farm.api();
    let rounds = plan.runs(10);
    let mut rates = Vec::new();
    let mut floors = Vec::new();
    let mut cpu = Vec::new();
    for round in 0..rounds {
        floors.push(chains_per_second(
            &plan.binaries.floor(),
            farm.path(),
            round,
        )?);
        let before = cpu_ms_of(coordinator)?;
        let began = Instant::now();
        let commands = vec![vec!["/bin/true".to_owned()]; SUBMISSION];
        for job in api.submit(architecture(), &commands)? {
            api.wait(&job)?;
        }
        rates.push(count(SUBMISSION) / began.elapsed().as_secs_f64());
        cpu.push((cpu_ms_of(coordinator)? - before) / count(SUBMISSION));
    }
    Ok(vec![
        Row {
            id: "jobs",
            what: "no-op jobs per second, 50 builders, durable".to_owned(),
            unit: "/s",
            median: median(rates),
            p99: None,
            runs: rounds * SUBMISSION,
            floor: Some(Floor {
                what: "chains/s, 8 at once",
                median: median(floors),
                runs: rounds * SUBMISSION,
            }),
            mark: Mark::FloorTimesAtLeast(0.5),
            note: format!("submitted by {SUBMISSION}; from the submit to the last verdict"),
        },
        Row {
            id: "coordinator-cpu",
            what: "coordinator CPU per no-op job".to_owned(),
            unit: "ms",
            median: median(cpu),
            p99: None,
            runs: rounds * SUBMISSION,
            floor: None,
            mark: Mark::AtMost(1.5),
            note: "with one wait request and answer per job".to_owned(),
        },
    ])
}

fn chains_per_second(floor: &Path, directory: &Path, round: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CHAINS)
            .map(|thread| {
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut chain = Chain::default();
                    for run in 0..SUBMISSION / CHAINS {
                        let number = (round * CHAINS + thread) * SUBMISSION + run;
                        chain.run(floor, directory, number)?;
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            let done = thread.join();
            done.map_err(|_| anyhow::anyhow!("a chain panicked"))??;
        }
        anyhow::Ok(())
    })?;
    Ok(count(SUBMISSION) / began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
