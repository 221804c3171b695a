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
mod ending;
mod faults;
mod host;
mod network;
mod offers;
mod operators;
mod plan;
mod reasons;
mod rng;
mod running;
mod script;
mod store;
mod sweep;
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "who asks looks for one answer among many"
)]
mod what_if;
mod world;

pub use checker::Broken;
pub use coverage::{Coverage, Struck};
pub use faults::Fault;
pub use plan::Plan;
pub use reasons::Reasons;
pub use store::SimStore;
pub use sweep::{Found, find, sweep};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use world::World;

/// What many worlds have tried between them.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    pub coverage: Coverage,
    pub reasons: Reasons,
}

impl Tried {
    pub fn add(&mut self, outcome: &Outcome) {
        self.coverage.add(&outcome.coverage);
        self.reasons.add(&outcome.reasons);
    }

    /// What was tried less often than a whole run of this plan has to.
    #[must_use]
    pub fn missing(&self, plan: &Plan) -> Vec<String> {
        let struck = self.coverage.below(plan.struck_min);
        let struck = struck.into_iter().map(|(fault, struck)| {
            let times = self.coverage.get(fault, struck);
            format!("{} while {}: {times}", fault.name(), struck.name())
        });
        let reasons = self.reasons.below(plan.reasons_min);
        let reasons = reasons.into_iter().map(|name| format!("reason {name}"));
        struck.chain(reasons).collect()
    }
}

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
    pub reasons: Reasons,
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
        reasons: world.reasons.clone(),
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
