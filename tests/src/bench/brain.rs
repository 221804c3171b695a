//! `decisions` and the core's memory: the farm's brain alone, at the size it
//! is made for. No store, no sockets; every effect is built and dropped.

use std::time::Duration;

use farmbell_farm::effect::{Effect, Reply};
use farmbell_farm::event::{Actor, Command, ConnId, Event, RequestId, Submit};
use farmbell_farm::record::{AgentRecord, AgentStanding, Envelope, Snapshot};
use farmbell_farm::{Farm, Settings};
use farmbell_protocol::agent_to_coordinator::{AgentFrame, Clean, Hello, HelloBuilder, ResetScope};
use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::coordinator_to_agent::CoordinatorFrame;
use farmbell_protocol::id::{
    AgentId, BootId, BuilderIndex, CleanNonce, Epoch, KeyHash, Seq, SessionId, SpoolId,
};
use farmbell_protocol::spec::{ArchScope, JobSpec, Limits, Network, Rung};
use farmbell_protocol::time::{Now, Time, Wall};
use farmbell_protocol::version::Features;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::Plan;
use super::process::memory_of;
use super::row::{Mark, Row};
use super::sample::Samples;

const ARCHITECTURES: u32 = 8;
const TAGS: u32 = 25;
const OWNERS: u32 = 200;
/// 8 architectures × virtualized or not × 25 tags.
const CLASSES: u32 = ARCHITECTURES * 2 * TAGS;
pub(super) const BUILDERS_PER_AGENT: u16 = 100;

/// The sizes of one measurement.
struct Size {
    jobs: u32,
    agents: u32,
}

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let size = if plan.short {
        Size {
            jobs: 100_000,
            agents: 100,
        }
    } else {
        Size {
            jobs: 1_000_000,
            agents: 1_000,
        }
    };
    let (mut farm, per_job) = fill(&size)?;
    let mut rows = vec![memory_row(&size, per_job)];
    rows.extend(decisions(&mut farm, &size)?);
    Ok(rows)
}

fn memory_row(size: &Size, per_job: f64) -> Row {
    Row {
        id: "job-memory",
        what: format!("core memory per waiting job, of {}", size.jobs),
        unit: "B",
        median: per_job,
        p99: None,
        runs: 1,
        floor: None,
        mark: Mark::AtMost(600.0),
        note: "growth of the resident set while they were submitted".to_owned(),
    }
}

/// A farm of idle agents that are away, with all jobs waiting.
fn fill(size: &Size) -> anyhow::Result<(Farm, f64)> {
    let mut farm = farm_with_agents(size.agents).0;
    let before = memory_of(Pid::this())?.resident;
    for number in 0..size.jobs {
        let effects = farm.handle(now(u64::from(number)), submit(number)?);
        accepted(&effects)?;
    }
    let after = memory_of(Pid::this())?.resident;
    #[expect(clippy::cast_precision_loss, reason = "a figure, not a count")]
    let per_job = after.saturating_sub(before) as f64 / f64::from(size.jobs);
    Ok((farm, per_job))
}

/// A new farm that knows so many agents, and what it made durable so far.
pub(super) fn farm_with_agents(agents: u32) -> (Farm, Vec<Effect>) {
    let snapshot = Snapshot {
        agents: (1..=agents).map(agent).collect(),
        ..Snapshot::default()
    };
    Farm::restore(Settings::default(), snapshot, [], now(0), [1; 32])
}

/// Whether a submit was taken.
pub(super) fn accepted(effects: &[Effect]) -> anyhow::Result<()> {
    let taken = effects.iter().any(|effect| {
        matches!(effect, Effect::Reply { reply, .. }
            if matches!(**reply, Reply::Submitted { .. }))
    });
    anyhow::ensure!(taken, "a measured submit was refused");
    Ok(())
}

/// Every builder is proved clean, one by one, and gets its job in that step.
fn decisions(farm: &mut Farm, size: &Size) -> anyhow::Result<Vec<Row>> {
    let mut nonces: Vec<(ConnId, BuilderIndex, CleanNonce)> = Vec::new();
    for number in 1..=size.agents {
        for effect in farm.handle(now(2_000_000), hello(number)?) {
            if let Effect::Send {
                conn,
                frame: CoordinatorFrame::Reset(order),
            } = effect
            {
                nonces.push((conn, order.builder, order.nonce));
            }
        }
    }
    let mut steps = Samples::default();
    let mut placed = 0u32;
    let mut worst = Duration::ZERO;
    let began = thread_time()?;
    for (conn, builder, nonce) in nonces {
        let step = thread_time()?;
        let effects = farm.handle(
            now(3_000_000),
            Event::Report {
                conn,
                frame: AgentFrame::Clean(Clean {
                    builder,
                    seq: Seq(1),
                    nonce,
                    reset_ms: 1,
                    probe_ms: 1,
                }),
            },
        );
        placed += u32::from(effects.iter().any(|e| matches!(e, Effect::Offer { .. })));
        drop(effects);
        let took = thread_time()?.saturating_sub(step);
        worst = worst.max(took);
        steps.push(took);
    }
    let rate = f64::from(placed) / thread_time()?.saturating_sub(began).as_secs_f64();
    let row = |what: &str, unit, median, mark| Row {
        id: "decisions",
        what: what.to_owned(),
        unit,
        median,
        p99: None,
        runs: steps.runs(),
        floor: None,
        mark,
        note: what.to_owned(),
    };
    let sizes = format!(
        "jobs placed per second of one core; {} waiting, {} builders, {OWNERS} owners, {CLASSES} classes",
        size.jobs,
        size.agents * u32::from(BUILDERS_PER_AGENT)
    );
    let us = |span: Duration| span.as_secs_f64() * 1e6;
    Ok(vec![
        row(&sizes, "1/s", rate, Mark::AtLeast(100_000.0)),
        row(
            "p99 of a step: a clean proof in, changes and offer out",
            "us",
            us(steps.p99()),
            Mark::AtMost(50.0),
        ),
        row(
            "the worst such step",
            "us",
            us(worst),
            Mark::AtMost(10_000.0),
        ),
    ])
}

