//! A world: virtual time, one ordered heap of happenings, one seed. Owns the
//! course of time and nothing else; what happens is written beside the party
//! it happens to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use farmbell_farm::event::{ConnId, Event};
use farmbell_farm::record::Change;
use farmbell_protocol::id::{AttemptId, CleanNonce};
use farmbell_protocol::time::Time;

use super::agent::SimAgent;
use super::checker::{Broken, Checker};
use super::clients::{Clients, Wish};
use super::coordinator::Coordinator;
use super::coverage::Coverage;
use super::faults::Spells;
use super::network::{Down, Network, Up};
use super::plan::Plan;
use super::reasons::Reasons;
use super::rng::Rng;

/// How long everything may take to end once the trouble is over.
pub(super) const END_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// How often a world that takes long says where it is, in real time.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// How often the operator goes round after the trouble.
const PUT_RIGHT_EVERY: Duration = Duration::from_secs(60);

/// Something that is going to happen. What an agent began in one life, or a
/// host in one boot, is void in the next.
#[derive(Debug)]
pub(super) enum Happening {
    Up {
        conn: ConnId,
        up: Up,
    },
    Down {
        conn: ConnId,
        down: Down,
    },
    AgentNotices {
        agent: usize,
        conn: ConnId,
    },
    CoordinatorNotices {
        conn: ConnId,
    },
    CoordinatorStart,
    CoordinatorCrash,
    Commit {
        process: u64,
    },
    FarmWake {
        process: u64,
    },
    AgentStart {
        agent: usize,
    },
    AgentLeaves {
        agent: usize,
        life: u64,
    },
    Dial {
        agent: usize,
        life: u64,
    },
    Durable {
        agent: usize,
        index: usize,
        life: u64,
    },
    Exec {
        agent: usize,
        index: usize,
        life: u64,
        attempt: AttemptId,
    },
    Exit {
        agent: usize,
        index: usize,
        boot: u64,
        attempt: AttemptId,
    },
    Killed {
        agent: usize,
        index: usize,
        boot: u64,
        attempt: AttemptId,
    },
    SealDone {
        agent: usize,
        index: usize,
        life: u64,
        attempt: AttemptId,
    },
    ResetDone {
        agent: usize,
        index: usize,
        life: u64,
        nonce: CleanNonce,
        works: bool,
    },
    Upload {
        agent: usize,
        index: usize,
        conn: ConnId,
        attempt: AttemptId,
    },
    Ask(Wish),
    Request(Box<Event>),
    Act,
    Fault,
    /// A job has just lost its attempt.
    Hunt,
    PutRight,
}

