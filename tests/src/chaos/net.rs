//! Bad networks between real daemons: a plug pulled, packets lost, large ones
//! swallowed, addresses that change, and a coordinator that is away.

use std::time::Duration;

use super::load::{Load, Shape};
use super::{Dice, Report};
use crate::harness::{Around, BuilderPlan, CoordinatorPlan, Events, Network, Plug, TestFarm};

/// The coordinator's host, and one host for each agent.
const COORDINATOR: usize = 0;
const AGENTS: [(usize, &str); 2] = [(1, "a1"), (2, "a2")];
/// After a fault, so that what it broke shows before the next.
const BREATH: Duration = Duration::from_secs(2);

/// Artifacts of some 2 MB, so that bulk connections use large packets.
const SHAPE: Shape = Shape {
    log_lines: 1000,
    artifact_lines: 120_000,
    pause_max_ms: 1500,
};

/// How long faults last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Seconds: for every test run.
    Short,
    /// Up to minutes: sessions end, and builders become unreachable.
    Long,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Unplugged(Duration),
    /// Of a hundred packets each way, so many are lost.
    Loss(u32, Duration),
    /// Packets of more bytes than this vanish without a word.
    BlackHole(u32, Duration),
    NewAddress,
    Rebound,
    CoordinatorAway(Duration),
}

impl Pace {
    fn faults(self) -> Vec<Fault> {
        let seconds = |short: u64, long: u64| {
            Duration::from_secs(match self {
                Self::Short => short,
                Self::Long => long,
            })
        };
        let mut faults = vec![
            Fault::Unplugged(seconds(3, 8)),
            Fault::Loss(20, seconds(6, 40)),
            Fault::BlackHole(1300, seconds(6, 30)),
            Fault::NewAddress,
            Fault::Rebound,
            Fault::CoordinatorAway(seconds(3, 150)),
        ];
        if self == Self::Long {
            // Past every idle timeout, and before builders count as lost.
            faults.push(Fault::Unplugged(Duration::from_secs(75)));
        }
        faults
    }
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Unplugged(time) => format!("agent unplugged for {} s", time.as_secs()),
            Self::Loss(percent, time) => {
                format!("{percent} % lost both ways for {} s", time.as_secs())
            }
            Self::BlackHole(bytes, time) => {
                let seconds = time.as_secs();
                format!("packets over {bytes} bytes swallowed for {seconds} s")
            }
            Self::NewAddress => "agent with a new address".to_owned(),
            Self::Rebound => "new ports at the address translation".to_owned(),
            Self::CoordinatorAway(time) => format!("coordinator away for {} s", time.as_secs()),
        }
    }
}

/// Each fault once, in an order that the seed says.
///
/// # Errors
/// If the networks cannot be made; what chaos broke stands in the report.
pub fn net(seed: u64, pace: Pace) -> anyhow::Result<Report> {
    let mut chaos = Chaos::set_up(seed)?;
    let mut faults = pace.faults();
    chaos.dice.shuffle(&mut faults);
    chaos.go_on(BREATH);
    for fault in faults {
        super::progress(format_args!("{}", fault.name()));
        chaos.strike(fault)?;
        chaos.go_on(BREATH);
    }
    chaos.load.finish(&mut chaos.events);
    let mut report = chaos.report;
    chaos.load.judge(&mut report);
    Ok(report)
}

struct Chaos {
    // Daemons end before their networks go.
    farm: TestFarm,
    load: Load,
    events: Events,
    dice: Dice,
    report: Report,
    network: Network,
}

impl Chaos {
    fn set_up(seed: u64) -> anyhow::Result<Self> {
        let hosts = u8::try_from(1 + AGENTS.len())?;
        let network = Network::of(hosts)?;
        let mut farm = TestFarm::start_as(&CoordinatorPlan {
            around: Some(Around::Host(network.host(COORDINATOR))),
            ..CoordinatorPlan::default()
        });
        for (host, agent) in AGENTS {
            let builders: Vec<_> = (1..=2)
                .map(|number| BuilderPlan::named(&format!("{agent}-b{number}")))
                .collect();
            farm.add_agent_inside(Some(Around::Host(network.host(host))), agent, &builders);
        }
        Ok(Self {
            events: farm.events(),
            load: Load::on(&farm, SHAPE, seed),
            farm,
            dice: Dice::of(seed),
            report: Report::of("net", seed),
            network,
        })
    }

    fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        let (victim, _) = AGENTS[self.dice.below(AGENTS.len())];
        match fault {
            Fault::Unplugged(time) => {
                self.network.plug(victim, Plug::Out)?;
                self.go_on(time);
                self.network.plug(victim, Plug::In)?;
            }
            Fault::Loss(percent, time) => {
                let rule = format!("numgen random mod 100 < {percent}");
                self.dropping(&fault, &rule, time)?;
            }
            Fault::BlackHole(bytes, time) => {
                self.dropping(&fault, &format!("meta length > {bytes}"), time)?;
            }
            Fault::NewAddress => self.network.readdress(victim)?,
            Fault::Rebound => self.network.rebind()?,
            Fault::CoordinatorAway(time) => self.be_away(time),
        }
        self.report.fault(&fault.name());
        Ok(())
    }

    /// A fault that dropped nothing was none.
    fn dropping(&mut self, fault: &Fault, rule: &str, time: Duration) -> anyhow::Result<()> {
        let before = self.network.dropped()?;
        self.network.drop_what(rule)?;
        self.go_on(time);
        self.network.heal()?;
        if self.network.dropped()? == before {
            let broken = format!("nothing was dropped: {}", fault.name());
            self.report.broken.push(broken);
        }
        Ok(())
    }

    fn be_away(&mut self, time: Duration) {
        self.farm.coordinator.kill();
        // An agent that is still there then has sat it out.
        let ended = self.farm.agents[0].daemon.wait_at_most(time);
        if let Some(status) = ended {
            let broken = format!("an agent ended while the coordinator was away: {status}");
            self.report.broken.push(broken);
        }
        self.farm.coordinator.restart();
        // Who followed the history may have given up meanwhile.
        self.go_on(Duration::ZERO);
        self.events = self.farm.coordinator.events_after(self.events.last_seq());
    }

    fn go_on(&mut self, time: Duration) {
        super::go_on(&mut self.load, &mut self.events, time);
    }
}
