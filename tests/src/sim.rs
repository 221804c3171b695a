//! The simulation: thousands of real [`Builder`](farmbell_protocol::builder::Builder)
//! brains against the real [`Farm`](farmbell_farm::Farm), in virtual time, under
//! seeded faults. It replaces time, network, disks and processes, never a brain.
//!
//! A world is a [`Plan`] and a seed; the same two give the same world to the
//! last step. After every batch the farm's own invariants are checked on what
//! it touched; every committed change, answer, acknowledgement and execution is
//! checked from outside; and once the trouble is over everything has to end.

mod agent;
mod bulk;
mod checker;
mod clients;
mod coordinator;
mod coverage;
mod faults;
mod host;
mod network;
mod plan;
mod rng;
mod running;
mod script;
mod store;
mod sweep;
mod world;

pub use checker::Broken;
pub use coverage::{Coverage, Struck};
pub use faults::Fault;
pub use plan::Plan;
pub use store::SimStore;
pub use sweep::{Found, find, sweep};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use world::World;

/// What came of one world.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Equal for two runs of one plan and seed.
    pub hash: u64,
    pub steps: u64,
    /// Events the farm handled.
    pub events: u64,
    /// Attempts that really ran.
    pub executions: usize,
    pub virtual_time: Duration,
    pub took: Duration,
    pub coverage: Coverage,
    pub broken: Option<Broken>,
    /// The one command that shows it again.
    pub replay: String,
}

/// Runs one world to its end, or to the first broken invariant.
#[must_use]
pub fn run(plan: &Plan, seed: u64, tracing: bool) -> Outcome {
    let began = Instant::now();
    let mut world = World::new(plan.clone(), seed, tracing);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let broken = match result {
        Ok(result) => result.err(),
        Err(panic) => Some(Broken {
            invariant: "panic",
            what: words(panic.as_ref()),
        }),
    };
    let planted = plan.mutation.map_or_else(String::new, |mutation| {
        format!(" --planted {}", mutation_name(mutation))
    });
    Outcome {
        seed,
        hash: world.hash.0,
        steps: world.steps(),
        events: world.events,
        executions: world.checker.tally.len(),
        virtual_time: world.now.since(farmbell_protocol::time::Time::ZERO),
        took: began.elapsed(),
        coverage: world.coverage.clone(),
        broken,
        replay: format!(
            "cargo run --release -p farmbell-tests --bin sim -- {} --seed {seed}{planted} --trace",
            plan.name
        ),
    }
}

/// The name of a planted fault, as `--planted` takes it.
#[must_use]
pub fn mutation_name(mutation: farmbell_farm::Mutation) -> String {
    format!("{mutation:?}")
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "it panicked without words".to_owned())
}
