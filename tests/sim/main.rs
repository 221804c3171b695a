//! The simulation as CI runs it. Run it optimised:
//! `cargo test --profile sim -p farmbell-tests --no-default-features --test sim`.
//! Longer runs: `cargo run --release -p farmbell-tests --bin sim`.

use std::time::{SystemTime, UNIX_EPOCH};

use farmbell_farm::Mutation;
use farmbell_tests::sim::{self, Plan, Tried};

/// Worlds of fresh seeds.
const FRESH_SMALL: u64 = 300;
const FRESH_TIGHT: u64 = 100;
const FRESH_LARGE: u64 = 2;
/// Worlds in which a planted fault has to show itself.
const PLANTED: u64 = 5_000;

fn all_hold(plan: &Plan, first: u64, seeds: u64) -> Tried {
    let mut tried = Tried::default();
    let mut executions = 0;
    for outcome in sim::sweep(plan, first, seeds) {
        if let Some(broken) = &outcome.broken {
            panic!(
                "{} is broken: {}\nagain: {}",
                broken.invariant, broken.what, outcome.replay
            );
        }
        executions += outcome.executions;
        tried.add(&outcome);
    }
    // Worlds in which nothing runs would hold, too.
    let (fewest, _) = plan.agents;
    let seeds = usize::try_from(seeds).expect("a count of worlds");
    assert!(executions > seeds * fewest * 10, "{executions} executions");
    tried
}

#[test]
fn a_thousand_small_worlds_hold_and_every_fault_strikes_every_state() {
    let plan = Plan::small();
    let missing = all_hold(&plan, 1, plan.worlds).missing(&plan);
    assert!(missing.is_empty(), "tried too seldom: {missing:#?}");
}

#[test]
fn ten_worlds_of_five_hundred_builders_hold() {
    let plan = Plan::large();
    let missing = all_hold(&plan, 1, plan.worlds).missing(&plan);
    assert!(missing.is_empty(), "tried too seldom: {missing:#?}");
}

/// A cure may lead to a hold: the job then waits beside a free builder, and
/// that is the next reason.
#[test]
fn a_cure_that_leads_to_a_hold_has_told_the_truth() {
    all_hold(&Plan::small(), 1_795_908_232_249, 1);
}

/// Worlds that nobody has seen before. A broken one names its command; it
/// becomes a fixed seed here with its repair.
#[test]
fn worlds_of_fresh_seeds_hold() {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let first = since_1970.expect("today is after 1970").as_secs() * 1_000;
    println!("fresh seeds from {first} on");
    all_hold(&Plan::small(), first, FRESH_SMALL);
    all_hold(&Plan::tight(), first, FRESH_TIGHT);
    all_hold(&Plan::large(), first, FRESH_LARGE);
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
