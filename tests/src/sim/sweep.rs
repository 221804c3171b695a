//! Many worlds at once: one thread per core, results in the order of seeds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use farmbell_farm::Mutation;

use super::{Outcome, Plan, run};

/// Runs `count` seeds from `first` on; ends early after the first broken one.
#[must_use]
pub fn sweep(plan: &Plan, first: u64, count: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(first);
    let broken = AtomicBool::new(false);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || broken.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(plan, seed, false);
                    broken.fetch_or(outcome.broken.is_some(), Ordering::Relaxed);
                    done.lock()
                        .expect("no thread panics while it holds the list")
                        .push(outcome);
                }
            });
        }
    });
    let mut outcomes = done
        .into_inner()
        .expect("no thread panics while it holds the list");
    outcomes.sort_by_key(|outcome: &Outcome| outcome.seed);
    outcomes
}

/// A planted fault, and the first world that noticed it.
#[derive(Clone, Debug)]
pub struct Found {
    pub mutation: Mutation,
    /// Worlds tried, the last of which noticed.
    pub worlds: u64,
    pub took: std::time::Duration,
    /// None where no world noticed.
    pub outcome: Option<Outcome>,
}

/// Looks for a planted fault in up to `count` small and tight worlds by turns.
#[must_use]
pub fn find(mutation: Mutation, first: u64, count: u64) -> Found {
    let began = std::time::Instant::now();
    let plans = [Plan::small().with(mutation), Plan::tight().with(mutation)];
    for (seed, plan) in (first..first + count).zip(plans.iter().cycle()) {
        let outcome = run(plan, seed, false);
        if outcome.broken.is_some() {
            return Found {
                mutation,
                worlds: seed - first + 1,
                took: began.elapsed(),
                outcome: Some(outcome),
            };
        }
    }
    Found {
        mutation,
        worlds: count,
        took: began.elapsed(),
        outcome: None,
    }
}
