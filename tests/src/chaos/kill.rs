//! `kill -9` of agents and coordinators, at random moments and at every named
//! failpoint between "written" and "said".

use std::time::{Duration, Instant};

use farmbell_coordinator::failpoint::{Failpoint, VARIABLE};

use super::load::Load;
use super::{Dice, Report};
use crate::harness::{BuilderPlan, Events, TestFarm};

/// A failpoint that was not passed by then is not on this load's way.
const FAILPOINT_PATIENCE: Duration = Duration::from_secs(20);
/// The longest time between two random kills.
const PAUSE_MAX_MS: u32 = 1500;

/// Kills `kills` agents and as many coordinators, and dies once at each
/// failpoint.
///
/// # Errors
/// If the farm cannot be set up; what chaos broke stands in the report.
pub fn kill(seed: u64, kills: u32) -> anyhow::Result<Report> {
    let mut chaos = Chaos::set_up(seed);
    for _ in 0..kills {
        chaos.kill_an_agent();
        chaos.kill_the_coordinator();
    }
    for point in Failpoint::ALL.iter().filter(|point| point.ends_process()) {
        chaos.die_at(*point);
    }
    chaos.load.finish(&mut chaos.events);
    let mut report = chaos.report;
    chaos.load.judge(&mut report);
    Ok(report)
}

struct Chaos {
    farm: TestFarm,
    load: Load,
    events: Events,
    dice: Dice,
    report: Report,
}

impl Chaos {
    fn set_up(seed: u64) -> Self {
        let mut farm = TestFarm::start();
        for agent in ["a1", "a2"] {
            let builders: Vec<_> = (1..=3)
                .map(|number| BuilderPlan::named(&format!("{agent}-b{number}")))
                .collect();
            farm.add_agent(agent, &builders);
        }
        Self {
            load: Load::on(&farm),
            events: farm.events(),
            farm,
            dice: Dice::of(seed),
            report: Report {
                what: "kill",
                seed,
                ..Report::default()
            },
        }
    }

    fn kill_an_agent(&mut self) {
        self.go_on_for_a_while();
        let count = u32::try_from(self.farm.agents.len()).expect("a handful");
        let victim = usize::try_from(self.dice.roll(count)).expect("a handful");
        let agent = &mut self.farm.agents[victim];
        agent.kill();
        agent.start();
        self.report.fault("agent killed");
    }

    fn kill_the_coordinator(&mut self) {
        self.go_on_for_a_while();
        self.farm.coordinator.kill();
        self.farm.coordinator.restart();
        self.report.fault("coordinator killed");
    }

    /// Restarts the coordinator so that it dies at a point, and waits for that.
    fn die_at(&mut self, point: Failpoint) {
        self.load.top_up(&mut self.dice);
        self.farm.coordinator.kill();
        let times = 1 + self.dice.roll(20);
        let value = format!("{}:{times}", point.name());
        let started = self
            .farm
            .coordinator
            .try_restart_with(&[(VARIABLE, &value)]);
        let coordinator = &mut self.farm.coordinator;
        let hit = !started
            || coordinator
                .daemon
                .wait_at_most(FAILPOINT_PATIENCE)
                .is_some();
        if hit {
            self.report.fault(point.name());
        } else {
            self.report
                .broken
                .push(format!("failpoint {} was never passed", point.name()));
            coordinator.kill();
        }
        coordinator.restart();
    }

    /// Lets the farm work, with work ahead, for a time that the dice say.
    fn go_on_for_a_while(&mut self) {
        self.load.top_up(&mut self.dice);
        let pause = Duration::from_millis(u64::from(self.dice.roll(PAUSE_MAX_MS)));
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(entry) = self.events.next_within(left, |_| true) else {
                return;
            };
            self.load.saw(&entry.kind, entry.job.as_deref());
        }
    }
}
