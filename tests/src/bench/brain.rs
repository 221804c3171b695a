//! `decisions`, `restore` and the core's memory: the farm's brain alone, at
//! the size it is made for. No store, no sockets; every effect is built and
//! dropped.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use farmbell_farm::effect::{Effect, Reply};
use farmbell_farm::event::{Actor, Command, ConnId, Event, RequestId, Submit};
use farmbell_farm::record::{
    AgentRecord, AgentStanding, Change, Envelope, JobRecord, Meta, Snapshot,
};
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
const BUILDERS_PER_AGENT: u16 = 100;

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
    let mut rows = Vec::new();
    let (mut farm, jobs, per_job) = fill(&size)?;
    rows.push(memory_row(&size, per_job));
    rows.extend(decisions(&mut farm, &size)?);
    drop(farm);
    rows.push(restore(&size, jobs)?);
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
fn fill(size: &Size) -> anyhow::Result<(Farm, Vec<JobRecord>, f64)> {
    let snapshot = Snapshot {
        meta: Some(Meta::default()),
        agents: (1..=size.agents).map(agent).collect(),
        ..Snapshot::default()
    };
    let (mut farm, _) = Farm::restore(settings(), snapshot, now(0), [1; 32]);
    let before = memory_of(Pid::this())?.resident;
    let mut kept = Vec::new();
    for number in 0..size.jobs {
        let effects = farm.handle(now(u64::from(number)), submit(number)?);
        // A thousandth is kept as what the store would give back.
        if number % 1000 < CLASSES {
            kept.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Change(Change::Job(job)) if number < 100_000 => Some(*job),
                Effect::Reply { reply, .. } => {
                    assert!(matches!(*reply, Reply::Submitted { .. }), "{reply:?}");
                    None
                }
                Effect::Change(_)
                | Effect::Send { .. }
                | Effect::Offer { .. }
                | Effect::Welcome { .. }
                | Effect::Close { .. }
                | Effect::Admit { .. }
                | Effect::Dismiss { .. }
                | Effect::Expect { .. } => None,
            }));
        }
    }
    let after = memory_of(Pid::this())?.resident;
    let kept_bytes = kept.len() * (size_of::<JobRecord>() + 200);
    #[expect(clippy::cast_precision_loss, reason = "a figure, not a count")]
    let per_job = (after
        .saturating_sub(before)
        .saturating_sub(kept_bytes as u64)) as f64
        / f64::from(size.jobs);
    Ok((farm, kept, per_job))
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
    let began = Instant::now();
    for (conn, builder, nonce) in nonces {
        let step = Instant::now();
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
        let took = step.elapsed();
        worst = worst.max(took);
        steps.push(took);
    }
    let rate = f64::from(placed) / began.elapsed().as_secs_f64();
    Ok(vec![
        Row {
            id: "decisions",
            what: format!(
                "jobs placed per second; {} waiting, {} builders, {OWNERS} owners, {CLASSES} classes",
                size.jobs,
                size.agents * u32::from(BUILDERS_PER_AGENT)
            ),
            unit: "1/s",
            median: rate,
            p99: None,
            runs: usize::try_from(placed)?,
            floor: None,
            mark: Mark::AtLeast(100_000.0),
            note: "a clean proof in, changes and offer out".to_owned(),
        },
        Row {
            id: "decisions",
            what: "p99 of such a step".to_owned(),
            unit: "us",
            median: steps.p99().as_secs_f64() * 1e6,
            p99: Some(worst.as_secs_f64() * 1e6),
            runs: usize::try_from(placed)?,
            floor: None,
            mark: Mark::AtMost(50.0),
            note: "beside it the worst step; its limit is 10,000 us".to_owned(),
        },
    ])
}

/// The farm from the store's records of that many waiting jobs.
fn restore(size: &Size, kept: Vec<JobRecord>) -> anyhow::Result<Row> {
    let mut jobs = Vec::with_capacity(usize::try_from(size.jobs)?);
    for number in 0..u64::from(size.jobs) {
        let at = usize::try_from(number)? % kept.len();
        let mut job = kept.get(at).context("no job was kept")?.clone();
        job.id.0 = number + 1;
        jobs.push(job);
    }
    let snapshot = Snapshot {
        meta: Some(Meta::default()),
        jobs,
        ..Snapshot::default()
    };
    let began = Instant::now();
    let (farm, _) = Farm::restore(settings(), snapshot, now(0), [1; 32]);
    let took = began.elapsed();
    drop(farm);
    Ok(Row {
        id: "restore",
        what: format!("the core from {} records, without reading them", size.jobs),
        unit: "s",
        median: took.as_secs_f64(),
        p99: None,
        runs: 1,
        floor: None,
        mark: Mark::Information,
        note: "not judged: reading them from the store comes on top".to_owned(),
    })
}

fn settings() -> Settings {
    Settings::default()
}

fn now(micros: u64) -> Now {
    Now {
        time: Time(micros),
        wall: Wall(micros / 1000),
    }
}

fn name(text: &str) -> anyhow::Result<Name> {
    Ok(Name::new(text)?)
}

fn agent(number: u32) -> AgentRecord {
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

fn hello(number: u32) -> anyhow::Result<Event> {
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

fn submit(number: u32) -> anyhow::Result<Event> {
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
    Ok(Event::Request {
        request: RequestId(1),
        by: Actor {
            name: Text::default(),
        },
        command: Command::Submit(Submit {
            key: None,
            jobs: List::new(vec![spec])?,
            allow_unmatched: true,
        }),
    })
}
