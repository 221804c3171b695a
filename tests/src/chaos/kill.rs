//! `kill -9` of agents and coordinators, at random moments and at every named
//! failpoint between "written" and "said" on both sides.

use std::time::{Duration, Instant};

use farmbell_agent::failpoint as agent;
use farmbell_coordinator::failpoint as coordinator;
use farmbell_protocol::failpoint::Point as _;

use super::load::{Load, Shape};
use super::{Coverage, Dice, Report};
use crate::harness::{BuilderPlan, Events, TestFarm};

/// A failpoint that was not passed by then is not on this load's way.
const FAILPOINT_PATIENCE: Duration = Duration::from_secs(60);
/// The longest time between two random kills.
const PAUSE_MAX_MS: u32 = 1500;
/// How long an end may go unnoticed while the history is read.
const GLANCE: Duration = Duration::from_millis(50);
/// A point is the death of this passing at the latest. The coordinator passes
/// its points for all agents, so more often.
const AGENT_PASSINGS: u32 = 3;
const COORDINATOR_PASSINGS: u32 = 20;

const SHAPE: Shape = Shape {
    log_lines: 200,
    artifact_lines: 2000,
    pause_max_ms: 2500,
};

/// Kills agents `kills` times and coordinators as often, about half of them at
/// failpoints, of which each is died at.
///
/// # Errors
/// If the farm cannot be set up; what chaos broke stands in the report.
pub fn kill(seed: u64, kills: usize) -> anyhow::Result<Report> {
    let mut chaos = Chaos::set_up(seed);
    let strikes = strikes(kills, &mut chaos.dice);
    for (done, strike) in strikes.iter().enumerate() {
        super::progress(format_args!(
            "{} of {}: {}",
            done + 1,
            strikes.len(),
            strike.side.fault(strike.point)
        ));
        chaos.strike(*strike);
    }
    chaos.load.finish(&mut chaos.events);
    let mut report = chaos.report;
    chaos.load.judge(&mut report);
    report.covers(Side::Agent.name(), &Side::Agent.points());
    report.covers(Side::Coordinator.name(), &Side::Coordinator.points());
    Ok(report)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Agent,
    Coordinator,
}

/// One death; without a point at a random moment.
#[derive(Clone, Copy, Debug)]
struct Strike {
    side: Side,
    point: Option<&'static str>,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
        }
    }

    /// Every point of this side that ends the process.
    fn points(self) -> Vec<&'static str> {
        match self {
            Self::Agent => {
                let all = agent::Failpoint::ALL.iter();
                let deadly = all.filter(|point| point.ends_process());
                deadly.map(|point| point.name()).collect()
            }
            Self::Coordinator => {
                let all = coordinator::Failpoint::ALL.iter();
                let deadly = all.filter(|point| point.ends_process());
                deadly.map(|point| point.name()).collect()
            }
        }
    }

    /// How the report calls a death of this side.
    fn fault(self, point: Option<&str>) -> String {
        match point {
            Some(point) => format!("{} {point}", self.name()),
            None => format!("{} at random", self.name()),
        }
    }
}

