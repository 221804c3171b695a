//! What goes wrong, at random: one fault at a time, each counted with the
//! states it hit.

use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::Fitness;
use farmbell_protocol::builder::Event;
use farmbell_protocol::time::Time;

use super::coordinator::CrashPoint;
use super::coverage::Struck;
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
    CommitFails "commit fails, outcome unknown" 6;
    StoreFull "store full" 6;
    StoreSlow "store slow" 4;
    WallJump "wall clock jumps" 4;
    AgentCrash "agent dies" 16;
    Reboot "host reboots" 8;
    LongAbsence "host away for minutes" 6;
    SpoolLost "spool lost" 4;
    AgentLeaves "agent finishes and leaves" 5;
    Cut "connection cut" 12;
    Lost "packets lost with their connection" 10;
    Partition "silent partition" 8;
    Late "messages late" 6;
    Twice "messages twice" 6;
    OldAgain "old messages after newer ones" 6;
    ResetHangs "resets hang" 5;
    ResetFails "resets fail" 5;
    BlackHole "black hole" 4;
    Unfit "host unfit" 6;
    LaterEpoch "agent shows a later epoch" 2;
    // Not drawn here: they are counted where they happen.
    Poison "poison job takes its host down" 0;
    Cancel "job cancelled" 0;
    Supersede "job superseded" 0;
    Suspend "job suspended" 0;
    Resume "job resumed" 0;
    Rescore "job given another score" 0;
    Bulk "many jobs changed" 0;
    Brake "brake set or lifted" 0;
    Disable "builder disabled" 0;
    Drain "builder drained" 0;
    Manual "builder set to manual" 0;
    Quarantine "builder quarantined" 0;
    Enable "builder enabled" 0;
    HandReset "builder reset by hand" 0;
    SetResetRule "reset rule set" 0;
    RemoveBuilder "builder removed" 0;
    RevokeAgent "agent revoked" 0;
    RemoveAgent "agent removed" 0;
}

/// Whom trouble strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Coordinator,
    Agent,
    Job,
    /// An operator's act on everything, a builder, or an agent.
    Operator,
}

impl Fault {
    fn aim(self) -> Aim {
        match self {
            Self::CrashBeforeCommit
            | Self::CrashAfterCommit
            | Self::CrashAmidEffects
            | Self::CrashLoop
            | Self::CommitFails
            | Self::StoreFull
            | Self::StoreSlow
            | Self::WallJump => Aim::Coordinator,
            Self::AgentCrash
            | Self::Reboot
            | Self::LongAbsence
            | Self::SpoolLost
            | Self::AgentLeaves
            | Self::Cut
            | Self::Lost
            | Self::Partition
            | Self::Late
            | Self::Twice
            | Self::OldAgain
            | Self::ResetHangs
            | Self::ResetFails
            | Self::BlackHole
            | Self::Unfit
            | Self::LaterEpoch
            | Self::Poison => Aim::Agent,
            Self::Cancel | Self::Supersede | Self::Suspend | Self::Resume | Self::Rescore => {
                Aim::Job
            }
            Self::Bulk
            | Self::Brake
            | Self::Disable
            | Self::Drain
            | Self::Manual
            | Self::Quarantine
            | Self::Enable
            | Self::HandReset
            | Self::SetResetRule
            | Self::RemoveBuilder
            | Self::RevokeAgent
            | Self::RemoveAgent => Aim::Operator,
        }
    }

    /// Whether the pair can be at all: what is done to one job strikes no
    /// builder's reset.
    pub(super) fn can_strike(self, struck: Struck) -> bool {
        self.aim() != Aim::Job || struck != Struck::Resetting
    }
}

/// Spells of trouble round one agent, each until it is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spells {
    pub(super) late: Time,
    pub(super) twice: Time,
    pub(super) old_again: Time,
    pub(super) resets_hang: Time,
    pub(super) resets_fail: Time,
}

/// Of a thousand times that jobs lose their attempt so many draw trouble.
const HUNTS_PER_MILLE: u64 = 600;

impl World {
    pub(super) fn fault(&mut self) {
        if !self.trouble() {
            return;
        }
        let every = u64::try_from(self.plan.fault_every.as_millis()).unwrap_or(1000);
        let pause = self.rng.millis(0, 2 * every);
        self.after(pause, Happening::Fault);
        self.strike(self.plan.coordinator_faults_per_mille);
    }

    /// Where builders are many, a job whose lost attempt may come back runs
    /// again within a second: left to chance, the rarer kinds of trouble would
    /// never meet one.
    pub(super) fn hunt_soon(&mut self) {
        if self.plan.hunts && self.rng.per_mille(HUNTS_PER_MILLE) {
            let pause = self.rng.millis(0, 50);
            self.after(pause, Happening::Hunt);
        }
    }

