//! `farmbell-coordinator serve`: wires the parts and runs them until a signal.

use crate::config::Config;

/// # Errors
/// Until the doors for agents are there.
pub fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("no doors yet for {}", config.control)
}
