//! `poison`: how long the farm is away after an event that makes it panic:
//! from the start of the next process until it serves, the event set aside and
//! its agent frozen.

use anyhow::Context as _;

use super::Plan;
use super::row::{Mark, Row};
use super::sample::Samples;
use crate::harness::{BuilderPlan, PATIENCE, TestFarm};

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut away = Samples::default();
    for _ in 0..plan.runs(10) {
        let mut farm = TestFarm::start();
        farm.add_agent("bad", &[BuilderPlan::named("b")]);
        farm.coordinator.kill();
        farm.coordinator
            .restart_with(&[("FARMBELL_FAILPOINT", "driver.panic-in-handle")]);
        // Whatever it ends as: its first report is the poison.
        drop(farm.cli().submit_script(&[], "true"));
        let ended = farm.coordinator.daemon.wait(PATIENCE);
        let ended = ended.context("the coordinator did not end over its poison")?;
        anyhow::ensure!(!ended.success(), "no event was poison");
        away.time(|| {
            farm.coordinator.restart();
            Ok(())
        })?;
        let agents = farm.cli().json(&["agents"]).to_string();
        anyhow::ensure!(agents.contains("frozen"), "nobody was frozen: {agents}");
    }
    Ok(vec![Row {
        id: "poison",
        what: "back after a poison event, its agent frozen".to_owned(),
        unit: "s",
        median: away.median().as_secs_f64(),
        p99: Some(away.p99().as_secs_f64()),
        runs: away.runs(),
        floor: None,
        mark: Mark::AtMost(1.0),
        note: "from the start of the process until it says that it is ready".to_owned(),
    }])
}
