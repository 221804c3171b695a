//! The simulation as CI runs it. Run it optimised:
//! `cargo test --profile sim -p farmbell-tests --no-default-features --test sim`.
//! Longer runs: `cargo run --release -p farmbell-tests --bin sim`.

use farmbell_farm::Mutation;
use farmbell_tests::sim::{self, Coverage, Fault, Plan, Struck};

/// Small worlds that CI runs.
const SMALL: u64 = 1_000;
/// Worlds of 500 builders and 5,000 jobs that CI runs.
const LARGE: u64 = 10;
/// Worlds in which a planted fault has to show itself.
const PLANTED: u64 = 5_000;

fn all_hold(plan: &Plan, seeds: u64) -> Coverage {
    let mut coverage = Coverage::default();
    let mut executions = 0;
    for outcome in sim::sweep(plan, 1, seeds) {
        if let Some(broken) = &outcome.broken {
            panic!(
                "{} is broken: {}\nagain: {}",
                broken.invariant, broken.what, outcome.replay
            );
        }
        executions += outcome.executions;
        coverage.add(&outcome.coverage);
    }
    // Worlds in which nothing runs would hold, too.
    let (fewest, _) = plan.agents;
    let seeds = usize::try_from(seeds).expect("a count of worlds");
    assert!(executions > seeds * fewest * 10, "{executions} executions");
    coverage
}

#[test]
fn a_thousand_small_worlds_hold_and_every_fault_strikes_every_state() {
    let coverage = all_hold(&Plan::small(), SMALL);
    let missed: Vec<(Fault, Struck)> = coverage.below(1);
    assert!(missed.is_empty(), "never tried: {missed:?}");
}

#[test]
fn ten_worlds_of_five_hundred_builders_hold() {
    all_hold(&Plan::large(), LARGE);
}

#[test]
fn one_seed_is_one_world() {
    for seed in 1..=20 {
        let (first, second) = (
            sim::run(&Plan::small(), seed, false),
            sim::run(&Plan::small(), seed, false),
        );
        assert_eq!(
            (first.hash, first.steps),
            (second.hash, second.steps),
            "seed {seed}"
        );
    }
    let other = sim::run(&Plan::small(), 21, false);
    assert_ne!(other.hash, sim::run(&Plan::small(), 22, false).hash);
}

#[test]
fn every_switch_is_found() {
    for &mutation in Mutation::ALL {
        let found = sim::find(mutation, 1, PLANTED);
        assert!(
            found.outcome.is_some(),
            "no world noticed {}",
            sim::mutation_name(mutation)
        );
    }
}

#[test]
fn every_scenario_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = std::fs::read_to_string(root.join("tests/SCENARIOS.md")).unwrap();
    let mut sources = String::new();
    for part in ["agent", "coordinator", "protocol", "tests"] {
        read_sources(&root.join(part), &mut sources);
    }
    let names = table.split('`').skip(1).step_by(2);
    let mut tests = 0;
    for name in names.filter(|name| name.contains('_') && !name.contains('/')) {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "SCENARIOS.md names {name}, which no source file has"
        );
        tests += 1;
    }
    assert!(tests > 30, "{tests} names found in the table");
}

fn read_sources(directory: &std::path::Path, sources: &mut String) {
    let entries = std::fs::read_dir(directory).expect("the workspace can be read");
    for entry in entries {
        let path = entry.expect("the workspace can be read").path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).expect("sources are text"));
        }
    }
}
