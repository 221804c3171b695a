//! What goes wrong, at random: one fault at a time, each counted with the
//! states it hit.

use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::Fitness;

use super::checker::Broken;
use super::coordinator::CrashPoint;
use super::world::{Happening, World};

macro_rules! faults {
    ($($name:ident $text:literal $weight:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($name,)* }
        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            const fn weight(self) -> u64 {
                match self { $(Self::$name => $weight,)* }
            }
        }
    };
}

faults! {
    CrashBeforeCommit "coordinator dies before a commit" 8;
    CrashAfterCommit "coordinator dies before the effects" 8;
    CrashAmidEffects "coordinator dies amid effects" 8;
    CrashLoop "coordinator dies every few seconds" 2;
    StoreFails "store full" 6;
    StoreSlow "store slow" 4;
    WallJump "wall clock jumps" 3;
    AgentCrash "agent dies" 16;
    Reboot "host reboots" 8;
    LongAbsence "host away for minutes" 6;
    SpoolLost "spool lost" 2;
    Cut "connection cut" 20;
    Partition "silent partition" 8;
    BlackHole "black hole" 2;
    Unfit "host unfit" 5;
}

impl Fault {
    /// Rather than one agent.
    pub(super) fn strikes_coordinator(self) -> bool {
        match self {
            Self::CrashBeforeCommit
            | Self::CrashAfterCommit
            | Self::CrashAmidEffects
            | Self::CrashLoop
            | Self::StoreFails
            | Self::StoreSlow
            | Self::WallJump => true,
            Self::AgentCrash
            | Self::Reboot
            | Self::LongAbsence
            | Self::SpoolLost
            | Self::Cut
            | Self::Partition
            | Self::BlackHole
            | Self::Unfit => false,
        }
    }
}

impl World {
    pub(super) fn fault(&mut self) -> Result<(), Broken> {
        if !self.trouble() {
            return Ok(());
        }
        let every = u64::try_from(self.plan.fault_every.as_millis()).unwrap_or(1000);
        let pause = self.rng.millis(0, 2 * every);
        self.after(pause, Happening::Fault);
        let mut point = self
            .rng
            .below(Fault::ALL.iter().map(|fault| fault.weight()).sum());
        let mut chosen = Fault::Cut;
        for &fault in Fault::ALL {
            if point < fault.weight() {
                chosen = fault;
                break;
            }
            point -= fault.weight();
        }
        if chosen.strikes_coordinator()
            && !self.rng.per_mille(self.plan.coordinator_faults_per_mille)
        {
            return Ok(());
        }
        let agent = self.rng.index(self.agents.len());
        self.trace(|| format!("fault: {} (agent {agent})", chosen.name()));
        self.cover(chosen, agent);
        self.inflict(chosen, agent)
    }

    fn inflict(&mut self, fault: Fault, agent: usize) -> Result<(), Broken> {
        match fault {
            Fault::CrashBeforeCommit => self.coordinator.crash_at = Some(CrashPoint::BeforeCommit),
            Fault::CrashAfterCommit => self.coordinator.crash_at = Some(CrashPoint::AfterCommit),
            Fault::CrashAmidEffects => self.coordinator.crash_at = Some(CrashPoint::AmidEffects),
            Fault::CrashLoop => {
                for round in 1..=20 {
                    let at = Duration::from_millis(round * 2_700);
                    self.after(at, Happening::CoordinatorCrash);
                }
            }
            Fault::StoreFails => {
                let until = self.now + self.rng.millis(500, 60_000);
                self.coordinator.store_fails_until = until;
            }
            Fault::StoreSlow => {
                let until = self.now + self.rng.millis(500, 60_000);
                self.coordinator.store_slow_until = until;
            }
            Fault::WallJump => self.coordinator.wall_offset = self.rng.below(1 << 42),
            Fault::AgentCrash => {
                self.agent_crash(agent);
                self.start_after(agent, 50, 5_000);
            }
            Fault::Reboot => {
                self.reboot(agent);
                self.start_after(agent, 5_000, 40_000);
            }
            Fault::LongAbsence => {
                self.agent_crash(agent);
                self.start_after(agent, 50_000, 300_000);
            }
            Fault::SpoolLost => {
                self.lose_spool(agent);
                self.start_after(agent, 5_000, 40_000);
            }
            Fault::Cut => self.cut(agent, 0, 2_000),
            Fault::Partition => self.cut(agent, 30_000, 200_000),
            Fault::BlackHole => {
                let index = self.rng.index(self.agents[agent].builders.len());
                self.agents[agent].builders[index].black_hole = true;
            }
            Fault::Unfit => {
                let kinds = [
                    Fitness::DiskLow,
                    Fitness::ReadOnly,
                    Fitness::Throttled,
                    Fitness::Fit,
                ];
                let fitness = kinds[self.rng.index(kinds.len())];
                let index = self.rng.index(self.agents[agent].builders.len());
                self.condition(agent, index, fitness);
            }
        }
        Ok(())
    }

    fn start_after(&mut self, agent: usize, from: u64, to: u64) {
        let pause = self.rng.millis(from, to);
        self.after(pause, Happening::AgentStart { agent });
    }

    /// Nothing passes any more; each side notices when it does.
    fn cut(&mut self, agent: usize, from: u64, to: u64) {
        let Some(id) = self.agents[agent].conn else {
            return;
        };
        let lost = self.rng.per_mille(500);
        let (here, there) = (self.rng.millis(from, to), self.notice_time());
        if let Some(conn) = self.network.get_mut(id) {
            conn.cut = true;
            conn.lost |= lost;
        }
        self.after(here, Happening::AgentNotices { agent, conn: id });
        self.after(there, Happening::CoordinatorNotices { conn: id });
    }
}