    pub(super) fn hunt(&mut self) {
        if self.trouble() {
            self.strike(1000);
            let job = self.coordinator.store.lost.first().copied();
            self.act_on(job);
        }
    }

    /// Trouble of any kind; the coordinator's as often as told.
    fn strike(&mut self, coordinator_per_mille: u64) {
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
        let of_coordinator = chosen.aim() == Aim::Coordinator;
        if of_coordinator && !self.rng.per_mille(coordinator_per_mille) {
            return;
        }
        let agent = self.any_agent();
        self.trace(|| format!("fault: {} (agent {agent})", chosen.name()));
        if of_coordinator {
            self.strike_all(chosen);
            self.strike_coordinator(chosen);
        } else {
            self.strike_agent(chosen, agent);
            self.inflict(chosen, agent);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are never drawn for it"
    )]
    fn strike_coordinator(&mut self, fault: Fault) {
        let until = self.now + self.rng.millis(500, 60_000);
        let this = &mut self.coordinator;
        match fault {
            Fault::CrashBeforeCommit => this.crash_at = Some(CrashPoint::BeforeCommit),
            Fault::CrashAfterCommit => this.crash_at = Some(CrashPoint::AfterCommit),
            Fault::CrashAmidEffects => this.crash_at = Some(CrashPoint::AmidEffects),
            Fault::CommitFails => this.crash_at = Some(CrashPoint::InCommit),
            Fault::StoreFull => this.store_fails_until = until,
            Fault::StoreSlow => this.store_slow_until = until,
            Fault::WallJump => this.wall_offset = self.rng.below(1 << 42),
            Fault::CrashLoop => {
                for round in 1..=20 {
                    let at = Duration::from_millis(round * 2_700);
                    self.after(at, Happening::CoordinatorCrash);
                }
            }
            other => unreachable!("{} is not the coordinator's", other.name()),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are never drawn for it"
    )]
    fn inflict(&mut self, fault: Fault, agent: usize) {
        let until = self.now + self.rng.millis(5_000, 60_000);
        let spells = &mut self.agents[agent].spells;
        match fault {
            Fault::Late => spells.late = until,
            Fault::Twice => spells.twice = until,
            Fault::OldAgain => spells.old_again = until,
            Fault::ResetHangs => spells.resets_hang = until,
            Fault::ResetFails => spells.resets_fail = until,
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
            Fault::AgentLeaves => {
                for index in 0..self.agents[agent].builders.len() {
                    self.tell(agent, index, Event::Drain);
                }
                let life = self.agents[agent].life;
                let pause = self.rng.millis(1_000, 30_000);
                self.after(pause, Happening::AgentLeaves { agent, life });
            }
            Fault::Cut => self.cut(agent, false, 0, 2_000),
            Fault::Lost => self.cut(agent, true, 0, 2_000),
            Fault::Partition => {
                let lost = self.rng.per_mille(500);
                self.cut(agent, lost, 30_000, 200_000);
            }
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
                for index in 0..self.agents[agent].builders.len() {
                    if self.rng.per_mille(500) {
                        self.condition(agent, index, fitness);
                    }
                }
            }
            Fault::LaterEpoch => {
                self.redial(agent);
                // As from a life of this farm's store that is lost.
                let random = self.rng.next();
                let epoch = &mut self.agents[agent].epoch;
                *epoch = self.plan.settings.seal.epoch(epoch.counter + 1, random);
            }
            other => unreachable!("{} is not one agent's", other.name()),
        }
    }

    /// It has waited for what ran, or not long enough; a service manager
    /// starts it again.
    pub(super) fn agent_leaves(&mut self, agent: usize, life: u64) {
        if self.agents[agent].life == life {
            self.agent_crash(agent);
            self.start_after(agent, 50, 5_000);
        }
    }

    fn start_after(&mut self, agent: usize, from: u64, to: u64) {
        let pause = self.rng.millis(from, to);
        self.after(pause, Happening::AgentStart { agent });
    }

    /// Nothing passes any more; each side notices when it does. What is under
    /// way arrives late, after the next Hello, or is lost.
    fn cut(&mut self, agent: usize, lost: bool, from: u64, to: u64) {
        let Some(id) = self.agents[agent].conn else {
            return;
        };
        let (here, there) = (self.rng.millis(from, to), self.notice_time());
        if let Some(conn) = self.network.get_mut(id) {
            conn.cut = true;
            conn.lost |= lost;
        }
        self.after(here, Happening::AgentNotices { agent, conn: id });
        self.after(there, Happening::CoordinatorNotices { conn: id });
    }
}
