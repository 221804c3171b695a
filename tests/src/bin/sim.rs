//! The long runs of the simulation. Owns the command line and the printing.
//!
//! `sim [small|tight|large|farm|planted] [--seed N] [--seeds N] [--output table|json]`
//! exits with 0 only if everything held and, in a whole run of a plan, every
//! kind of trouble struck every state as often as the plan demands.
#![expect(clippy::print_stdout, reason = "the report is this program's purpose")]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use farmbell_farm::Mutation;
use farmbell_tests::sim::{self, Coverage, Fault, Outcome, Plan, Reasons, Struck, Tried};

#[derive(Debug, Parser)]
#[command(about = "Simulated farms: virtual time, seeded faults, the real brains")]
struct Args {
    /// Which worlds.
    #[arg(value_enum, default_values_t = [What::Small, What::Large, What::Planted])]
    what: Vec<What>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, each its own world [default: 1000 small, 200 tight, 10 large, 3 farm, 5000 planted].
    #[arg(long)]
    seeds: Option<u64>,
    /// Take one protection away.
    #[arg(long, value_parser = mutation)]
    planted: Option<Mutation>,
    /// Print everything that happens (with one seed).
    #[arg(long)]
    trace: bool,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Small,
    Tight,
    Large,
    Farm,
    Planted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn mutation(text: &str) -> Result<Mutation, String> {
    let mut all = Mutation::ALL.iter().copied();
    all.find(|mutation| sim::mutation_name(*mutation) == text)
        .ok_or_else(|| {
            let names: Vec<String> = Mutation::ALL
                .iter()
                .map(|m| sim::mutation_name(*m))
                .collect();
            format!(
                "there is no planted fault '{text}'; there are: {}",
                names.join(", ")
            )
        })
}

fn main() -> ExitCode {
    let args = Args::parse();
    let held = args.what.iter().all(|what| match what {
        What::Small => worlds(&args, Plan::small()),
        What::Tight => worlds(&args, Plan::tight()),
        What::Large => worlds(&args, Plan::large()),
        What::Farm => worlds(&args, Plan::farm()),
        What::Planted => planted(&args),
    });
    if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn worlds(args: &Args, mut plan: Plan) -> bool {
    plan.mutation = args.planted;
    let seeds = args.seeds.unwrap_or(plan.worlds);
    let outcomes = if args.trace {
        vec![sim::run(&plan, args.seed, true)]
    } else {
        sim::sweep(&plan, args.seed, seeds)
    };
    let mut tried = Tried::default();
    for outcome in &outcomes {
        tried.add(outcome);
        if outcome.broken.is_some() || outcomes.len() <= 20 {
            print_world(args, &plan, outcome);
        }
    }
    print_sum(args, &plan, &outcomes);
    if args.output == Output::Table && args.planted.is_none() {
        print_coverage(&tried.coverage);
        print_reasons(&tried.reasons);
    }
    let held = outcomes.iter().all(|outcome| outcome.broken.is_none());
    // Fewer worlds than a run has need not try everything.
    let whole = !args.trace && seeds >= plan.worlds && held;
    let missing = if whole {
        tried.missing(&plan)
    } else {
        Vec::new()
    };
    for pair in &missing {
        println!("{}: tried too seldom: {pair}", plan.name);
    }
    held && missing.is_empty()
}

fn print_world(args: &Args, plan: &Plan, outcome: &Outcome) {
    let took = outcome.took.as_secs_f64();
    match args.output {
        Output::Json => println!(
            "{}",
            serde_json::json!({
                "world": plan.name,
                "seed": outcome.seed,
                "hash": format!("{:016x}", outcome.hash),
                "steps": outcome.steps,
                "events": outcome.events,
                "executions": outcome.executions,
                "virtual_s": outcome.virtual_time.as_secs(),
                "took_s": took,
                "broken": outcome.broken.as_ref().map(|broken| {
                    serde_json::json!({"invariant": broken.invariant, "what": broken.what})
                }),
                "replay": outcome.replay,
            })
        ),
        Output::Table => {
            println!(
                "{} seed {}: hash {:016x}, {} steps, {} farm events, {} executions, {} virtual s, {took:.1} s",
                plan.name,
                outcome.seed,
                outcome.hash,
                outcome.steps,
                outcome.events,
                outcome.executions,
                outcome.virtual_time.as_secs(),
            );
            if let Some(broken) = &outcome.broken {
                println!("  {} BROKEN: {}", broken.invariant, broken.what);
                println!("  again: {}", outcome.replay);
            }
        }
    }
}

fn print_sum(args: &Args, plan: &Plan, outcomes: &[Outcome]) {
    let events: u64 = outcomes.iter().map(|outcome| outcome.events).sum();
    let executions: usize = outcomes.iter().map(|outcome| outcome.executions).sum();
    let broken = outcomes.iter().filter(|o| o.broken.is_some()).count();
    if args.output == Output::Table {
        println!(
            "{}: {} worlds, {events} farm events, {executions} executions, {broken} broken",
            plan.name,
            outcomes.len()
        );
    }
}

fn print_coverage(coverage: &Coverage) {
    print!("{:<36}", "fault struck a job that was");
    for struck in Struck::ALL {
        print!("{:>11}", struck.name());
    }
    println!();
    for &fault in Fault::ALL {
        print!("{:<36}", fault.name());
        for &struck in Struck::ALL {
            print!("{:>11}", coverage.get(fault, struck));
        }
        println!();
    }
}

fn print_reasons(reasons: &Reasons) {
    println!("a reason was put to the test on a copy of the farm");
    for (name, times) in reasons.all() {
        println!("{name:<36}{times:>11}");
    }
}

fn planted(args: &Args) -> bool {
    let mut all = true;
    for &mutation in Mutation::ALL {
        let found = sim::find(mutation, args.seed, args.seeds.unwrap_or(5_000));
        let name = sim::mutation_name(mutation);
        let took = found.took.as_secs_f64();
        match found.outcome.and_then(|outcome| outcome.broken) {
            Some(broken) => println!(
                "{name:<22} found by {:<14} in {:>4} worlds, {took:>6.2} s",
                broken.invariant, found.worlds
            ),
            None => {
                all = false;
                println!(
                    "{name:<22} NOT FOUND in {} worlds, {took:.2} s",
                    found.worlds
                );
            }
        }
    }
    all
}