/// All deaths of a run, in the order that the dice say.
fn strikes(kills: usize, dice: &mut Dice) -> Vec<Strike> {
    let mut strikes = Vec::new();
    for side in [Side::Agent, Side::Coordinator] {
        let points = side.points();
        let each = (kills / 2 / points.len()).max(1);
        let at_points = points.into_iter().flat_map(|point| vec![Some(point); each]);
        let mut of_side: Vec<_> = at_points.collect();
        of_side.resize(kills.max(of_side.len()), None);
        strikes.extend(of_side.into_iter().map(|point| Strike { side, point }));
    }
    dice.shuffle(&mut strikes);
    strikes
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
            events: farm.events(),
            load: Load::on(&farm, SHAPE, seed),
            farm,
            dice: Dice::of(seed),
            report: Report::of("kill", seed),
        }
    }

    fn strike(&mut self, Strike { side, point }: Strike) {
        let struck = match (side, point) {
            (Side::Agent, None) => {
                self.go_on_for_a_while();
                let victim = self.victim();
                self.farm.agents[victim].kill();
                self.farm.agents[victim].start();
                true
            }
            (Side::Coordinator, None) => {
                self.go_on_for_a_while();
                self.farm.coordinator.kill();
                self.farm.coordinator.restart();
                self.approve_frozen();
                true
            }
            (Side::Agent, Some(point)) => self.agent_dies_at(point),
            (Side::Coordinator, Some(point)) => self.coordinator_dies_at(point),
        };
        let fault = side.fault(point);
        if struck {
            self.report.fault(&fault);
        } else {
            let broken = format!("the failpoint {fault} was never passed");
            self.report.broken.push(broken);
        }
    }

    fn victim(&mut self) -> usize {
        self.dice.below(self.farm.agents.len())
    }

    /// Restarts an agent so that it dies at a point, and waits for that.
    fn agent_dies_at(&mut self, point: &str) -> bool {
        let victim = self.victim();
        let armed = format!("{point}:{}", 1 + self.dice.roll(AGENT_PASSINGS));
        let agent = &mut self.farm.agents[victim];
        agent.kill();
        let started = agent.try_start_with(&[(agent::VARIABLE, &armed)]);
        let died = !started
            || self.dies(|farm, glance| farm.agents[victim].daemon.wait_at_most(glance).is_some());
        let agent = &mut self.farm.agents[victim];
        agent.kill();
        agent.start();
        died
    }

    /// The same for the coordinator.
    fn coordinator_dies_at(&mut self, point: &str) -> bool {
        // A Welcome is said once to each agent, the rest all the time.
        let passings = if point == coordinator::Failpoint::WelcomeUnsaid.name() {
            u32::try_from(self.farm.agents.len()).expect("a handful")
        } else {
            COORDINATOR_PASSINGS
        };
        let armed = format!("{point}:{}", 1 + self.dice.roll(passings));
        let coordinator = &mut self.farm.coordinator;
        coordinator.kill();
        let started = coordinator.try_restart_with(&[(coordinator::VARIABLE, &armed)]);
        let died = !started
            || self.dies(|farm, glance| farm.coordinator.daemon.wait_at_most(glance).is_some());
        let coordinator = &mut self.farm.coordinator;
        coordinator.kill();
        coordinator.restart();
        self.approve_frozen();
        died
    }

    /// A report that was in hand when the farm panicked, or twice when the
    /// process died, is set aside and its agent frozen: by design an operator
    /// looks before it goes on.
    fn approve_frozen(&mut self) {
        let cli = self.farm.cli();
        if !cli.json(&["agents"]).to_string().contains("\"frozen\"") {
            return;
        }
        for agent in &self.farm.agents {
            let approve = ["agent", "approve", &agent.name, "--reason", "looked at it"];
            cli.run(&approve).succeeds();
        }
        self.report
            .fault("agents approved after a report was set aside");
    }

    /// Lets the farm work until a daemon is dead, or until patience ends.
    fn dies(&mut self, is_dead: impl Fn(&mut TestFarm, Duration) -> bool) -> bool {
        let until = Instant::now() + FAILPOINT_PATIENCE;
        while Instant::now() < until {
            if is_dead(&mut self.farm, Duration::ZERO) {
                return true;
            }
            self.go_on(GLANCE);
        }
        false
    }

    /// Lets the farm work for a time that the dice say.
    fn go_on_for_a_while(&mut self) {
        let pause = u64::from(self.dice.roll(PAUSE_MAX_MS));
        self.go_on(Duration::from_millis(pause));
    }

    /// Lets the farm work, with work ahead.
    fn go_on(&mut self, pause: Duration) {
        super::go_on(&mut self.load, &mut self.events, pause);
    }
}

impl Report {
    /// Notes how many of a side's points were died at.
    fn covers(&mut self, side: &'static str, points: &[&str]) {
        let hit = points
            .iter()
            .filter(|point| self.faults.contains_key(&format!("{side} {point}")))
            .count();
        self.coverage.push(Coverage {
            side,
            hit,
            points: points.len(),
        });
    }
}