/// In the order of time, then of planning.
#[derive(Debug)]
struct Planned {
    at: Time,
    order: u64,
    what: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What two runs of one seed must have in common.
#[derive(Debug, Default)]
pub(super) struct Hash(pub(super) u64);

impl Hash {
    fn mix(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub(super) fn fold(&mut self, change: &Change) {
        match change {
            Change::Ledger(entry) => {
                self.mix(entry.seq);
                self.mix(entry.kind as u64);
                self.mix(entry.attempt.map_or(0, |attempt| attempt.nonce));
            }
            Change::Meta(meta) => self.mix(meta.clock.0),
            Change::Job(job) => self.mix(job.id.0),
            Change::Builder(builder) => self.mix(u64::from(builder.id.0)),
            Change::Submission(_)
            | Change::Spec { .. }
            | Change::Attempt(_)
            | Change::Artifacts { .. }
            | Change::BuilderRemoved(_)
            | Change::Agent(_)
            | Change::AgentRemoved(_)
            | Change::Token(_)
            | Change::Waits(_)
            | Change::WaitOver(_)
            | Change::Package(_)
            | Change::PackageForgotten(_)
            | Change::Bulk(_)
            | Change::BulkOver(_)
            | Change::SubmissionRetired { .. }
            | Change::LedgerRetired { .. }
            | Change::Duration(_) => self.mix(1),
        }
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: Time,
    heap: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    pub(super) network: Network,
    pub(super) coordinator: Coordinator,
    pub(super) agents: Vec<SimAgent>,
    pub(super) clients: Clients,
    pub(super) checker: Checker,
    pub(super) coverage: Coverage,
    pub(super) reasons: Reasons,
    /// Counts the commits, to ask every so many of them what if.
    pub(super) commits: u64,
    pub(super) hash: Hash,
    pub(super) tracing: bool,
    pub(super) events: u64,
    pub(super) steps: u64,
}

impl World {
    pub(super) fn new(plan: Plan, seed: u64, tracing: bool) -> Self {
        let mut world = Self {
            rng: Rng::new(seed),
            now: Time::ZERO,
            heap: BinaryHeap::new(),
            planned: 0,
            network: Network::default(),
            coordinator: Coordinator::default(),
            agents: Vec::new(),
            clients: Clients::default(),
            checker: Checker::default(),
            coverage: Coverage::default(),
            reasons: Reasons::default(),
            commits: 0,
            hash: Hash::default(),
            tracing,
            events: 0,
            steps: 0,
            plan,
        };
        let (fewest, most) = world.plan.agents;
        let agents = fewest + world.rng.index(most - fewest + 1);
        for number in 0..agents {
            let agent = SimAgent::new(&mut world, number);
            world.agents.push(agent);
            let pause = world.rng.millis(0, 20_000);
            world.after(pause, Happening::AgentStart { agent: number });
        }
        world.after(Duration::ZERO, Happening::CoordinatorStart);
        world.plan_submits();
        world.after(world.plan.fault_every, Happening::Fault);
        world.after(world.plan.act_every, Happening::Act);
        let end = world.plan.trouble_until;
        world.after(end, Happening::PutRight);
        world
    }

    /// Runs until everything has ended.
    pub(super) fn run(&mut self) -> Result<(), Broken> {
        let end = Time::ZERO + self.plan.trouble_until + END_WITHIN;
        let mut shown = Instant::now();
        while let Some(Reverse(Planned { at, what, .. })) = self.heap.pop() {
            if at > end {
                return self.unfinished();
            }
            self.now = at;
            self.steps += 1;
            self.happen(what)?;
            if self.steps.is_multiple_of(4096) {
                self.network.sweep();
                if shown.elapsed() >= PROGRESS_EVERY {
                    shown = Instant::now();
                    self.print_progress();
                }
            }
            if !self.trouble() && self.ended() && self.not_ready().is_none() {
                return self.checker.submits_exist(&self.coordinator.store);
            }
        }
        self.unfinished()
    }

    #[expect(clippy::print_stderr, reason = "whoever waits for minutes may look")]
    fn print_progress(&self) {
        eprintln!(
            "{} after {} virtual s: {} submissions to come, {} jobs not over, {} steps",
            self.plan.name,
            self.now.since(Time::ZERO).as_secs(),
            self.clients.submits_left,
            self.coordinator.store.unfinished.len(),
            self.steps,
        );
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether faults still happen.
    pub(super) fn trouble(&self) -> bool {
        self.now < Time::ZERO + self.plan.trouble_until
    }

    pub(super) fn at(&mut self, at: Time, what: Happening) {
        self.planned += 1;
        let order = self.planned;
        self.heap.push(Reverse(Planned { at, order, what }));
    }

    pub(super) fn after(&mut self, pause: Duration, what: Happening) {
        self.at(self.now + pause, what);
    }

    pub(super) fn trace(&self, words: impl FnOnce() -> String) {
        if self.tracing {
            print_trace(self.now, &words());
        }
    }

    /// How long a side takes to see that a connection is dead: at once where
    /// a packet tells, else the idle timeout.
    pub(super) fn notice_time(&mut self) -> Duration {
        if self.rng.per_mille(600) {
            self.rng.millis(1, 200)
        } else {
            self.rng.millis(200, 40_000)
        }
    }

    pub(super) fn send_up(&mut self, conn: ConnId, up: Up) {
        let spells = self.spells(conn);
        let at = self.now + self.delay(spells);
        let Some(at) = self.network.up(conn, at) else {
            return;
        };
        if let Up::Report(frame) = &up
            && SimAgent::may_repeat(frame)
        {
            for again in self.copies(spells) {
                let up = Up::Report(frame.clone());
                self.at(at + again, Happening::Up { conn, up });
            }
        }
        self.at(at, Happening::Up { conn, up });
    }

    pub(super) fn send_down(&mut self, conn: ConnId, down: Down) {
        let spells = self.spells(conn);
        let at = self.now + self.delay(spells);
        let Some(at) = self.network.down(conn, at) else {
            return;
        };
        // Orders have no numbers: the transport keeps them in their order, and
        // a copy comes at once or never.
        if let Down::Order(order) = &down
            && self.now < spells.twice
        {
            let down = Down::Order(order.clone());
            self.at(at, Happening::Down { conn, down });
        }
        self.at(at, Happening::Down { conn, down });
    }

    fn spells(&self, conn: ConnId) -> Spells {
        let conn = self.network.get(conn);
        conn.map_or_else(Spells::default, |conn| self.agents[conn.agent].spells)
    }

    /// When a message comes again, beside its first coming.
    fn copies(&mut self, spells: Spells) -> Vec<Duration> {
        let mut copies = Vec::new();
        if self.now < spells.twice {
            copies.push(Duration::ZERO);
        }
        if self.now < spells.old_again && self.rng.per_mille(300) {
            copies.push(self.rng.millis(100, 20_000));
        }
        copies
    }

    fn delay(&mut self, spells: Spells) -> Duration {
        if self.now < spells.late || self.trouble() && self.rng.per_mille(30) {
            self.rng.millis(100, 5_000)
        } else {
            self.rng.millis(0, 20)
        }
    }

    fn happen(&mut self, what: Happening) -> Result<(), Broken> {
        match what {
            Happening::Up { conn, up } => return self.receive_up(conn, up),
            Happening::Down { conn, down } => return self.receive_down(conn, down),
            Happening::AgentNotices { agent, conn } => self.agent_notices(agent, conn),
            Happening::CoordinatorNotices { conn } => return self.coordinator_notices(conn),
            Happening::CoordinatorStart => return self.coordinator_start(),
            Happening::CoordinatorCrash => self.coordinator_crash(),
            Happening::Commit { process } => return self.commit(process),
            Happening::FarmWake { process } => return self.farm_wake(process),
            Happening::AgentStart { agent } => self.agent_start(agent),
            Happening::AgentLeaves { agent, life } => self.agent_leaves(agent, life),
            Happening::Dial { agent, life } => self.dial(agent, life),
            host @ (Happening::Durable { .. }
            | Happening::Exec { .. }
            | Happening::Exit { .. }
            | Happening::Killed { .. }
            | Happening::SealDone { .. }
            | Happening::ResetDone { .. }
            | Happening::Upload { .. }) => return self.happen_on_host(host),
            Happening::Ask(wish) => self.ask(wish),
            Happening::Request(event) => return self.submit_event(*event),
            Happening::Act => {
                if self.trouble() {
                    self.act();
                    let every = u64::try_from(self.plan.act_every.as_millis()).unwrap_or(1000);
                    let pause = self.rng.millis(0, 2 * every);
                    self.after(pause, Happening::Act);
                }
            }
            Happening::Fault => self.fault(),
            Happening::Hunt => self.hunt(),
            Happening::PutRight => {
                self.put_right();
                self.after(PUT_RIGHT_EVERY, Happening::PutRight);
            }
        }
        Ok(())
    }

    /// What a builder's own host does.
    fn happen_on_host(&mut self, what: Happening) -> Result<(), Broken> {
        match what {
            Happening::Durable { agent, index, life } => return self.durable(agent, index, life),
            Happening::Exec {
                agent,
                index,
                life,
                attempt,
            } => {
                return self.exec(agent, index, life, attempt);
            }
            Happening::Exit {
                agent,
                index,
                boot,
                attempt,
            } => {
                self.exit(agent, index, boot, attempt);
            }
            Happening::Killed {
                agent,
                index,
                boot,
                attempt,
            } => {
                self.killed(agent, index, boot, attempt);
            }
            Happening::SealDone {
                agent,
                index,
                life,
                attempt,
            } => {
                self.seal_done(agent, index, life, attempt);
            }
            Happening::ResetDone {
                agent,
                index,
                life,
                nonce,
                works,
            } => {
                self.reset_done(agent, index, life, nonce, works);
            }
            Happening::Upload {
                agent,
                index,
                conn,
                attempt,
            } => {
                return self.upload(agent, index, conn, attempt);
            }
            Happening::Up { .. }
            | Happening::Down { .. }
            | Happening::AgentNotices { .. }
            | Happening::CoordinatorNotices { .. }
            | Happening::CoordinatorStart
            | Happening::CoordinatorCrash
            | Happening::Commit { .. }
            | Happening::FarmWake { .. }
            | Happening::AgentStart { .. }
            | Happening::AgentLeaves { .. }
            | Happening::Dial { .. }
            | Happening::Ask(_)
            | Happening::Request(_)
            | Happening::Act
            | Happening::Fault
            | Happening::Hunt
            | Happening::PutRight => unreachable!("`happen` routes"),
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "a trace is asked for by --trace only")]
pub(super) fn print_trace(now: Time, words: &str) {
    println!("{:>12} {words}", now.0);
}