/// What this thread has computed: the figure is per second of one core, whoever
/// else wants it meanwhile.
fn thread_time() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::from(time))
}

pub(super) fn now(micros: u64) -> Now {
    Now {
        time: Time(micros),
        wall: Wall(micros / 1000),
    }
}

fn name(text: &str) -> anyhow::Result<Name> {
    Ok(Name::new(text)?)
}

pub(super) fn agent(number: u32) -> AgentRecord {
    AgentRecord {
        id: AgentId(number),
        name: Name::cut(format!("host{number}")),
        key: key(number),
        envelope: Envelope::default(),
        standing: AgentStanding::Active,
        standing_why: Text::default(),
        session: SessionId(0),
        boot: None,
        incarnation: 0,
        spool: None,
        software: Name::default(),
        address: Text::default(),
        facts: List::default(),
        joined: Wall(0),
        last_seen: Wall(0),
        lost_at: None,
    }
}

fn key(number: u32) -> KeyHash {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    KeyHash(bytes)
}

pub(super) fn hello(number: u32) -> anyhow::Result<Event> {
    let builders = (0..BUILDERS_PER_AGENT)
        .map(|index| builder(number, index))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Event::Hello {
        conn: ConnId(u64::from(number)),
        key: key(number),
        address: Text::default(),
        hello: Box::new(Hello {
            version_min: 1,
            version_max: 1,
            features: Features::ALL,
            software: Name::default(),
            boot: BootId([1; 16]),
            incarnation: 1,
            spool: SpoolId([1; 16]),
            epoch: Epoch::default(),
            previous_session: None,
            builders: BUILDERS_PER_AGENT,
            attempts: 0,
            facts: List::default(),
        }),
        builders,
        attempts: Vec::new(),
    })
}

/// Every builder offers five of the tags: 80 kinds of builders.
fn builder(agent: u32, index: u16) -> anyhow::Result<HelloBuilder> {
    let kind = agent.wrapping_mul(31).wrapping_add(u32::from(index));
    let first = (kind / 16) % 5 * 5;
    let tags = (first..first + 5)
        .map(|tag| name(&format!("tag{tag}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(HelloBuilder {
        index: BuilderIndex(index),
        name: name(&format!("b{agent}-{index}"))?,
        recipes: List::new(vec![name("command")?])?,
        architectures: List::new(vec![name(&format!("arch{}", kind % ARCHITECTURES))?])?,
        open_tags: List::new(tags)?,
        restricted_tags: List::default(),
        virtualized: (kind / ARCHITECTURES) % 2 == 1,
        rung: Rung::Sandbox,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 30,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: true,
        last_seq: Seq(0),
        occupied_by: None,
    })
}

pub(super) fn submit(number: u32) -> anyhow::Result<Event> {
    Ok(Event::Request {
        request: RequestId(1),
        by: Actor {
            name: Text::default(),
        },
        command: submit_command(number)?,
    })
}

/// A job of one of the classes and owners, in turn.
pub(super) fn submit_command(number: u32) -> anyhow::Result<Command> {
    let class = number.wrapping_mul(2_654_435_761) % CLASSES;
    let spec = JobSpec {
        name: Text::new(format!("package{number}"))?,
        version: Text::new("1.2.3-4")?,
        recipe: name("command")?,
        parameters: List::default(),
        architecture: name(&format!("arch{}", class % ARCHITECTURES))?,
        suite: Name::default(),
        archives: List::default(),
        arch_scope: ArchScope::All,
        build_profiles: List::default(),
        inputs: List::default(),
        outputs: List::default(),
        environment: List::default(),
        secrets: List::default(),
        network: Network::None,
        limits: Limits::default(),
        tags: List::new(vec![name(&format!("tag{}", class / ARCHITECTURES / 2))?])?,
        rung: Rung::Process,
        virtualized: (class / ARCHITECTURES) % 2 == 1,
        owner: name(&format!("owner{}", number % OWNERS))?,
        private: false,
        priority: i32::try_from(number % 7)?,
        retries: 0,
        notify: List::default(),
    };
    Ok(Command::Submit(Submit {
        key: None,
        jobs: List::new(vec![spec])?,
        allow_unmatched: true,
    }))
}
