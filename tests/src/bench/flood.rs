//! A build that floods its log: how fast it reaches the disk with a generous
//! limit and what becomes of it with a small one, what the agent's memory does
//! meanwhile, and how the other builders fare.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use super::Plan;
use super::latency::StartBench;
use super::process::memory_of;
use super::row::{Floor, Mark, Row};
use super::sample::{Samples, ms};
use crate::harness::{BuilderPlan, TestFarm};

/// What a compiler may say, many times.
const SAYS: &str = r#"yes "source.c:120:7: warning: unused variable 'first' [-Wunused-variable]""#;
/// Growth of the agent beside a flood: its window to the coordinator and the
/// buffers before it, whatever the length of the log.
const GROWTH_MB: f64 = 8.0;
const SMALL_LIMIT: u64 = 1 << 20;

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let bytes: u64 = if plan.short { 128 << 20 } else { 1 << 30 };
    let mut farm = plan.farm(1);
    let flooding = |name: &str, limit: u64| {
        BuilderPlan::named(name).with(&format!(
            "restricted-tags = [{name:?}]\nlimits = {{ log-bytes = {limit} }}"
        ))
    };
    farm.add_agent(
        "flooded",
        &[
            flooding("generous", 4 << 30),
            flooding("small", SMALL_LIMIT),
            flooding("warm", 4 << 30),
        ],
    );
    let mut rows = Vec::new();
    for tag in ["generous", "small"] {
        rows.extend(flood(plan, &farm, tag, bytes)?);
    }
    Ok(rows)
}

fn flood(plan: &Plan, farm: &TestFarm, tag: &str, bytes: u64) -> anyhow::Result<Vec<Row>> {
    let agent = farm.agents.last().context("the flooded one was added")?;
    let agent = agent.daemon.pid().context("it runs")?;
    let mut others = StartBench::of(plan, farm)?;
    for run in 0..plan.runs(100) {
        others.start_once(run)?;
    }
    let idle = std::mem::take(&mut others.starts);

    let floor = floor(&farm.file("floor-log"), bytes)?;
    // A first transfer opens the bulk connection, which costs its memory once.
    let warm = farm.cli().submit_script(&["--tag", "warm"], "seq 1 500000");
    farm.cli().run(&["job", "wait", &warm]).succeeds();
    let before = memory_of(agent)?.resident;
    let mut peak = before;
    let mut events = farm.events();
    let script = format!("{SAYS} | head -c {bytes}");
    let job = farm.cli().submit_script(&["--tag", tag], &script);
    let began = events.next_of_job("job.running", &job).seen;
    let mut runs = 0;
    let sealed = loop {
        others.start_once(1000 + runs)?;
        runs += 1;
        peak = peak.max(memory_of(agent)?.resident);
        let over = events.next_within(std::time::Duration::ZERO, |entry| {
            entry.kind == "job.finishing" && entry.job.as_deref() == Some(&*job)
        });
        if let Some(entry) = over {
            break entry.seen;
        }
    };
    let seconds = sealed.saturating_duration_since(began).as_secs_f64();
    farm.cli().run(&["job", "wait", &job]).succeeds();
    let stored = farm.cli().json(&["job", "show", &job]);
    let kept = kept_bytes(farm, &job)?;
    rows(
        tag,
        bytes,
        &Seen {
            rate: megabytes(bytes) / seconds,
            floor,
            growth: megabytes(peak.saturating_sub(before)),
            kept,
            beside: others.starts,
            idle,
            verdict: stored["job"]["verdict"]["verdict"].to_string(),
        },
    )
}

struct Seen {
    rate: f64,
    floor: f64,
    growth: f64,
    kept: u64,
    beside: Samples,
    idle: Samples,
    verdict: String,
}

fn rows(tag: &str, bytes: u64, seen: &Seen) -> anyhow::Result<Vec<Row>> {
    let wanted = if tag == "small" { SMALL_LIMIT } else { bytes };
    anyhow::ensure!(
        seen.kept == wanted,
        "of {bytes} flooded bytes {} are stored, not {wanted} ({})",
        seen.kept,
        seen.verdict
    );
    let row = |what: String, unit, median, mark, floor| Row {
        id: "flood",
        what,
        unit,
        median,
        p99: None,
        runs: 1,
        floor,
        mark,
        note: String::new(),
    };
    let taken = Row {
        note: format!(
            "{} MiB; {} bytes are stored, as its limit says",
            bytes >> 20,
            seen.kept
        ),
        ..row(
            format!("log taken from a flood, {tag} limit, from running to sealed"),
            "MB/s",
            seen.rate,
            Mark::AtLeast(200.0),
            Some(Floor {
                what: "the same pipe into a file, flushed",
                median: seen.floor,
                runs: 1,
            }),
        )
    };
    let memory = row(
        format!("growth of the agent meanwhile, {tag} limit, resident"),
        "MB",
        seen.growth,
        Mark::AtMost(GROWTH_MB),
        None,
    );
    let beside = Row {
        runs: seen.beside.runs(),
        ..row(
            format!("p99 of the start of another builder's jobs meanwhile, {tag} limit"),
            "ms",
            ms(seen.beside.p99()),
            Mark::FloorTimesAtMost(3.0),
            Some(Floor {
                what: "p99 of start, idle",
                median: ms(seen.idle.p99()),
                runs: seen.idle.runs(),
            }),
        )
    };
    Ok(vec![taken, memory, beside])
}

/// MB/s of the same flood when nobody but a file takes it.
fn floor(path: &std::path::Path, bytes: u64) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("{SAYS} | head -c {bytes}")])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().context("its output is piped")?;
    let mut file = File::create(path)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        file.write_all(&buffer[..count])?;
    }
    file.sync_data()?;
    child.wait()?;
    std::fs::remove_file(path)?;
    Ok(megabytes(bytes) / began.elapsed().as_secs_f64())
}

/// Bytes of the log as the coordinator stores it.
fn kept_bytes(farm: &TestFarm, job: &str) -> anyhow::Result<u64> {
    let mut reader = farm
        .cli()
        .command(&["logs", job])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = reader.stdout.take().context("its output is piped")?;
    let bytes = std::io::copy(&mut output, &mut std::io::sink())?;
    reader.wait()?;
    Ok(bytes)
}

fn megabytes(bytes: u64) -> f64 {
    u32::try_from(bytes / 1000).map_or(f64::INFINITY, f64::from) / 1000.0
}
