//! What Farmbell itself takes: memory of an idle agent, of a coordinator with
//! fifty idle builders, of a supervisor; and the size of the agent.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::Plan;
use super::process::{Memory, memory_of, running};
use super::row::{Mark, Row};
use crate::harness::BuilderPlan;

pub(super) fn memory(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    const BUILDERS: usize = 50;
    let mut farm = plan.farm(BUILDERS);
    let coordinator = memory_of(farm.coordinator.daemon.pid().context("it runs")?)?;
    let alone = farm.add_agent(
        "alone",
        &[BuilderPlan::named("alone").with("tags = [\"alone\"]")],
    );
    let agent = memory_of(alone.daemon.pid().context("it runs")?)?;

    let mut events = farm.events();
    let job = farm
        .cli()
        .submit_script(&["--tag", "alone"], "exec sleep 600");
    events.next_of_job("job.running", &job);
    let supervisors = running("supervise", farm.path())?;
    let supervisor = supervisors
        .first()
        .context("a running attempt has a supervisor")?;
    let supervisor = memory_of(*supervisor)?;
    farm.cli().run(&["job", "cancel", &job]).succeeds();

    let mut rows = pair("agent-memory", "agent idle", agent, 9.0, 3.0);
    rows.extend(pair(
        "supervisor-memory",
        "per running attempt",
        supervisor,
        4.0,
        0.4,
    ));
    rows.push(row(
        "coordinator-memory",
        "with 50 idle builders, resident",
        coordinator.resident,
        40.0,
    ));
    Ok(rows)
}

pub(super) fn size(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let bytes = std::fs::metadata(plan.binaries.agent())?.len();
    let mut binary = row("agent-size", "the agent's stripped binary", bytes, 5.0);
    "as in the package: built alone, in its own profile".clone_into(&mut binary.note);
    let packed = packed_bytes(&plan.binaries.agent())?;
    let mut package = row(
        "agent-size",
        "the same, packed as a .deb packs it",
        packed,
        2.0,
    );
    "xz of the binary; the package's other files are below 30 kB".clone_into(&mut package.note);
    Ok(vec![binary, package])
}

/// What a package of nothing but this file has, compressed as ours are.
fn packed_bytes(file: &Path) -> anyhow::Result<u64> {
    let packed = Command::new("xz")
        .args(["--stdout", "--keep"])
        .arg(file)
        .output();
    let packed = packed.context("xz packs it: apt install xz-utils")?;
    anyhow::ensure!(packed.status.success(), "xz failed: {}", packed.status);
    Ok(packed.stdout.len() as u64)
}

fn pair(id: &'static str, what: &str, memory: Memory, resident: f64, anonymous: f64) -> Vec<Row> {
    vec![
        row(id, &format!("{what}, resident"), memory.resident, resident),
        row(
            id,
            &format!("{what}, anonymous"),
            memory.anonymous,
            anonymous,
        ),
    ]
}

fn row(id: &'static str, what: &str, bytes: u64, most: f64) -> Row {
    Row {
        id,
        what: what.to_owned(),
        unit: "MB",
        median: u32::try_from(bytes / 1000).map_or(f64::INFINITY, f64::from) / 1000.0,
        p99: None,
        runs: 1,
        floor: None,
        mark: Mark::AtMost(most),
        note: String::new(),
    }
}
