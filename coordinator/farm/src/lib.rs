//! The brain of a Farmbell farm. Pure: no clock, no sockets, no threads.
//!
//! [`Farm::handle`] takes one [`Event`](event::Event) and gives back
//! [`Effect`](effect::Effect)s in order: changes first, which have to be
//! durable before any other effect of the batch is performed. The same
//! snapshot, seed and events give the same effects.
#![forbid(unsafe_code)]

mod agents;
mod bits;
mod blame;
mod breaches;
mod builders;
mod bulk;
mod cancel;
mod clock;
mod deadlines;
mod dependencies;
mod dormant;
pub mod effect;
mod estimates;
pub mod event;
pub mod explain;
mod farm;
mod forecast;
mod hello;
mod invariants;
mod jobs;
mod leases;
mod ledger;
mod mutation;
mod operator;
mod overview;
mod pace;
mod placement;
mod queue;
pub mod record;
mod relation;
mod reports;
mod reset;
mod restore;
mod retire;
mod retries;
mod score;
mod seal;
mod settings;
mod step;
#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_in_result,
    reason = "a story looks for one thing among many and fails loudly"
)]
mod stories;
mod submit;
mod sweep;
mod tokens;
mod verdicts;
mod versions;
mod welcome;

pub use farm::Farm;
pub use invariants::Breach;
pub use mutation::Mutation;
pub use score::Scores;
pub use seal::SealKey;
pub use settings::{Limits, Settings, Share};
